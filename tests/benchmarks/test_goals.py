"""Verdicts on goals."""

from __future__ import annotations

from benchmarks.figures import Sample
from benchmarks.goals import GOALS, Goal, judge, judge_all
from benchmarks.scenarios import SCENARIOS

FASTER = Goal("echo-64", "per_second", "at_least", 2.0)
CHEAPER = Goal("echo-64", "cpu_us", "at_most", 0.5)
SMALL = Goal("idle", "bytes_per_connection", "at_most", 5_000, absolute=True)


def test_every_goal_is_about_a_scenario_that_exists() -> None:
    assert {goal.scenario for goal in GOALS} <= set(SCENARIOS)


def test_the_bound_itself_is_met() -> None:
    assert FASTER.met_by(2.0)
    assert not FASTER.met_by(1.99)
    assert CHEAPER.met_by(0.5)
    assert not CHEAPER.met_by(0.51)


def test_a_relative_goal_is_judged_by_the_ratio_to_the_base_peer() -> None:
    results = {
        "echo-64": {
            "limpet-1": [Sample(per_second=300, cpu_us=10)],
            "workerd": [Sample(per_second=100, cpu_us=16)],
        }
    }
    assert judge(FASTER, "limpet-1", results).value == 3
    assert judge(FASTER, "limpet-1", results).met is True
    assert judge(CHEAPER, "limpet-1", results).met is False


def test_an_absolute_goal_needs_no_base_peer() -> None:
    results = {"idle": {"limpet-1": [Sample(bytes_per_connection=4_000)]}}
    assert judge(SMALL, "limpet-1", results).met is True


def test_a_peer_with_errors_has_not_reached_a_goal_however_fast_it_was() -> None:
    results = {
        "echo-64": {
            "limpet-1": [Sample(per_second=1e9), Sample(per_second=1e9, errors=1)],
            "workerd": [Sample(per_second=1), Sample(per_second=1)],
        }
    }
    verdict = judge(FASTER, "limpet-1", results)
    assert verdict.met is None
    assert verdict.reason == "1 errors"


def test_a_base_peer_with_errors_proves_nothing() -> None:
    results = {
        "echo-64": {"limpet-1": [Sample(per_second=9)], "workerd": [Sample(per_second=1, errors=1)]}
    }
    assert judge(FASTER, "limpet-1", results).reason == "workerd had errors"


def test_without_a_base_peer_the_verdict_is_open() -> None:
    results = {"echo-64": {"limpet-1": [Sample(per_second=9)]}}
    assert judge(FASTER, "limpet-1", results).met is None
    assert judge(FASTER, "limpet-2", results).reason == "not measured"


def test_only_scenarios_that_were_run_are_judged() -> None:
    results = {"idle": {"limpet-1": [Sample(bytes_per_connection=4_000)]}}
    verdicts = judge_all(("limpet-1",), results)
    assert [verdict.goal.scenario for verdict in verdicts] == ["idle"]
