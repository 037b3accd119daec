"""How rounds become one figure."""

from __future__ import annotations

from benchmarks.figures import (
    Sample,
    middle,
    ratio,
    spread,
    total_errors,
    typical,
    typical_by_role,
)


def rates(*values: float | None) -> list[Sample]:
    return [Sample(per_second=value) for value in values]


def test_the_typical_value_is_the_median_so_one_bad_round_does_not_move_it() -> None:
    assert typical(rates(100, 102, 5), "per_second") == 100


def test_rounds_without_the_metric_do_not_count() -> None:
    assert typical(rates(None, 10, 20), "per_second") == 15
    assert typical(rates(None), "per_second") is None
    assert middle([]) is None


def test_the_spread_is_the_least_and_the_greatest() -> None:
    assert spread(rates(3, 1, None, 2), "per_second") == (1, 3)
    assert spread([], "per_second") is None


def test_a_ratio_is_taken_within_each_round_so_drift_of_the_machine_cancels() -> None:
    """The machine halves its speed each round; the ratio of medians would be right by luck only."""
    assert ratio(rates(400, 200, 100), rates(200, 100, 50), "per_second") == 2
    assert ratio(rates(400, 100, 200), rates(200, 50, 400), "per_second") == 2


def test_a_ratio_needs_both_sides_of_a_round_and_a_base_that_is_not_zero() -> None:
    assert ratio(rates(None, 30), rates(1, 10), "per_second") == 3
    assert ratio(rates(10), rates(0), "per_second") is None
    assert ratio(rates(10), [], "per_second") is None
    assert ratio(rates(10, 20), rates(10), "per_second") == 1


def test_cpu_is_split_by_role_and_a_role_missing_in_a_round_counts_as_zero() -> None:
    rounds = [
        Sample(cpu_us_by_role={"gateway": 6.0, "shard": 3.0}),
        Sample(cpu_us_by_role={"gateway": 4.0}),
        Sample(cpu_us_by_role={"gateway": 5.0, "shard": 2.0}),
    ]
    assert typical_by_role(rounds) == {"gateway": 5.0, "shard": 2.0}


def test_errors_of_all_rounds_add_up() -> None:
    assert total_errors([Sample(errors=1), Sample(), Sample(errors=2)]) == 3
