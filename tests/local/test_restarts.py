"""Rules of `local.restarts`: bounded, growing, jittered waits; a healthy life ends a streak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from local.restarts import RestartPolicy, Restarts

chances = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn) -> RestartPolicy:
    first_delay_s = draw(st.floats(0.001, 10))
    return RestartPolicy(
        first_delay_s=first_delay_s,
        max_delay_s=first_delay_s * draw(st.floats(1, 1000)),
        healthy_after_s=draw(st.floats(0, 100)),
        jitter=draw(st.floats(0, 0.9)),
    )


@given(policies(), st.integers(1, 10_000), chances)
def test_a_delay_is_never_zero_and_never_above_the_bound(
    policy: RestartPolicy, deaths: int, chance: float
) -> None:
    delay_s = policy.delay_s(deaths, chance)
    assert policy.first_delay_s * (1 - policy.jitter) * 0.999 <= delay_s
    assert 0 < delay_s <= policy.max_delay_s * (1 + policy.jitter) * 1.001


@given(policies(), st.integers(1, 10_000))
def test_delays_never_shrink_within_a_streak(policy: RestartPolicy, deaths: int) -> None:
    assert policy.delay_s(deaths + 1, 0.5) >= policy.delay_s(deaths, 0.5)


def test_the_delay_doubles_up_to_its_bound() -> None:
    policy = RestartPolicy(first_delay_s=1, max_delay_s=5, jitter=0)
    assert [policy.delay_s(n, 0.3) for n in range(1, 6)] == [1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_delay_s": 0},
        {"first_delay_s": 2, "max_delay_s": 1},
        {"healthy_after_s": -1},
        {"jitter": 1},
        {"jitter": -0.1},
    ],
)
def test_a_policy_that_could_loop_busily_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|jitter"):
        RestartPolicy(**wrong)


class ALifeOfRestarts(RuleBasedStateMachine):
    """Any schedule of starts, readiness and deaths, against a plain list of lives."""

    @initialize(policy=policies())
    def begin(self, policy: RestartPolicy) -> None:
        self.restarts = Restarts(policy)
        self.restarts.started()
        self.now = 0.0
        self.ready_since: float | None = None
        self.streak = 0

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def becomes_ready(self) -> None:
        if self.ready_since is None:
            self.ready_since = self.now
            self.restarts.ready(self.now)

    @rule(chance=chances)
    def dies(self, chance: float) -> None:
        policy = self.restarts.policy
        was_healthy = (
            self.ready_since is not None and self.now - self.ready_since >= policy.healthy_after_s
        )
        self.streak = 1 if was_healthy else self.streak + 1
        restart = self.restarts.died(self.now, chance)
        assert restart.deaths == self.streak
        assert restart.delay_s == policy.delay_s(self.streak, chance)
        self.ready_since = None
        self.restarts.started()

    @invariant()
    def the_streak_never_exceeds_the_deaths_in_all(self) -> None:
        assert self.restarts.deaths <= self.restarts.total


TestALifeOfRestarts = ALifeOfRestarts.TestCase


@given(policies(), st.floats(1, 3600))
def test_a_child_that_always_dies_at_once_costs_few_starts(
    policy: RestartPolicy, seconds: float
) -> None:
    """A crash loop is bounded: at most one start for each shortest possible wait at the bound."""
    restarts = Restarts(policy)
    now, starts = 0.0, 0
    while now < seconds and starts < 10_000:
        restarts.started()
        now += restarts.died(now, 0.0).delay_s
        starts += 1
    doublings = 12  # max_delay_s is at most 1,000 times first_delay_s
    assert starts <= doublings + seconds / (policy.max_delay_s * (1 - policy.jitter)) + 1
