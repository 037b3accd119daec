"""Rules of `common.parent`; tests/local/test_supervisor.py has those of whole processes."""

from __future__ import annotations

import os
import threading

import pytest

from common import parent
from common.parent import PARENT_FD, follow_parent, watch


def test_the_end_of_the_parent_is_noticed_and_not_before() -> None:
    read_fd, write_fd = os.pipe()
    ended = threading.Event()
    thread = watch(read_fd, ended.set)
    os.write(write_fd, b"x")  # whatever it may say, it is alive
    assert not ended.is_set()
    os.close(write_fd)
    thread.join(10)
    assert ended.is_set()
    os.close(read_fd)


def test_without_a_parent_there_is_nobody_to_follow() -> None:
    assert follow_parent({}, grace_s=1) is None


def test_what_this_process_starts_inherits_neither_variable_nor_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graces_s: list[float] = []
    monkeypatch.setattr(parent, "_stop_then_end", graces_s.append)
    read_fd, write_fd = os.pipe()
    os.set_inheritable(read_fd, True)
    environ = {PARENT_FD: str(read_fd)}
    thread = follow_parent(environ, grace_s=7)
    assert environ == {}
    assert not os.get_inheritable(read_fd)
    os.close(write_fd)
    assert thread is not None
    thread.join(10)
    assert graces_s == [7]
    os.close(read_fd)


def test_a_descriptor_that_is_not_open_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        follow_parent({PARENT_FD: "9999"}, grace_s=1)
