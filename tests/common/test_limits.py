from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from common.limits import raise_descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

INFINITY = resource.RLIM_INFINITY


@pytest.fixture
def hard() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_becomes_the_hard_one(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert hard == INFINITY or resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("limits", "refuse", "expected"),
    [
        ((256, INFINITY), False, 1 << 20),
        ((INFINITY, INFINITY), False, 1 << 20),
        ((256, 4096), True, 256),
        ((4096, 4096), True, 4096),
    ],
)
def test_unlimited_and_refusing_systems(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], refuse: bool, expected: int
) -> None:
    def setrlimit(_which: int, _limits: tuple[int, int]) -> None:
        if refuse:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert raise_descriptor_limit() == expected
