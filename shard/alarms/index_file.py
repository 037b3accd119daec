"""A partition's alarm index on disk: a log that is appended to, and written anew when it is long.

An append does not wait for the disk; :meth:`IndexFile.sync` does, on a thread, for all that was
appended before (see :class:`shard.storage.syncer.Syncer`). What the disk makes of a file that was
not synced is either the old log or one that :func:`shard.alarms.index_format.decode` finds damaged.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from shard.alarms.index_format import Entry, encode, encode_all
from shard.storage.disk import Disk
from shard.storage.layout import FOLDERS

NEW_SUFFIX: Final = ".new"


class IndexFile:
    """An open index.

    Attributes:
        path: where it is.
        size: its length, in bytes.
        records: how many entries it has, those included that do not count any more.
        durable_bytes: how much of it is known to be on disk.
        broken: it must be written anew before anything is appended.
    """

    __slots__ = (
        "_closed",
        "_disk",
        "_fd",
        "_lock",
        "_path_synced",
        "_successor",
        "_syncing",
        "broken",
        "durable_bytes",
        "path",
        "records",
        "size",
    )

    def __init__(
        self, path: str, fd: int, disk: Disk, size: int, records: int, durable_bytes: int
    ) -> None:
        self.path = path
        self.size = size
        self.records = records
        self.durable_bytes = durable_bytes
        self.broken = False
        self._fd = fd
        self._disk = disk
        self._path_synced = durable_bytes > 0
        self._lock = threading.Lock()
        self._syncing = 0
        self._closed = False
        self._successor: IndexFile | None = None

    @classmethod
    def open(cls, path: str, disk: Disk, size: int, records: int) -> IndexFile:
        """Open one that has been read, and was in order.

        Raises:
            OSError: it cannot be opened.
        """
        # What an earlier process has appended may not be on disk yet: synced with the next append.
        return cls(path, os.open(path, os.O_RDWR), disk, size, records, 0)

    @classmethod
    def write(
        cls,
        path: str,
        disk: Disk,
        entries: Iterable[Entry],
        *,
        complete: bool,
        instead_of: IndexFile | None = None,
    ) -> IndexFile:
        """Write an index anew, in the place of the one there is.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        data, records = encode_all(entries, complete=complete)
        fd = os.open(f"{path}{NEW_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write(fd, data, 0)
            os.rename(f"{path}{NEW_SUFFIX}", path)
        except BaseException:
            os.close(fd)
            raise
        file = cls(path, fd, disk, len(data), records, 0)
        if instead_of is not None:
            instead_of.replaced_by(file)
        return file

    def append(self, entry: Entry) -> None:
        """Add an entry, without waiting for the disk.

        Raises:
            OSError: it was not added.
        """
        data = encode(entry)
        try:
            _write(self._fd, data, self.size)
        except OSError:
            self.broken = True  # there may be a part of it
            raise
        self.size += len(data)
        self.records += 1

    def sync(self, end_bytes: int) -> None:
        """Make the first *end_bytes* bytes durable; on a thread.

        Raises:
            OSError: they may not be.
        """
        with self._lock:
            successor = self._successor
            if successor is None:
                if self._closed:
                    raise OSError("the index of alarms was closed meanwhile")
                self._syncing += 1
        if successor is not None:
            # All of this one is in there.
            successor.sync(successor.size)
            return
        try:
            self._disk.sync_data(self._fd, self.path)
            if not self._path_synced:
                self._disk.sync_way(self.path, FOLDERS - 1)  # it is beside the namespaces' folders
                self._path_synced = True
            self.durable_bytes = max(self.durable_bytes, end_bytes)
        except OSError:
            # A second sync would succeed without having written what was lost.
            self.broken = True
            raise
        finally:
            with self._lock:
                self._syncing -= 1
                if self._closed and not self._syncing:
                    os.close(self._fd)

    @property
    def plain_fd(self) -> None:
        """None: threads sync it. An alarm becomes earlier far more seldom than data change."""

    def synced(self, end_bytes: int) -> None:
        """Never called: see :attr:`plain_fd`."""

    def replaced_by(self, successor: IndexFile) -> None:
        """Another file has its place, and all that is in it."""
        with self._lock:
            self._successor = successor
        self.close()

    def close(self) -> None:
        """Let it go; a sync that is under way is finished."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if not self._syncing:
                    os.close(self._fd)


def read_index(path: str) -> bytes | None:
    """The bytes of an index; ``None`` if there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view = view[written:]
        at += written
