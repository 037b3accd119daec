"""The write-ahead log of one open database, as a file that has to reach the disk.

SQLite appends to it and never waits (``synchronous=OFF``); we wait, beside the loop. Between two
checkpoints the log only grows, so "the first n bytes are on disk" is all there is to know of it.
A checkpoint cuts it to nothing, once what it held is on disk in the database file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from shard.storage.disk import Disk
from shard.storage.layout import FOLDERS

_ZEROS: Final = bytes(256 * 1024)


class WalFile:
    """The log of one opening of a database.

    Attributes:
        path: of the log.
        durable_bytes: how much of it is known to be on disk.
    """

    __slots__ = (
        "_database_fd",
        "_disk",
        "_fd",
        "_inode",
        "_lock",
        "_path_synced",
        "database_path",
        "durable_bytes",
        "path",
    )

    def __init__(
        self,
        database_path: str,
        disk: Disk,
        created_fd: int | None,
        opened_bytes: int,
        inode: int,
    ) -> None:
        """Open the log that SQLite has made.

        Args:
            database_path: of the database.
            disk: see :mod:`shard.storage.disk`.
            created_fd: open on the database file if that is new and not on disk yet; closed later.
            opened_bytes: length of the log when the database was opened.
            inode: of the database file that is open.
        """
        self.database_path = database_path
        self.path = f"{database_path}-wal"
        self._disk = disk
        self._fd = os.open(self.path, os.O_RDWR)
        self._database_fd = created_fd
        self._inode = inode
        self._path_synced = False
        self._lock = threading.Lock()
        self.durable_bytes = opened_bytes

    def sync(self, end_bytes: int) -> None:
        """Make the first *end_bytes* bytes durable; on a thread.

        Raises:
            OSError: they are not durable, or the file is no longer at its place.
        """
        with self._lock:
            if self._fd < 0:
                raise OSError("the database was closed meanwhile")
            if not self._path_synced:
                # A database file that is lost makes SQLite throw its log away: file first.
                if self._database_fd is not None:
                    self._disk.sync_data(self._database_fd, self.database_path)
                self._disk.sync_way(self.database_path, FOLDERS)
                self._path_synced = True
            self._disk.sync_data(self._fd, self.path)
            self.synced(end_bytes)

    @property
    def plain_fd(self) -> int | None:
        """The log, if an ``fdatasync`` of it is all that :meth:`sync` would wait for."""
        return self._fd if self._path_synced and self._fd >= 0 and self._disk.is_plain else None

    def synced(self, end_bytes: int) -> None:
        """An ``fdatasync`` of :attr:`plain_fd` has succeeded; the log had *end_bytes* before it.

        Raises:
            OSError: the file is no longer at its place.
        """
        if self._fd < 0:
            raise OSError("the database was closed meanwhile")
        self._check_present()
        self.durable_bytes = max(self.durable_bytes, end_bytes)

    @property
    def fd(self) -> int:
        """A descriptor of the log."""
        return self._fd

    def database_fd(self) -> int:
        """A descriptor of the database file, kept open with the log.

        To read the file by: closing any descriptor of it drops the locks that SQLite has on it.
        """
        if self._database_fd is None:
            self._database_fd = os.open(self.database_path, os.O_RDWR)
        return self._database_fd

    def sync_database(self) -> None:
        """Make the database file durable, for a checkpoint; on a thread.

        Raises:
            OSError: it is not.
        """
        with self._lock:
            self._disk.sync_data(self.database_fd(), self.database_path)

    def reserve(self, used_bytes: int) -> int:
        """Write zeros behind the log's contents; its length now.

        A sync of a file that has not become longer takes half the time of one that has. SQLite
        takes zeros for the end of the log. To be called by whoever appends, between two commits.
        """
        with contextlib.suppress(OSError):  # no room: the next commit will say so
            os.pwrite(self._fd, _ZEROS, used_bytes)
        return used_bytes + len(_ZEROS)

    def cut(self) -> None:
        """A checkpoint has emptied the log: make that durable, before anything is appended."""
        with self._lock:
            self._disk.sync_data(self._fd, self.path)
            self.durable_bytes = 0

    def close(self) -> None:
        """Let the descriptors go; waits for a sync that is under way."""
        with self._lock:
            for fd in (self._fd, self._database_fd):
                if fd is not None and fd >= 0:
                    os.close(fd)
            self._fd = -1
            self._database_fd = None

    def _check_present(self) -> None:
        # Writes to a file whose name is gone succeed, and are gone with the process.
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(2, "the write-ahead log was deleted", self.path)
        if os.stat(self.database_path).st_ino != self._inode:
            raise FileNotFoundError(2, "the database was replaced by another file")


def cut_to_durable(path: str, durable_bytes: int) -> None:
    """Drop from a closed database's log what is not known to be on disk.

    After a failed sync the kernel takes the lost pages for clean, so a second sync would succeed
    without having written them. What was appended since the last good sync has been told to nobody:
    it is cut off, and whatever follows is written anew.

    Raises:
        OSError: the disk is still out of order.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        if os.fstat(fd).st_size > durable_bytes:
            os.ftruncate(fd, durable_bytes)
            os.fsync(fd)
    finally:
        os.close(fd)
