from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from common import file_lock
from common.errors import ConfigError
from common.file_lock import holder, make_folder, try_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_only_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None
    lock.release()
    again = try_lock(path)
    assert again is not None
    again.release()


def test_releasing_twice_does_not_touch_another_descriptor(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    lock.release()
    reused = os.open(tmp_path, os.O_RDONLY)
    lock.release()
    os.fstat(reused)
    os.close(reused)


def test_the_number_is_kept_for_the_next_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for expected in (0, 41, 42):
        lock = try_lock(path)
        assert lock is not None
        assert lock.number() == expected
        lock.write(max(41, expected + 1))
        lock.release()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"x", b"-1 2 h", b"\xff" * 300])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    lock = try_lock(path)
    assert lock is not None
    assert lock.number() == 0
    assert content == b"-1 2 h" or holder(path) is None
    lock.write(7)
    assert lock.number() == 7
    lock.release()


def test_the_holder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    monkeypatch.setattr(file_lock, "_HOST", b"host-a")
    lock = try_lock(path)
    assert lock is not None
    lock.write(1)
    assert holder(path) == f"pid {os.getpid()} on host-a"
    lock.release()


def test_descriptors_are_close_on_exec(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    assert not os.get_inheritable(lock._fd)
    lock.release()


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used: No such file or directory"):
        try_lock(tmp_path / "none" / "lock")


def test_a_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        make_folder(tmp_path / "file")


def test_too_few_descriptors_are_named_as_the_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", no_more)
    with pytest.raises(ConfigError, match="Too many open files") as caught:
        try_lock(tmp_path / "lock")
    assert caught.value.remedy is not None
    assert "ulimit -n" in caught.value.remedy


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Free space"), (errno.EROFS, "Mount"), (errno.EACCES, "Choose a folder")],
)
def test_a_record_that_the_disk_does_not_take_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(ConfigError, match=os.strerror(number)) as caught:
        lock.write(1)
    assert caught.value.where == str(tmp_path / "lock")
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith(remedy)
    lock.release()


def test_half_a_record_counts_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    monkeypatch.setattr(os, "pwrite", lambda *_: 3)
    with pytest.raises(ConfigError, match="No space left on device"):
        lock.write(1)
    lock.release()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ConfigError, match="cannot be used: No locks available"):
        try_lock(tmp_path / "lock")
