"""What Limpet sets out to reach, and the verdict on it. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Metric, Results, ratio, total_errors, typical

BASE_PEER = "workerd"
"""The peer that ratios are taken to."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one metric of one scenario.

    `bound` is a ratio to the base peer, or, with `absolute`, in the metric's own unit.
    """

    scenario: str
    metric: Metric
    direction: Literal["at_least", "at_most"]
    bound: float
    absolute: bool = False

    def met_by(self, value: float) -> bool:
        """Whether the value is on the right side of the bound; the bound itself is."""
        if self.direction == "at_least":
            return value >= self.bound
        return value <= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what was measured for it (None: nothing usable), and why not where it is None."""

    goal: Goal
    peer: str
    value: float | None
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """True, False, or None where nothing usable was measured."""
        return None if self.value is None else self.goal.met_by(self.value)


GOALS: tuple[Goal, ...] = (
    Goal("echo-64", "per_second", "at_least", 2.2),
    Goal("echo-64", "cpu_us", "at_most", 0.45),
    Goal("echo-1000", "per_second", "at_least", 3.5),
    Goal("echo-1000", "cpu_us", "at_most", 0.30),
    Goal("echo-64k", "per_second", "at_least", 2.0),
    Goal("echo-1", "p50_us", "at_most", 1.3),
    Goal("connect", "per_second", "at_least", 1.2),
    Goal("broadcast-100", "per_second", "at_least", 2.0),
    Goal("broadcast-100", "cpu_us", "at_most", 0.45),
    Goal("broadcast-1000", "per_second", "at_least", 3.5),
    Goal("broadcast-1000", "cpu_us", "at_most", 0.25),
    Goal("broadcast-100x10", "per_second", "at_least", 2.5),
    Goal("put-100", "per_second", "at_least", 1.5),
    Goal("slow-disk", "lag_p99_us", "at_most", 10_000, absolute=True),
    Goal("rpc", "per_second", "at_least", 1.5),
    Goal("idle", "bytes_per_connection", "at_most", 5 * 1024, absolute=True),
    Goal("asleep", "bytes_per_connection", "at_most", 5 * 1024, absolute=True),
)


def judge(goal: Goal, peer: str, results: Results) -> Verdict:
    """Return the verdict on one goal for one peer.

    A peer with errors in the scenario gets no value: an incorrect server is not a fast one.
    """
    rounds = results.get(goal.scenario, {}).get(peer, ())
    if not rounds:
        return Verdict(goal, peer, None, "not measured")
    if errors := total_errors(rounds):
        return Verdict(goal, peer, None, f"{errors} errors")
    if goal.absolute:
        value = typical(rounds, goal.metric)
        return Verdict(goal, peer, value, "" if value is not None else "not measured")
    base = results[goal.scenario].get(BASE_PEER, ())
    if total_errors(base):
        return Verdict(goal, peer, None, f"{BASE_PEER} had errors")
    value = ratio(rounds, base, goal.metric)
    return Verdict(goal, peer, value, "" if value is not None else f"no {BASE_PEER} to compare")


def judge_all(peers: tuple[str, ...], results: Results) -> list[Verdict]:
    """Every goal whose scenario was run, for each of the peers that ran it."""
    return [
        judge(goal, peer, results)
        for goal in GOALS
        if goal.scenario in results
        for peer in peers
        if peer in results[goal.scenario]
    ]
