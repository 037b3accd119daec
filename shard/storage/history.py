"""The history of one object: segments in two files beside its database.

::

    <id>.sqlite-history        the newest segments
    <id>.sqlite-history-old    the ones before; dropped when the newer file takes its place

A checkpoint appends what it replaces (:mod:`shard.storage.segment`) and waits for the disk, before
it writes to the database: so a crash finds the log that is being moved whole, and the images of all
that may have been overwritten. If the move is begun again, it writes another segment of that log,
with the images of the first, and only the later one counts.

Bounds: each file has at most half of ``PITR_MAX_BYTES``. The older one goes when it is needed for
nothing within ``PITR_RETENTION_H``, or when the newer one is full. What does not fit together, such
as a history whose database was replaced by hand, is dropped: numbers and salts of the logs tell.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from shard.storage.disk import Disk
from shard.storage.schema import PAGE_BYTES
from shard.storage.segment import (
    BaseImage,
    HistoryDamaged,
    Segment,
    read_segment,
    write_segment,
)

log = structlog.get_logger(__name__)

SUFFIX: Final = "-history"
OLD_SUFFIX: Final = "-history-old"

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Log:
    """A write-ahead log that is about to be moved into its database.

    Attributes:
        number: which of the object's it is.
        salts: tell it from others of that number.
        fd: open on it.
        frames: how many it has.
        database_fd: open on the database file.
    """

    number: int
    salts: bytes
    fd: int
    frames: int
    database_fd: int


class History:
    """The segments of one object, while its database is open.

    Args:
        database_path: of its database.
        disk: see :mod:`shard.storage.disk`.
        max_bytes: of both files together.
        retention_ms: how long states can be gone back to; with 0 nothing is kept.
    """

    __slots__ = ("_disk", "_max_bytes", "_segments", "database_path", "retention_ms")

    def __init__(self, database_path: str, disk: Disk, max_bytes: int, retention_ms: int) -> None:
        self.database_path = database_path
        self.retention_ms = retention_ms
        self._disk = disk
        self._max_bytes = max_bytes
        self._segments: list[Segment] | None = None

    @property
    def path(self) -> str:
        """The file of the newest segments."""
        return self.database_path + SUFFIX

    @property
    def old_path(self) -> str:
        """The file of the ones before."""
        return self.database_path + OLD_SUFFIX

    def segments(self) -> list[Segment]:
        """Those that count, oldest first: one a log, without a gap.

        Raises:
            OSError: a file cannot be read.
        """
        if self._segments is None:
            self._segments = _chained(_scan(self.old_path) + _scan(self.path))
        return self._segments

    def base_of(self, number: int, salts: bytes, database_fd: int) -> BaseImage:
        """The database as it was before a log, part of which may have been moved into it.

        Raises:
            HistoryDamaged, OSError: it cannot be read.
        """
        last = self._last()
        if last is None or (last.number, last.salts) != (number, salts):
            return BaseImage(database_fd, os.fstat(database_fd).st_size // PAGE_BYTES, {})
        index = last.index()
        return BaseImage(database_fd, index.base.pages, dict(last.images(index)))

    def fits(self, number: int, salts: bytes) -> bool:
        """Whether the newest segment is of the log before that one, or of itself."""
        last = self._last()
        return (
            last is None
            or last.number == number - 1
            or (last.number == number and last.salts == salts)
        )

    def keep(self, moved: Log, now_ms: int) -> None:
        """Keep what a checkpoint will replace, durably; on a thread.

        Raises:
            OSError: the disk fails. If it is full, the history is dropped instead.
        """
        if not self.retention_ms:
            self.drop()
            return
        try:
            if not self.fits(moved.number, moved.salts):
                self._lose("it does not fit the database")
            try:
                base = self.base_of(moved.number, moved.salts, moved.database_fd)
            except HistoryDamaged as error:
                self._lose(str(error))
                base = self.base_of(moved.number, moved.salts, moved.database_fd)
            self._prune(now_ms)
            self._append(moved, base)
        except OSError as error:
            self._segments = None
            if error.errno not in _FULL:
                raise
            # Of all that lies on a full disk this is needed least.
            self._lose(str(error))

    def drop(self) -> None:
        """Remove all of it."""
        self._segments = []
        removed = False
        for path in (self.old_path, self.path):
            with suppress(FileNotFoundError):
                os.unlink(path)
                removed = True
        if removed:
            self._disk.sync_folder(os.path.dirname(self.path))

    def _lose(self, why: str) -> None:
        log.warning("storage.history_dropped", file=self.database_path, why=why)
        self.drop()

    def _last(self) -> Segment | None:
        segments = self.segments()
        return segments[-1] if segments else None

    def _prune(self, now_ms: int) -> None:
        """Drop the older file if nothing within the retention time needs it, or make it so."""
        segments = self.segments()
        newer = [each for each in segments if each.path == self.path]
        if not newer or newer[0].first_ms > now_ms - self.retention_ms:
            return
        # The first state of the newer file was replaced too long ago, and all before it were.
        with suppress(FileNotFoundError):
            os.unlink(self.old_path)
        self._rotate(newer)

    def _rotate(self, newer: list[Segment]) -> None:
        self._disk.replace(self.path, self.old_path)
        self._segments = [each.moved(self.old_path, each.offset) for each in newer]

    def _append(self, moved: Log, base: BaseImage) -> None:
        segments = self.segments()
        end = max(
            (each.offset + each.size for each in segments if each.path == self.path), default=0
        )
        with _opened(self.path) as fd:
            os.ftruncate(fd, end)
            added = write_segment(fd, self.path, end, moved.number, moved.fd, moved.frames, base)
            half = self._max_bytes // 2
            if end + added.size <= half:
                self._disk.sync_data(fd, self.path)
            elif not end or added.size > half:
                os.ftruncate(fd, 0)
                self._lose("a commit is larger than half of PITR_MAX_BYTES")
                return
        if end + added.size > half:
            added = self._begin_file(added, end)
        if not end:
            self._disk.sync_folder(os.path.dirname(self.path))
        kept = [each for each in self.segments() if each.number != added.number]
        self._segments = [*kept, added]

    def _begin_file(self, added: Segment, end: int) -> Segment:
        """Move the last segment into a file of its own, and the others to the older file."""
        new_path = f"{self.path}-new"
        with _opened(self.path) as source, _opened(new_path) as target:
            os.ftruncate(target, 0)
            _copy(source, end, target, added.size)
            self._disk.sync_data(target, new_path)
            os.ftruncate(source, end)
        self._rotate([each for each in self.segments() if each.path == self.path])
        self._disk.replace(new_path, self.path)
        self._disk.sync_folder(os.path.dirname(self.path))
        return added.moved(self.path, 0)


class _opened:  # noqa: N801 - a context manager
    """A file, open for writing; it is made if there is none."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _scan(path: str) -> list[Segment]:
    """The segments of a file; the last one is read in full, as it may have been cut off."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return []
    found: list[Segment] = []
    try:
        offset = 0
        while (segment := read_segment(fd, path, offset)) is not None:
            found.append(segment)
            offset += segment.size
    finally:
        os.close(fd)
    if found:
        try:
            found[-1].check()
        except HistoryDamaged:
            found.pop()  # its checkpoint had not begun
    return found


def _chained(segments: list[Segment]) -> list[Segment]:
    """The longest row without a gap at the end of *segments*; the last of each log."""
    row: list[Segment] = []
    for segment in reversed(segments):
        if row and segment.number == row[-1].number:
            continue
        if row and segment.number != row[-1].number - 1:
            break
        row.append(segment)
    return row[::-1]


def _copy(source: int, offset: int, target: int, size: int) -> None:
    at = 0
    while at < size:
        data = os.pread(source, min(1 << 20, size - at), offset + at)
        if not data:
            raise OSError("the history became shorter while it was copied")
        written = os.pwrite(target, data, at)
        at += written
