"""What one supervisor owns on the disk: a private directory, a lock, and the sockets in it.

The lock is an OS file lock on `supervisor.lock`, so it cannot be left behind. Its descriptor is
also handed to every child: a supervisor that was killed with -9 is gone at once, but the lock
stays held until the last of its children has ended too. So a second supervisor never starts beside
the remains of the first: it waits for them.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from common.errors import ConfigError
from common.file_lock import disk_remedy

LOCK_NAME = "supervisor.lock"


class RunDir:
    """RUN_DIR, claimed for this process. A context manager: leaving it gives the claim up."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd

    @classmethod
    def claim(cls, path: Path, *, patience_s: float) -> RunDir:
        """Make the directory if need be (mode 0700), take its lock, and remove stale sockets.

        Args:
            path: the directory.
            patience_s: seconds to wait for children that a killed supervisor left behind.

        Raises:
            ConfigError: another supervisor runs here, or the directory cannot be used.
        """
        make_private(path)
        lock_fd = _open_lock(path / LOCK_NAME)
        try:
            _take_lock(lock_fd, path, patience_s)
            _write_pid(lock_fd, path)
        except BaseException:
            os.close(lock_fd)
            raise
        claimed = cls(path, lock_fd)
        claimed.remove_sockets()
        return claimed

    def remove_sockets(self) -> None:
        """Remove every socket file: their processes have ended, for we hold the lock."""
        for entry in self.path.iterdir():
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(entry.lstat().st_mode):
                    entry.unlink()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self.remove_sockets()
        with suppress(OSError):
            os.ftruncate(self.lock_fd, 0)
        os.close(self.lock_fd)


def make_private(path: Path) -> None:
    """Make `path` a directory that only this user can enter.

    Raises:
        ConfigError: it cannot be made, or belongs to another user.
    """
    where = f"RUN_DIR={path}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise ConfigError(
                f"the directory belongs to another user (uid {found.st_uid})",
                where=where,
                remedy="Choose another with --run-dir.",
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot make the directory: {error.strerror}",
            where=where,
            remedy=disk_remedy(error, "Choose a directory that you may write to with --run-dir."),
        ) from error


def make_writable(path: Path) -> None:
    """Make sure that DATA_DIR `path` exists and takes files.

    Raises:
        ConfigError: it does not.
    """
    probe = path / f".limpet-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write there: {error.strerror}",
            where=f"DATA_DIR={path}",
            remedy=disk_remedy(error, "Choose a directory that you may write to with --data-dir."),
        ) from error


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot open its lock file: {error.strerror}",
            where=f"RUN_DIR={path.parent}",
            remedy=disk_remedy(error, "Choose a directory that you may write to with --run-dir."),
        ) from error


def _write_pid(lock_fd: int, path: Path) -> None:
    try:
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise ConfigError(
            f"cannot write its lock file: {error.strerror}",
            where=f"RUN_DIR={path}",
            remedy=disk_remedy(error, "Choose a directory that you may write to with --run-dir."),
        ) from error


def _take_lock(lock_fd: int, path: Path, patience_s: float) -> None:
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return
        holder = _holder(lock_fd)
        if holder is not None and _is_alive(holder):
            raise ConfigError(
                f"a cluster runs here already (supervisor pid {holder})",
                where=f"RUN_DIR={path}",
                remedy=f"Stop it (kill {holder}), or give this one its own "
                "--run-dir, --data-dir and --port.",
            )
        if time.monotonic() >= give_up_at:
            raise ConfigError(
                "processes of a supervisor that was killed still run here",
                where=f"RUN_DIR={path}",
                remedy="They end by themselves; try again in a moment.",
            )
        time.sleep(0.05)


def _holder(lock_fd: int) -> int | None:
    text = os.pread(lock_fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter: what the file holds is no pid
        return False
    except PermissionError:
        pass
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]
