"""Delays between tries: doubling, bounded, jittered, never zero."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.link.backoff import Backoff

BOUNDS = st.tuples(st.floats(0.001, 100, allow_nan=False), st.floats(1, 100, allow_nan=False)).map(
    lambda pair: (pair[0], pair[0] * pair[1])
)


@given(bounds=BOUNDS, seed=st.integers(), tries=st.integers(1, 40))
def test_each_delay_lies_in_the_upper_half_of_a_bound_that_doubles(
    bounds: tuple[float, float], seed: int, tries: int
) -> None:
    minimum_s, maximum_s = bounds
    backoff = Backoff(minimum_s, maximum_s, random.Random(seed))
    for number in range(tries):
        bound_s = min(minimum_s * 2**number, maximum_s)
        assert bound_s / 2 <= backoff.next_delay_s() <= bound_s


@given(bounds=BOUNDS, seed=st.integers(), tries=st.integers(0, 20))
def test_after_a_reset_the_delays_start_anew(
    bounds: tuple[float, float], seed: int, tries: int
) -> None:
    backoff = Backoff(*bounds, random.Random(seed))
    for _ in range(tries):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() <= bounds[0]


def test_processes_that_start_together_do_not_try_together() -> None:
    delays = {Backoff(1, 60, random.Random(seed)).next_delay_s() for seed in range(50)}
    assert len(delays) == 50


def test_the_same_seed_gives_the_same_delays() -> None:
    one, other = (Backoff(0.1, 5, random.Random(7)) for _ in range(2))
    assert [one.next_delay_s() for _ in range(9)] == [other.next_delay_s() for _ in range(9)]


@pytest.mark.parametrize(("minimum_s", "maximum_s"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_contradict_are_refused(minimum_s: float, maximum_s: float) -> None:
    with pytest.raises(ValueError, match="0 < min <= max"):
        Backoff(minimum_s, maximum_s, random.Random())
