"""The schedule against a plain model: never early, none lost, never twice at once."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shard.alarms.alarm import Alarm
from shard.alarms.pace import Pace
from shard.alarms.schedule import OVERDUE_MS, Schedule

MAX_RUNNING = 3
WALL_MS = 1_800_000_000_000


def alarm(number: int = 0) -> Alarm:
    return Alarm("app-Room", bytes([number]) * 32, None)


def released(schedule: Schedule, wall_ms: float, now_s: float = 0.0, most: int = 100) -> list[Any]:
    return [each.raw[0] for each in schedule.release(wall_ms, now_s, most)]


# --- by example


def test_an_alarm_is_released_at_its_time_and_not_before() -> None:
    schedule = Schedule(10, 0)
    schedule.set(alarm(1), WALL_MS + 500)
    assert schedule.wait_s(WALL_MS, 0) == 0.5
    assert released(schedule, WALL_MS + 499.999) == []
    assert released(schedule, WALL_MS + 500) == [1]
    assert schedule.wait_s(WALL_MS + 500, 0) is None
    assert released(schedule, WALL_MS + 10_000) == []


def test_the_earliest_goes_first() -> None:
    schedule = Schedule(10, 0)
    for number, due_ms in ((1, 30), (2, 10), (3, 20)):
        schedule.set(alarm(number), WALL_MS + due_ms)
    assert released(schedule, WALL_MS + 100, most=2) == [2, 3]
    assert released(schedule, WALL_MS + 100, most=2) == [1]


def test_the_last_set_wins() -> None:
    schedule = Schedule(10, 0)
    one = alarm(1)
    for due_ms in (500, 100, 300):
        schedule.set(one, WALL_MS + due_ms)
    assert released(schedule, WALL_MS + 299) == []
    assert released(schedule, WALL_MS + 600) == [1]


def test_a_run_that_leaves_it_set_is_repeated_after_the_delay() -> None:
    """By the monotonic clock: the wall clock says nothing about it."""
    schedule = Schedule(10, 0)
    one = alarm(1)
    schedule.set(one, WALL_MS)
    assert released(schedule, WALL_MS, 50.0) == [1]
    schedule.ended(one, 52.0)
    assert schedule.wait_s(WALL_MS + 1e9, 50.5) == 1.5
    assert released(schedule, WALL_MS + 1e9, 51.999) == []
    assert released(schedule, WALL_MS - 1e9, 52.0) == [1]


def test_one_set_while_it_runs_rings_anew_at_its_time() -> None:
    schedule = Schedule(10, 0)
    one = alarm(1)
    schedule.set(one, WALL_MS)
    one.failures = one.retries = 3
    assert released(schedule, WALL_MS) == [1]
    schedule.set(one, WALL_MS)
    assert (one.failures, one.retries) == (0, 0)
    assert released(schedule, WALL_MS) == []
    schedule.ended(one, 1e9)
    assert released(schedule, WALL_MS) == [1]


def test_one_dropped_while_it_runs_is_not_repeated() -> None:
    schedule = Schedule(10, 0)
    one = alarm(1)
    schedule.set(one, WALL_MS)
    assert released(schedule, WALL_MS) == [1]
    schedule.drop(one)
    schedule.ended(one, 0.0)
    assert released(schedule, WALL_MS + 1e9, 1e9) == []
    assert (schedule.waiting, schedule.running) == (0, 0)


def test_one_that_was_not_due_after_all_waits_for_its_time() -> None:
    """The wall clock was set back after its release."""
    schedule = Schedule(10, 0)
    one = alarm(1)
    schedule.set(one, WALL_MS)
    one.failures = one.retries = 2
    assert released(schedule, WALL_MS) == [1]
    schedule.ended(one, None)
    assert released(schedule, WALL_MS - 1, 1e9) == []
    assert released(schedule, WALL_MS) == [1]
    assert one.retries == 2


def test_no_more_run_at_once_than_may() -> None:
    schedule = Schedule(2, 0)
    alarms = [alarm(number) for number in range(5)]
    for each in alarms:
        schedule.set(each, WALL_MS)
    first = schedule.release(WALL_MS, 0.0, 100)
    assert len(first) == 2
    assert schedule.wait_s(WALL_MS, 0.0) is None
    schedule.drop(first[0])
    schedule.ended(first[0], 0.0)
    assert schedule.wait_s(WALL_MS, 0.0) == 0
    assert len(schedule.release(WALL_MS, 0.0, 100)) == 1


def test_overdue_ones_are_let_go_at_a_pace() -> None:
    """Those that are on time go at once, however many."""
    schedule = Schedule(10_000, 160)
    late, on_time = WALL_MS - OVERDUE_MS - 1, WALL_MS - OVERDUE_MS
    for number in range(96):
        schedule.set(alarm(number), late)
    now_s = 1000.0
    assert len(schedule.release(WALL_MS, now_s, 1000)) == 16
    assert schedule.wait_s(WALL_MS, now_s) == 1 / 160
    for step in range(1, 9):
        assert len(schedule.release(WALL_MS, now_s + step / 16, 1000)) == 10
    assert schedule.wait_s(WALL_MS, now_s + 1) is None
    for number in range(500):
        schedule.set(alarm(number % 250), on_time)
    assert len(schedule.release(WALL_MS, now_s + 1, 1000)) == 500


def test_a_pace_of_nothing_is_no_limit() -> None:
    pace = Pace(0)
    for _ in range(1000):
        assert pace.wait_s(0.0) == 0
        pace.take()


def test_alarms_that_are_set_again_and_again_do_not_pile_up() -> None:
    schedule = Schedule(10, 0)
    one = alarm(1)
    for number in range(10_000):
        schedule.set(one, WALL_MS + number)
    assert len(schedule._due) < 200
    assert schedule.waiting == 1


# --- against a model


class ScheduleMachine(RuleBasedStateMachine):
    """What an object's file says is ``stored``; handlers end well, badly, or set it again."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(MAX_RUNNING, 0)
        self.wall_ms = float(WALL_MS)
        self.now_s = 0.0
        self.alarms = {number: alarm(number) for number in range(6)}
        self.stored: dict[int, int] = {}
        self.not_before: dict[int, float] = {}
        self.running: dict[int, int | None] = {}
        self.fresh: set[int] = set()

    numbers = st.integers(0, 5)

    @rule(number=numbers, offset_ms=st.integers(-5_000, 20_000))
    def set(self, number: int, offset_ms: int) -> None:
        due_ms = int(self.wall_ms) + offset_ms
        self.schedule.set(self.alarms[number], due_ms)
        self.stored[number] = due_ms
        self.not_before.pop(number, None)
        if number in self.running:
            self.fresh.add(number)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.schedule.drop(self.alarms[number])
        self.stored.pop(number, None)
        self.not_before.pop(number, None)
        self.fresh.discard(number)

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_ms += seconds * 1000

    @rule(seconds=st.floats(-100, 100))
    def wall_clock_is_set(self, seconds: float) -> None:
        self.wall_ms += seconds * 1000

    @rule(most=st.integers(1, 4))
    def release(self, most: int) -> None:
        may_run = {number for number in self.stored if self._may_run(number)}
        got = [each.raw[0] for each in self.schedule.release(self.wall_ms, self.now_s, most)]
        assert len(set(got)) == len(got)
        assert set(got) <= may_run, "early, twice at once, or not set"
        free = MAX_RUNNING - len(self.running)
        assert len(got) == min(most, free, len(may_run)), "one was left out"
        for number in got:
            self.running[number] = self.stored[number]
            self.not_before.pop(number, None)

    def _may_run(self, number: int) -> bool:
        if number in self.running:
            return False
        if number in self.not_before:
            return self.now_s >= self.not_before[number]
        return self.wall_ms >= self.stored[number]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans(), delay_s=st.floats(0.1, 50))
    def end(self, data: st.DataObject, well: bool, delay_s: float) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[number]
        self.schedule.ended(self.alarms[number], self.now_s + delay_s)
        if number in self.stored and number not in self.fresh:
            self.not_before[number] = self.now_s + delay_s
            if well:  # the commit of its last step has no alarm any more
                self.delete(number)
        self.fresh.discard(number)

    @invariant()
    def what_is_set_is_known(self) -> None:
        assert self.schedule.running == len(self.running)
        assert self.schedule.waiting == len(set(self.stored) - set(self.running))

    @invariant()
    def it_says_how_long_to_wait(self) -> None:
        wait_s = self.schedule.wait_s(self.wall_ms, self.now_s)
        waiting = [number for number in self.stored if number not in self.running]
        if len(self.running) >= MAX_RUNNING or not waiting:
            assert wait_s is None
            return
        assert wait_s is not None
        first = min(
            self.not_before[number] - self.now_s
            if number in self.not_before
            else (self.stored[number] - self.wall_ms) / 1000
            for number in waiting
        )
        assert abs(wait_s - max(first, 0)) < 1e-6


ScheduleMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestSchedule = ScheduleMachine.TestCase
