"""What an object's file says of itself, read while another process has it open.

The process that owns an object holds SQLite's exclusive lock on its file, so nobody else can open
it. But all that a list of objects needs is in one small table, on one page that never moves: its
last committed version is in the log, or else in the file. Reading it takes no lock and waits for
nothing; at worst it is a moment old.

https://www.sqlite.org/fileformat2.html describes pages, records and the log.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Any, BinaryIO, Final

import apsw

from shard.storage.schema import PAGE_BYTES, empty_database

_LOG_HEAD: Final = struct.Struct(">8I")
_FRAME_HEAD: Final = struct.Struct(">6I")
_FRAME_BYTES: Final = _FRAME_HEAD.size + PAGE_BYTES
_INDEX_LEAF: Final = 10
_INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)


def read_identity(path: str) -> dict[str, Any] | None:
    """Return the rows of ``_cf_META`` of a database, those with values that fit on its page.

    Args:
        path: of the database; another process may have it open.

    Returns:
        What is there, by key; ``None`` if it is no database of ours.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            with open(f"{path}-wal", "rb") as log:
                page = _from_log(log)
        except FileNotFoundError:
            page = None
        if page is None:
            page = os.pread(file.fileno(), PAGE_BYTES, (_root_page() - 1) * PAGE_BYTES)
    return _rows(page)


@functools.cache
def _root_page() -> int:
    """The page of ``_cf_META``: the same in every database, as it is made with the file."""
    connection = apsw.Connection(":memory:")
    try:
        connection.deserialize("main", _rollback_mode(empty_database()))
        found: int = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = '_cf_META'"
        ).get
    finally:
        connection.close()
    return found


def _rollback_mode(image: bytes) -> bytes:
    # A database in memory has no log.
    return image[:18] + b"\1\1" + image[20:]


def _from_log(log: BinaryIO) -> bytes | None:
    """The last committed version of the page in a log; ``None`` if it is not there."""
    head = log.read(_LOG_HEAD.size)
    if len(head) < _LOG_HEAD.size:
        return None
    salts = _LOG_HEAD.unpack(head)[4:6]
    wanted = _root_page()
    seen: int | None = None
    committed: int | None = None
    at = _LOG_HEAD.size
    while True:
        log.seek(at)
        frame = log.read(_FRAME_HEAD.size)
        if len(frame) < _FRAME_HEAD.size:
            break
        page, pages_after, *rest = _FRAME_HEAD.unpack(frame)
        if tuple(rest[:2]) != salts:  # what an earlier round has left, or nothing yet
            break
        if page == wanted:
            seen = at
        if pages_after:
            committed = seen
        at += _FRAME_BYTES
    if committed is None:
        return None
    log.seek(committed + _FRAME_HEAD.size)
    return log.read(PAGE_BYTES)


def _rows(page: bytes) -> dict[str, Any] | None:
    if len(page) < PAGE_BYTES or page[0] != _INDEX_LEAF:
        return None
    rows: dict[str, Any] = {}
    (count,) = struct.unpack_from(">H", page, 3)
    try:
        for index in range(count):
            (at,) = struct.unpack_from(">H", page, 8 + 2 * index)
            row = _record(page, at)
            if row is not None and len(row) == 2:
                rows[str(row[0])] = row[1]
    except (IndexError, UnicodeDecodeError, struct.error):
        return None
    return rows


def _record(page: bytes, at: int) -> list[Any] | None:
    """The values of a cell; ``None`` if it goes on on another page."""
    size, at = _varint(page, at)
    if at + size > PAGE_BYTES or size > _largest_local():
        return None
    head_bytes, types_at = _varint(page, at)
    body = at + head_bytes
    values: list[Any] = []
    while types_at < at + head_bytes:
        kind, types_at = _varint(page, types_at)
        value, body = _value(page, kind, body)
        values.append(value)
    return values


def _value(page: bytes, kind: int, at: int) -> tuple[Any, int]:
    if kind < len(_INTEGER_BYTES):
        end = at + _INTEGER_BYTES[kind]
        return (int.from_bytes(page[at:end], "big", signed=True) if kind else None), end
    if kind == 7:
        return struct.unpack_from(">d", page, at)[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    end = at + (kind - 12) // 2
    data = page[at:end]
    return (data.decode() if kind % 2 else data), end


def _largest_local() -> int:
    return (PAGE_BYTES - 12) * 64 // 255 - 23


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = page[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | page[at], at + 1
