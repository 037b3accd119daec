from __future__ import annotations

import ctypes
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
