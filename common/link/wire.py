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

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from common.errors import ProtocolError
from common.link.records import BLOB_FRAME, FRAMES, LENGTHS, Record

HEAD: Final = struct.Struct(">II")
HEAD_BYTES: Final = HEAD.size
BLOB_MIN_BYTES: Final = 8192
"""Payloads from this size on travel as blobs. Below it, one more buffer in the write costs more
than the two copies it saves."""

Buffer = bytes | bytearray | memoryview

_pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack


def encode(seq: int, ack: int, records: Sequence[Record], blobs: Sequence[Buffer]) -> list[Buffer]:
    """The buffers to write, in order, for one batch.

    Args:
        seq: number of this batch, or 0 when it carries only an acknowledgement.
        ack: the highest batch number of the peer that has been processed.
        records: the records, see :mod:`common.link.records`.
        blobs: payloads of the ``BLOB_FRAME`` records, in their order.
    """
    body = _pack([seq, ack, *records])
    if not blobs:
        return [HEAD.pack(len(body), 0) + body]
    return [HEAD.pack(len(body), sum(map(len, blobs))) + body, *blobs]


def decode(body: Buffer, blobs: memoryview) -> tuple[int, int, list[Record]]:
    """One batch read back: ``(seq, ack, records)``.

    Every ``BLOB_FRAME`` comes back as ``[BLOB_FRAME, target, payload, is_text]`` where the payload is
    a slice of *blobs*, not a copy.

    Raises:
        ProtocolError: the body is not msgpack, or not shaped as :mod:`common.link.records` says.
    """
    try:
        batch = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises half a dozen unrelated classes
        raise ProtocolError(f"batch is not valid msgpack: {str(error) or type(error).__name__}") from None
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
        check_shape(record)
        if record[0] == BLOB_FRAME:
            length = record[2]
            if type(length) is not int or length < 0 or taken + length > len(blobs):
                raise ProtocolError("blob record does not match the bytes behind its batch")
            record[2] = blobs[taken : taken + length]
            taken += length
    if taken != len(blobs):
        raise ProtocolError(f"{len(blobs) - taken} bytes behind the batch belong to no record")
    return seq, ack, records


def check_shape(record: Any) -> None:
    """Refuse a record that no handler could read.

    Raises:
        ProtocolError: not a list, of an unknown kind, of another length, or columns that differ.
    """
    if type(record) is not list or not record:
        raise ProtocolError(f"record is not a list: {_excerpt(record)}")
    kind = record[0]
    try:
        length = LENGTHS[kind]
    except (KeyError, TypeError):
        raise ProtocolError(f"record of unknown kind: {_excerpt(record)}") from None
    if len(record) != length:
        raise ProtocolError(f"record has {len(record)} items, not {length}: {_excerpt(record)}")
    if kind == FRAMES and (
        type(record[1]) is not list or type(record[2]) is not list or len(record[1]) != len(record[2])
    ):
        raise ProtocolError("FRAMES record whose columns differ in length")


def _excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
