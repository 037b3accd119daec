"""From what a round has shown to a sample."""

from __future__ import annotations

import pytest

from benchmarks.measuring import quantile
from benchmarks.slow_shard import BEAT_S, lags_of


def test_a_quantile_is_one_of_the_values_and_so_large_a_part_is_not_above_it() -> None:
    values = [float(each) for each in range(100, 0, -1)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile(values, 1) == 100
    assert quantile([7.0], 0.5) == 7


def test_a_loop_that_stood_still_counts_for_all_the_beats_it_missed() -> None:
    assert lags_of(0.0) == [0.0]
    assert lags_of(BEAT_S / 2) == [BEAT_S / 2]
    assert lags_of(3.5 * BEAT_S) == pytest.approx(
        [3.5 * BEAT_S, 2.5 * BEAT_S, 1.5 * BEAT_S, 0.5 * BEAT_S]
    )


def test_one_stall_in_a_second_shows_in_the_99th_percentile() -> None:
    lags_s = [0.0] * int(0.8 / BEAT_S) + lags_of(0.2)
    assert quantile(lags_s, 0.99) > 0.15
