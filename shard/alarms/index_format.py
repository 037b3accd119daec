"""What a partition's alarm index consists of: bytes in, entries out, and back.

A log of records, each with its length and checksum. The first is a head: whether the index was
complete when it was written, and how many entries it began with. Each further one says when one
object's alarm is due, or that it has none; the last word counts. A log that ends in the middle of
a record, does not hold all it began with, or has a wrong checksum is *damaged*: what could be read
is true enough to look the objects up, and the objects' own files are asked for the rest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

FORMAT: Final = 1
_MAGIC: Final = "limpet alarms"
_FRAME: Final = struct.Struct(">II")
MAX_RECORD_BYTES: Final = 1 << 24


class Entry(NamedTuple):
    """One object's alarm, as the index has it.

    Attributes:
        unique_key: of the object's namespace.
        raw: the object's id.
        name: the object's name, if it is known.
        due_ms: milliseconds since 1970; ``None``: there is no alarm.
    """

    unique_key: str
    raw: bytes
    name: str | None
    due_ms: int | None


@dataclass(slots=True)
class Contents:
    """What an index was found to say.

    Attributes:
        entries: the alarms, by the raw id of their object.
        records: how many entries the log has, those included that do not count any more.
        complete: it has all alarms of its partition.
        damaged: not all of it could be read.
    """

    entries: dict[bytes, Entry] = field(default_factory=dict)
    records: int = 0
    complete: bool = False
    damaged: bool = False


def encode(entry: Entry) -> bytes:
    """The record of an entry."""
    return _frame([entry.due_ms, entry.unique_key, entry.raw, entry.name])


def encode_all(entries: Iterable[Entry], *, complete: bool) -> tuple[bytes, int]:
    """A whole index, and the number of its entries."""
    records = [encode(entry) for entry in entries]
    head = _frame([_MAGIC, FORMAT, complete, len(records)])
    return b"".join((head, *records)), len(records)


def decode(data: bytes) -> Contents:
    """Read an index as far as it can be read."""
    contents = Contents()
    try:
        records = _records(data)
        magic, version, complete, first = next(records)
        if magic != _MAGIC or version != FORMAT:
            raise ValueError("this is no index of alarms")
        for due_ms, unique_key, raw, name in records:
            contents.records += 1
            if due_ms is None:
                contents.entries.pop(raw, None)
            else:
                contents.entries[raw] = Entry(unique_key, raw, name, due_ms)
        if contents.records < first:
            raise ValueError("the index is shorter than it was")
        contents.complete = bool(complete)
    except (ValueError, TypeError, StopIteration, msgpack.UnpackException):
        contents.damaged = True
    return contents


def _frame(payload: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(payload)
    return _FRAME.pack(len(packed), zlib.crc32(packed)) + packed


def _records(data: bytes) -> Iterator[list[Any]]:
    at = 0
    while at < len(data):
        if len(data) - at < _FRAME.size:
            raise ValueError("the last record is cut")
        length, checksum = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        packed = data[at : at + length]
        if not 0 < length <= MAX_RECORD_BYTES or len(packed) < length:
            raise ValueError("a record is cut")
        if zlib.crc32(packed) != checksum:
            raise ValueError("a record is damaged")
        at += length
        yield msgpack.unpackb(packed)
