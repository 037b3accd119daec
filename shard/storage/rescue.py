"""Puts back the files of an open database that were deleted, or replaced, under us.

A file whose name is gone is still there for whoever has it open, and gone with the last of them. A
connection that is closed then would take acknowledged writes with it; a database that is made anew
beside an old log, or the other way round, would be a mixture of both. So before such a connection
is closed, its content is copied to where it belongs.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import apsw

from shard.storage.disk import Disk
from shard.storage.layout import FOLDERS

if TYPE_CHECKING:
    from shard.storage.database import Database

COPY: Final = ".restored"
"""What is appended to a file's name while it is being put back."""
STRANGER: Final = ".replaced"
"""What is appended to the name of a file that was found in place of ours."""

_WAL_MODE_AT: Final = 18


def is_displaced(path: str, inode: int, log_bytes: int) -> bool:
    """Whether a database's file, or its log if that has contents, is no longer at its place.

    Args:
        path: of the database.
        inode: of the file that is open.
        log_bytes: length of the log.
    """
    try:
        if os.stat(path).st_ino != inode:
            return True
        if log_bytes:
            os.stat(f"{path}-wal")
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it cannot be seen: that is another trouble
    return False


def put_back(database: Database, inode: int, disk: Disk) -> None:
    """Write what an open connection holds to a new file at its place; on a thread.

    What stood there instead is kept, under another name.

    Raises:
        apsw.Error, OSError: it cannot be written. What was at the place is as it was.
    """
    path = database.path
    copy = f"{path}{COPY}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    connection = database.connection
    if connection.in_transaction:
        database.run("ROLLBACK")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy)
    try:
        _copy(connection, copy, disk)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino != inode:
                os.replace(path, f"{path}{STRANGER}")
        # The log is part of the copy. If the power fails here, it is read again, to the same end.
        os.replace(copy, path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}-wal")
        disk.sync_way(path, FOLDERS)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(copy)


def _copy(connection: apsw.Connection, copy: str, disk: Disk) -> None:
    target = apsw.Connection(copy)
    try:
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        with target.backup("main", connection, "main") as backup:
            while not backup.done:
                backup.step(-1)
    finally:
        target.close(True)
    fd = os.open(copy, os.O_RDWR)
    try:
        # https://www.sqlite.org/fileformat.html#file_format_version_numbers
        os.pwrite(fd, b"\2\2", _WAL_MODE_AT)
        disk.sync_data(fd, copy)
    finally:
        os.close(fd)
