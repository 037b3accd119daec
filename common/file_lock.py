"""An exclusive lock on a file, held for as long as its descriptor is open.

flock(2) belongs to the open file: the kernel lets go of it when the last descriptor of it closes,
so also when the process is killed. Nothing has to time out, and no lock is ever stale.

Three consequences. Lock files are never deleted: a process that had opened the deleted file could
lock it while another locks its successor. A child made by ``fork`` without ``exec`` shares the lock
and keeps it alive; descriptors here are close-on-exec, so started programs do not. And the files
must lie on a local file system, as network ones give flock a meaning of their own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final, final

from common.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_TAKEN: Final = frozenset({errno.EWOULDBLOCK, errno.EACCES})
_RECORD_MAX_BYTES: Final = 256


@final
class FileLock:
    """A lock that this process holds. Made by :func:`try_lock` alone."""

    __slots__ = ("_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def number(self) -> int:
        """Return the number stored in the file; 0 if there is none that can be read.

        Raises:
            ConfigError: the disk fails.
        """
        # After a power failure the file may be empty or full of NULs. 0 is safe then: see
        # FlockOwnership on why a number needs to differ from those of living holders only.
        try:
            head = os.pread(self._fd, _RECORD_MAX_BYTES, 0).partition(b" ")[0]
        except OSError as error:
            raise _unusable(self.path, error) from error
        return int(head) if head.isdigit() else 0

    def write(self, number: int) -> None:
        """Store a number of at most 20 digits, and who holds the lock, for people to read.

        Raises:
            ConfigError: the disk does not take it; it is full, for one.
        """
        # Fixed width, so that one write replaces all of the previous record.
        host = _HOST[:100].ljust(100)
        record = b"%020d %010d %s\n" % (number, os.getpid(), host)
        try:
            if os.pwrite(self._fd, record, 0) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unusable(self.path, error) from error

    def release(self) -> None:
        """Let go. Doing so again has no effect."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def try_lock(path: str | Path) -> FileLock | None:
    """Lock a file, made if need be; ``None`` if another holder has it. Never waits.

    The same process cannot hold it twice either. The folder must exist.

    Raises:
        ConfigError: the file cannot be opened or locked at all.
    """
    return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_waiting(path: str | Path) -> FileLock:
    """Lock a file, made if need be; waits for other holders, who must hold it for moments only.

    Raises:
        ConfigError: the file cannot be opened or locked at all.
    """
    lock = _lock(path, fcntl.LOCK_EX)
    assert lock is not None, "it was waited for"
    return lock


def _lock(path: str | Path, operation: int) -> FileLock | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(fd, operation)
    except OSError as error:
        os.close(fd)
        if error.errno in _TAKEN:
            return None
        raise _unusable(path, error) from error
    return FileLock(fd, os.fspath(path))


def holder(path: str | Path) -> str | None:
    """Return who wrote the file last, ``"pid 4711 on host-a"``; ``None`` if nobody can be named."""
    try:
        with open(path, "rb") as file:
            _, pid, host = file.read(_RECORD_MAX_BYTES).decode().split()
        return f"pid {int(pid)} on {host}"
    except (OSError, ValueError):
        return None


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, and those above it; fine if it exists.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def disk_remedy(error: OSError, otherwise: str) -> str:
    """Return what to do about a refused file; ``otherwise`` if its error does not tell."""
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            return "Allow more open files (ulimit -n); a shard needs 1,024 for locks alone."
        case errno.ENOSPC | errno.EDQUOT:
            return "Free space (or inodes, or quota) on that file system, or choose another one."
        case errno.EFBIG:
            return "Allow larger files (ulimit -f)."
        case errno.EROFS:
            return "Mount that file system for writing, or choose another one."
        case errno.EIO:
            return "The disk fails: see the system's log."
        case _:
            return otherwise


def _unusable(path: str | Path, error: OSError) -> ConfigError:
    remedy = disk_remedy(
        error, "Choose a folder on a local file system that this user may write to."
    )
    return ConfigError(f"cannot be used: {error.strerror}", where=str(path), remedy=remedy)


# Process ids mean nothing outside their container, so the record carries the host's name as well.
_HOST: Final = (socket.gethostname().split() or ["?"])[0].encode()
