"""The states that a log leads through: the one it began with, and one after each commit."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from shard.storage.log_frames import Frame
from shard.storage.meta_page import META_PAGE, read_blob
from shard.storage.schema import META_HISTORY, META_RESTORED

STAMP: Final = struct.Struct(">QQ")
"""Value of the row ``history``: number of the log, milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Point:
    """One state.

    Attributes:
        frame: of the log, the last of the commit; 0 is the state the log began with.
        pages: of the database.
        at_ms: when the commit was made, milliseconds since 1970, rounded down to the last stamp;
            0 if it is not known.
        checksum: of the log up to here; empty for frame 0.
        restored: names the last restoration before; empty if there was none.
        kept: how many frames up to here a segment has kept.
    """

    frame: int
    pages: int
    at_ms: int
    checksum: bytes
    restored: bytes
    kept: int


class PointReader:
    """Finds the points of a log while its frames are read in order.

    Args:
        base_page: :data:`META_PAGE` as it was before the log.
        base_pages: pages of the database before the log.

    Attributes:
        base: the state the log began with.
    """

    def __init__(self, base_page: bytes, base_pages: int) -> None:
        self._at_ms, self._restored = _read(base_page)
        self.base = Point(0, base_pages, self._at_ms, b"", self._restored, 0)

    def read(self, frame: Frame, kept: int) -> Point | None:
        """Take the next frame; the point that it ends, if it does."""
        if frame.page == META_PAGE:
            self._at_ms, self._restored = _read(frame.content)
        if not frame.pages:
            return None
        return Point(frame.number, frame.pages, self._at_ms, frame.checksum, self._restored, kept)


def _read(page: bytes | memoryview) -> tuple[int, bytes]:
    stamp = read_blob(page, META_HISTORY)
    at_ms = STAMP.unpack(stamp)[1] if stamp is not None and len(stamp) == STAMP.size else 0
    return at_ms, read_blob(page, META_RESTORED) or b""
