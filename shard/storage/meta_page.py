"""Reads single values of ``_cf_META`` out of the bytes of its page.

The history of an object asks each of its commits when it was made. That stands in the table, so the
commit, its time and its number last or are lost together; but a commit that has been replaced can
only be read from its pages. All rows of the table fit into its root page.

Format: https://www.sqlite.org/fileformat.html#b_tree_pages
"""

from __future__ import annotations

import struct
from typing import Final

META_PAGE: Final = 3
"""The root of ``_cf_META``: pages of a schema stay where they were made."""

_LEAF: Final = 0x0A
_HEAD_BYTES: Final = 8
_BLOB: Final = 12
_TEXT: Final = 13
_LOCAL_MAX_BYTES: Final = 1002
"""Longest record of an index page of 4,096 bytes that has no part elsewhere."""


def read_blob(page: bytes | memoryview, key: str) -> bytes | None:
    """Return the value of *key* if it is there and a BLOB."""
    if not page or page[0] != _LEAF:
        return None
    (count,) = struct.unpack_from(">H", page, 3)
    wanted = key.encode()
    for nth in range(count):
        (start,) = struct.unpack_from(">H", page, _HEAD_BYTES + 2 * nth)
        size, at = _varint(page, start)
        if size > _LOCAL_MAX_BYTES:
            continue
        head_end, at_type = _varint(page, at)
        head_end += at
        key_type, at_type = _varint(page, at_type)
        value_type, _ = _varint(page, at_type)
        key_bytes = (key_type - _TEXT) // 2
        if bytes(page[head_end : head_end + key_bytes]) != wanted:
            continue
        if value_type < _BLOB or value_type % 2:
            return None
        value_at = head_end + key_bytes
        return bytes(page[value_at : value_at + (value_type - _BLOB) // 2])
    return None


def _varint(page: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number that begins at *at*, and where it ends."""
    value = 0
    for nth in range(8):
        byte = page[at + nth]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + nth + 1
    return value << 8 | page[at + 8], at + 9
