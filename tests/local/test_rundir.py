"""Rules of `local.rundir`: one supervisor a directory, private, no stale sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from common.errors import ConfigError
from local.rundir import LOCK_NAME, RunDir, make_private, make_writable


def test_the_directory_is_made_private(tmp_path: Path) -> None:
    with RunDir.claim(tmp_path / "a" / "run", patience_s=0) as claimed:
        assert stat.S_IMODE(claimed.path.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_second_claim_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        RunDir.claim(tmp_path, patience_s=0),
        pytest.raises(ConfigError, match=rf"supervisor pid {os.getpid()}\b"),
    ):
        RunDir.claim(tmp_path, patience_s=0)


def test_a_claim_can_be_taken_again_once_it_is_given_up(tmp_path: Path) -> None:
    with RunDir.claim(tmp_path, patience_s=0):
        pass
    with RunDir.claim(tmp_path, patience_s=0):
        pass


def test_a_lock_held_by_nobody_alive_but_children_is_said_to_be_theirs(tmp_path: Path) -> None:
    lock = os.open(tmp_path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, b"4194304999\n")  # above any pid
        with pytest.raises(ConfigError, match="a supervisor that was killed"):
            RunDir.claim(tmp_path, patience_s=0.01)
    finally:
        os.close(lock)


def test_sockets_are_removed_before_and_after_and_nothing_else(tmp_path: Path) -> None:
    def leave_socket(name: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / name))

    (tmp_path / "shard-0.lock").touch()
    leave_socket("before.sock")
    with RunDir.claim(tmp_path, patience_s=0):
        assert not (tmp_path / "before.sock").exists()
        leave_socket("during.sock")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-0.lock", LOCK_NAME]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make the directory") as raised:
        RunDir.claim(tmp_path / "file" / "run", patience_s=0)
    assert "--run-dir" in str(raised.value)


def test_a_data_directory_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write there") as raised:
        make_writable(tmp_path / "file" / "data")
    assert "--data-dir" in str(raised.value)


def test_checking_a_data_directory_leaves_nothing_in_it(tmp_path: Path) -> None:
    make_writable(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
