"""All states of one object that can be gone back to, and how to build one of them.

The timeline is a row of logs: those that the history has, then the one that SQLite writes now. A
restoration is a commit like any other, so the row never branches, and what was there before a
restoration can itself be gone back to.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shard.storage import meta
from shard.storage.bookmark import Bookmark
from shard.storage.database import Database
from shard.storage.history import History
from shard.storage.log_frames import read_checksum, read_frames, read_salts
from shard.storage.meta_page import META_PAGE
from shard.storage.points import Point, PointReader
from shard.storage.schema import PAGE_BYTES
from shard.storage.segment import HistoryDamaged, Index, Segment
from workers.exceptions import JsException


@dataclass(frozen=True, slots=True)
class Place:
    """Where a state is.

    Attributes:
        number: of its log.
        point: within it.
        salts: of the log.
        replaced_ms: when the commit after it was made; ``None`` if there is none.
    """

    number: int
    point: Point
    salts: bytes
    replaced_ms: int | None


class Timeline:
    """The states of one open database, as they are when this is made.

    Args:
        database: between two of its transactions.
        own_proof: see :func:`shard.storage.bookmark.proof_of_object`.

    Raises:
        apsw.Error, OSError: the files cannot be read.
    """

    def __init__(self, database: Database, own_proof: bytes) -> None:
        self._history: History = database.history
        self._wal = database.durable_log()
        self._own_proof = own_proof
        self._frames = database.frames
        self._number, self._at_ms = meta.history(database)
        self._live: tuple[Point, list[Point]] | None = None
        self._segments: list[Segment] | None = None
        self._indexes: dict[int, Index] = {}

    # --- bookmarks -----------------------------------------------------------------------------

    def current(self) -> Bookmark:
        """Return the bookmark of the state after the last commit."""
        seconds = self._at_ms // 1000
        if not self._frames:
            return Bookmark(self._number + 1, 0, seconds, self._own_proof)
        proof = read_salts(self._wal.fd) + read_checksum(self._wal.fd, self._frames)
        return Bookmark(self._number, self._frames, seconds, proof)

    def at(self, at_ms: int) -> Bookmark:
        """Return the bookmark of the last state that is not later than *at_ms*.

        Raises:
            JsException: the history does not reach back so far.
        """
        if self._at_ms <= at_ms:
            return self.current()
        earliest = self._at_ms
        for number, salts, base, points in self._logs():
            earliest = base.at_ms
            for point in reversed(points):
                if point.at_ms <= at_ms:
                    return self._bookmark(number, salts, point)
            if base.at_ms <= at_ms:
                return self._bookmark(number, salts, base)
        raise JsException(
            f"the history of this object begins at {earliest} (milliseconds since 1970), which is "
            f"later than {at_ms}: raise PITR_MAX_BYTES to keep more of it",
            "Error",
        )

    def find(self, bookmark: Bookmark) -> Place:
        """Find a state.

        Raises:
            JsException: it is not there (any more).
        """
        places = self._undo_places(bookmark) if bookmark.is_undo else self._places(bookmark)
        for place in places:
            return place
        raise JsException(
            f"there is no state {bookmark} in this object's history: the bookmark is another "
            "object's, or the history does not reach back so far (PITR_RETENTION_H, "
            "PITR_MAX_BYTES)",
            "Error",
        )

    def _bookmark(self, number: int, salts: bytes, point: Point) -> Bookmark:
        proof = salts + point.checksum if point.frame else self._own_proof
        return Bookmark(number, point.frame, point.at_ms // 1000, proof)

    def _places(self, bookmark: Bookmark) -> Iterator[Place]:
        if not self._frames and bookmark == self.current():
            pages = os.fstat(self._wal.database_fd()).st_size // PAGE_BYTES
            here = Point(0, pages, self._at_ms, b"", b"", 0)
            yield Place(self._number + 1, here, b"", None)
        following: int | None = None
        for number, salts, base, points in self._logs():
            if number == bookmark.log:
                states = [base, *points]
                for nth, point in enumerate(states):
                    if point.frame != bookmark.frame:
                        continue
                    if self._bookmark(number, salts, point).proof == bookmark.proof:
                        later = states[nth + 1].at_ms if nth + 1 < len(states) else following
                        yield Place(number, point, salts, later)
            if points:
                following = points[0].at_ms

    def _undo_places(self, bookmark: Bookmark) -> Iterator[Place]:
        for number, salts, base, points in self._logs():
            before = base
            for point in points:
                if point.restored == bookmark.proof != before.restored:
                    yield Place(number, before, salts, point.at_ms)
                before = point

    def _logs(self) -> Iterator[tuple[int, bytes, Point, list[Point]]]:
        """The logs, newest first."""
        if self._frames:
            base, points = self._live_points()
            yield self._number, read_salts(self._wal.fd), base, points
        for segment in reversed(self._kept()):
            index = self._index(segment)
            yield segment.number, segment.salts, index.base, index.points

    def _live_points(self) -> tuple[Point, list[Point]]:
        if self._live is None:
            salts = read_salts(self._wal.fd)
            base = self._history.base_of(self._number, salts, self._wal.database_fd())
            reader = PointReader(base.read([META_PAGE]).get(META_PAGE, b""), base.pages)
            frames = (each for some in read_frames(self._wal.fd, self._frames) for each in some)
            found = [point for each in frames if (point := reader.read(each, 0)) is not None]
            self._live = reader.base, found
        return self._live

    def _kept(self) -> list[Segment]:
        """The segments of the logs before the one that SQLite writes now."""
        if self._segments is None:
            segments = self._history.segments()
            last = self._number
            if self._frames:
                salts = read_salts(self._wal.fd)
                if not self._history.fits(self._number, salts):
                    segments = []
                last -= 1
            elif segments and segments[-1].number != last:
                segments = []
            self._segments = [each for each in segments if each.number <= last]
        return self._segments

    def _index(self, segment: Segment) -> Index:
        index = self._indexes.get(segment.number)
        if index is None:
            index = self._indexes[segment.number] = segment.index()
        return index

    # --- building ------------------------------------------------------------------------------

    def build(self, place: Place, path: str) -> None:
        """Make a database file with the state at *place*.

        Raises:
            HistoryDamaged: the history is damaged, or does not fit the database.
            OSError: there is no room, or a disk fails.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _copy_file(self._wal.database_fd(), fd)
            if self._frames:
                salts = read_salts(self._wal.fd)
                base = self._history.base_of(self._number, salts, self._wal.database_fd())
                _write_pages(fd, base.moved_images())
                os.ftruncate(fd, base.pages * PAGE_BYTES)
            if self._frames and place.number == self._number:
                frames = (
                    (each.page, each.content)
                    for some in read_frames(self._wal.fd, place.point.frame)
                    for each in some
                )
                _write_pages(fd, frames)
            elif place.number <= self._number:
                self._go_back(place, fd)
            os.ftruncate(fd, place.point.pages * PAGE_BYTES)
        finally:
            os.close(fd)

    def _go_back(self, place: Place, fd: int) -> None:
        for segment in reversed(self._kept()):
            if segment.number < place.number:
                return
            index = self._index(segment)
            _check_pages(fd, zip(index.images, index.after, strict=True), segment)
            _write_pages(fd, segment.images(index))
            os.ftruncate(fd, index.base.pages * PAGE_BYTES)
            if segment.number == place.number:
                _write_pages(fd, segment.frames(index, place.point.kept))


def _check_pages(fd: int, expected: Iterable[tuple[int, int]], segment: Segment) -> None:
    for page, check in expected:
        data = os.pread(fd, PAGE_BYTES, (page - 1) * PAGE_BYTES)
        if data and zlib.crc32(data) != check:
            raise HistoryDamaged(
                f"page {page} is not as segment {segment.number} of {segment.path} left it"
            )


def _write_pages(fd: int, pages: Iterable[tuple[int, bytes]]) -> None:
    for page, content in pages:
        os.pwrite(fd, content, (page - 1) * PAGE_BYTES)


def _copy_file(source: int, target: int) -> None:
    # Not by name: closing another descriptor of a database drops the locks that SQLite has on it.
    offset = 0
    while data := os.pread(source, 1 << 20, offset):
        os.pwrite(target, data, offset)
        offset += len(data)
