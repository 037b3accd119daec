"""Batches as bytes: what one write of a link carries.

::

    0        4        8                  8+body             8+body+blobs
    ├────────┼────────┼──────────────────┼──────────────────┤
    │ body   │ blobs  │ msgpack body     │ raw payloads     │
    │ u32 be │ u32 be │ [seq, ack, record, record, …]       │

Large messages travel as *blobs* behind the body, in the order of their ``BLOB_FRAME`` records: they
are neither packed nor unpacked, and the receiver lets the kernel write them where they are read.
"""

from __future__ import annotations

import codecs
import reprlib
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from common.errors import ProtocolError
from common.link.records import BLOB_FRAME, FRAMES, GOODBYE, HELLO, LENGTHS, Record

HEAD: Final = struct.Struct(">II")
HEAD_BYTES: Final = HEAD.size
BLOB_MIN_BYTES: Final = 8192
"""Payloads from this size on travel as blobs. Below it, one more buffer in the write costs more
than the two copies it saves."""

Buffer = bytes | bytearray | memoryview

_LONE_SURROGATES: Final = "limpet-lone-surrogates"


def _replace_surrogates(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16", "surrogatepass")
    return units.decode("utf-16", "replace").encode(), error.end


codecs.register_error(_LONE_SURROGATES, _replace_surrogates)

_pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack
_pack_any_text = msgpack.Packer(
    autoreset=True, use_bin_type=True, unicode_errors=_LONE_SURROGATES
).pack  # twice as slow


def encode_text(text: str) -> bytes:
    """UTF-8, each lone surrogate as U+FFFD: Web IDL's conversion to a ``USVString``."""
    return text.encode("utf-8", _LONE_SURROGATES)


def encode(seq: int, ack: int, records: Sequence[Record], blobs: Sequence[Buffer]) -> list[Buffer]:
    """The buffers to write, in order, for one batch.

    Args:
        seq: number of this batch, or 0 when it carries only an acknowledgement.
        ack: the highest batch number of the peer that has been processed.
        records: the records, see :mod:`common.link.records`.
        blobs: payloads of the ``BLOB_FRAME`` records, in their order.

    Raises:
        TypeError, ValueError, OverflowError: a record holds what msgpack cannot express.
    """
    try:
        body = _pack([seq, ack, *records])
    except UnicodeEncodeError:  # one text with a lone surrogate must not cost the others theirs
        body = _pack_any_text([seq, ack, *records])
    if not blobs:
        return [HEAD.pack(len(body), 0) + body]
    return [HEAD.pack(len(body), sum(map(len, blobs))) + body, *blobs]


def decode(body: Buffer, blobs: memoryview) -> tuple[int, int, list[Record]]:
    """One batch read back: ``(seq, ack, records)``.

    Every ``BLOB_FRAME`` comes back as ``[BLOB_FRAME, target, payload, is_text]`` where the payload
    is a slice of *blobs*, not a copy.

    Raises:
        ProtocolError: the body is not msgpack, or not shaped as :mod:`common.link.records` says.
    """
    try:
        batch = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises half a dozen unrelated classes
        reason = str(error) or type(error).__name__
        raise ProtocolError(f"batch is not valid msgpack: {reason}") from None
    if (
        type(batch) is not list
        or len(batch) < 2
        or type(batch[0]) is not int
        or type(batch[1]) is not int
        or batch[0] < 0
        or batch[1] < 0
    ):
        raise ProtocolError("batch does not start with its sequence numbers")
    seq: int = batch[0]
    ack: int = batch[1]
    records: list[Record] = batch[2:]
    taken = 0
    for record in records:
        try:
            kind = record[0]
            if len(record) != LENGTHS[kind] or type(record) is not list:
                raise ProtocolError(_misshapen(record))
        except (KeyError, TypeError, IndexError):
            raise ProtocolError(_misshapen(record)) from None
        if kind == FRAMES:
            targets, payloads = record[1], record[2]
            if (
                type(targets) is not list
                or type(payloads) is not list
                or len(targets) != len(payloads)
            ):
                raise ProtocolError("FRAMES record whose columns differ in length")
        elif kind == BLOB_FRAME:
            length = record[2]
            if type(length) is not int or length < 0 or taken + length > len(blobs):
                raise ProtocolError("blob record does not match the bytes behind its batch")
            record[2] = blobs[taken : taken + length]
            taken += length
        elif (kind == HELLO and record is not records[0]) or (
            kind == GOODBYE and record is not records[-1]
        ):
            raise ProtocolError(f"HELLO comes first and GOODBYE last: {reprlib.repr(record)}")
    if taken != len(blobs):
        raise ProtocolError(f"{len(blobs) - taken} bytes behind the batch belong to no record")
    return seq, ack, records


def _misshapen(record: Any) -> str:
    """Why no handler could read it."""
    excerpt = reprlib.repr(record)
    if type(record) is not list or not record:
        return f"record is not a list: {excerpt}"
    try:
        length = LENGTHS[record[0]]
    except (KeyError, TypeError):
        return f"record of unknown kind: {excerpt}"
    return f"record has {len(record)} items, not {length}: {excerpt}"
