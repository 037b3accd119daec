"""When a failed alarm is tried again."""

from __future__ import annotations

from shard.alarms.retries import delay_s, is_last


def test_delays_double_from_two_seconds_to_1024() -> None:
    delays = [delay_s(failures, 0.0) for failures in range(1, 14)]
    assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]
    assert delay_s(10_000, 0.0) == 1024


def test_jitter_adds_at_most_a_quarter() -> None:
    assert delay_s(1, 0.5) == 2.25
    assert delay_s(6, 0.999) < 64 * 1.25


def test_the_seventh_run_is_the_last() -> None:
    assert [is_last(retries) for retries in range(8)] == [False] * 6 + [True] * 2
