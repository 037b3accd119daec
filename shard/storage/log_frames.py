"""Reads SQLite's write-ahead log: which pages each commit has written, and what it says of itself.

Format: https://www.sqlite.org/fileformat.html#the_write_ahead_log. How many of its frames count is
SQLite's to say (``Database.frames``): so the checksums are not computed again here, only used
to tell one commit from another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shard.storage.schema import PAGE_BYTES

LOG_HEAD_BYTES: Final = 32
FRAME_HEAD_BYTES: Final = 24
FRAME_BYTES: Final = FRAME_HEAD_BYTES + PAGE_BYTES

_FRAMES_AT_ONCE: Final = 256
_FRAME_HEAD: Final = struct.Struct(">II8s8s")


@dataclass(frozen=True, slots=True)
class Frame:
    """One page as one commit has written it.

    Attributes:
        number: of the frame, from 1.
        page: number of the page, from 1.
        pages: of the database after the commit, if this is its last frame; else 0.
        checksum: of the log up to here.
        content: of the page.
    """

    number: int
    page: int
    pages: int
    checksum: bytes
    content: bytes


def read_salts(fd: int) -> bytes:
    """Return what tells this log from the one before and the one after: 8 bytes."""
    return os.pread(fd, 8, 16)


def read_checksum(fd: int, number: int) -> bytes:
    """Return the checksum of frame *number*: 8 bytes."""
    head = os.pread(fd, FRAME_HEAD_BYTES, LOG_HEAD_BYTES + (number - 1) * FRAME_BYTES)
    return head[16:]


def read_frames(fd: int, count: int) -> Iterator[list[Frame]]:
    """Read the first *count* frames, some hundred at a time.

    Raises:
        OSError: the file is shorter than that, or cannot be read.
    """
    for first in range(0, count, _FRAMES_AT_ONCE):
        wanted = min(_FRAMES_AT_ONCE, count - first)
        data = os.pread(fd, wanted * FRAME_BYTES, LOG_HEAD_BYTES + first * FRAME_BYTES)
        if len(data) < wanted * FRAME_BYTES:
            raise OSError(f"the write-ahead log ends before its frame {count}")
        frames = []
        for nth in range(wanted):
            start = nth * FRAME_BYTES
            page, pages, _, checksum = _FRAME_HEAD.unpack_from(data, start)
            content = data[start + FRAME_HEAD_BYTES : start + FRAME_BYTES]
            frames.append(Frame(first + nth + 1, page, pages, checksum, content))
        yield frames
