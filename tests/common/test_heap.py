from __future__ import annotations

import ctypes
import gc
import platform

import pytest

from common import heap


def test_glibc_can_be_told() -> None:
    assert heap.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    heap.give_back_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not heap.keep_freed_memory()
    heap.give_back_freed_memory()


def test_what_is_there_at_the_start_is_never_looked_through_again() -> None:
    mark = ["this list is there"]
    try:
        heap.keep_start_objects()
        assert not any(each is mark for each in gc.get_objects())
        later = ["and this one is not yet"]
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()
