"""The input gate as a machine (specification §3.2 and §3.3)."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shard.gate import MAX_DEPTH, InputGate, Section


class Watched:
    """A gate that keeps count of how often it opened."""

    def __init__(self) -> None:
        self.opened = 0
        self.gate = InputGate(self._opened)

    def _opened(self) -> None:
        self.opened += 1


def section(parent: Section | None = None) -> Section:
    return Section(parent, lambda: None)


def running(gate: InputGate, parent: Section | None = None) -> Section:
    """A section that has begun."""
    new = section(parent)
    assert gate.block(new)
    gate.begin(new)
    return new


def test_without_sections_everything_may_run() -> None:
    gate = Watched().gate
    assert gate.open
    assert gate.admits(None)
    assert not gate.holds_events


def test_events_wait_from_the_call_on_but_code_only_from_the_beginning() -> None:
    """B2: it starts on a later turn; code after the call runs first."""
    gate = Watched().gate
    new = section()
    assert gate.block(new)
    assert gate.holds_events
    assert gate.admits(None)
    gate.begin(new)
    assert not gate.admits(None)
    assert gate.admits(new)


def test_two_sections_run_one_after_the_other() -> None:
    """B3."""
    watched = Watched()
    gate = watched.gate
    first = running(gate)
    second = section()
    assert not gate.block(second)
    assert gate.finish(first) is second
    assert gate.admits(None), "the first one's awaiter goes on before the second begins"
    assert gate.holds_events
    gate.begin(second)
    assert gate.finish(second) is None
    assert not gate.holds_events
    assert watched.opened == 1


def test_a_nested_section_holds_the_outer_one_back() -> None:
    """B4."""
    gate = Watched().gate
    outer = running(gate)
    inner = running(gate, outer)
    assert gate.admits(inner)
    assert not gate.admits(outer)
    assert not gate.admits(None)
    gate.finish(inner)
    assert gate.admits(outer)
    assert not gate.admits(None)


def test_a_nested_section_runs_before_those_that_wait_outside() -> None:
    gate = Watched().gate
    outer = running(gate)
    waiting = section()
    gate.block(waiting)
    inner = running(gate, outer)
    assert gate.finish(inner) is None
    assert gate.finish(outer) is waiting


def test_64_levels_and_no_more() -> None:
    """§2.4: nesting > 64."""
    gate = Watched().gate
    innermost: Section | None = None
    for _ in range(MAX_DEPTH):
        innermost = running(gate, innermost)
    with pytest.raises(RecursionError, match=r"nested too deeply\.$"):
        gate.block(section(innermost))
    assert MAX_DEPTH == 64


def test_done_sections_do_not_count_for_the_depth() -> None:
    gate = Watched().gate
    last: Section | None = None
    for _ in range(3 * MAX_DEPTH):
        last = running(gate, last)
        gate.finish(last)
    assert gate.open


def test_what_goes_on_after_its_section_belongs_to_the_one_around_it() -> None:
    gate = Watched().gate
    outer = running(gate)
    inner = running(gate, outer)
    gate.finish(inner)
    assert gate.admits(inner), "a task started in it is now the outer one's"
    gate.finish(outer)
    other = running(gate)
    assert not gate.admits(inner)
    gate.finish(other)


@pytest.mark.parametrize("begun", [False, True])
def test_a_section_left_behind_by_its_parent_keeps_its_place(begun: bool) -> None:
    """A callback may return without awaiting the section that it has opened."""
    watched = Watched()
    gate = watched.gate
    outer = running(gate)
    waiting = section()
    gate.block(waiting)
    inner = section(outer)
    assert gate.block(inner)
    if begun:
        gate.begin(inner)
    assert gate.finish(outer) is None, "the inner one has been told to begin already"
    assert gate.holds_events
    assert watched.opened == 0
    if not begun:
        gate.begin(inner)
    assert not gate.admits(None)
    assert not gate.admits(outer)
    assert gate.finish(inner) is waiting


def test_who_waits_is_told_of_each_change_once() -> None:
    gate = Watched().gate
    told: list[str] = []
    first = running(gate)
    gate.block(second := section())
    gate.when_open(lambda: told.append("a"))
    gate.when_open(lambda: told.append("b"))
    gate.finish(first)
    assert told == ["a", "b"]
    gate.begin(second)
    gate.finish(second)
    assert told == ["a", "b"]


class GateMachine(RuleBasedStateMachine):
    """Against a plain model: a stack of the callbacks that have begun and not ended."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = Watched()
        self.gate = self.watched.gate
        self.told: deque[Section] = deque()
        """Will begin in a later callback of the event loop."""
        self.stack: list[Section] = []
        self.known: list[Section] = []
        self.parent: dict[Section, Section | None] = {}
        self.ended: set[Section] = set()
        self.asked: dict[Section | None, list[Section]] = {}
        """By parent, in the order of block()."""
        self.began: dict[Section | None, list[Section]] = {}

    def living(self, each: Section | None) -> Section | None:
        while each is not None and each in self.ended:
            each = self.parent[each]
        return each

    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        """Any code may ask: of no section, of one that runs, of one that is over."""
        begun = [None, *(each for each in self.known if each in self.ended or each in self.stack)]
        parent = data.draw(st.sampled_from(begun))
        new = section(parent)
        try:
            begins = self.gate.block(new)
        except RecursionError:
            return
        self.known.append(new)
        self.parent[new] = self.living(parent)
        self.asked.setdefault(self.parent[new], []).append(new)
        if begins:
            self.told.append(new)

    @precondition(lambda self: self.told)
    @rule()
    def begin(self) -> None:
        new = self.told.popleft()
        assert self.living(self.parent[new]) is (self.stack[-1] if self.stack else None)
        self.gate.begin(new)
        self.stack.append(new)
        self.began.setdefault(self.parent[new], []).append(new)

    @precondition(lambda self: self.stack)
    @rule()
    def finish(self) -> None:
        """A callback ends in one of its steps, so only the innermost one can."""
        following = self.gate.finish(self.stack[-1])
        self.ended.add(self.stack.pop())
        if following is not None:
            self.told.append(following)

    @invariant()
    def only_the_innermost_section_runs(self) -> None:
        top = self.stack[-1] if self.stack else None
        assert self.gate.open is (top is None)
        for each in [None, *self.known]:
            if each is None or each in self.ended or each in self.stack:
                assert self.gate.admits(each) is (top is None or self.living(each) is top)

    @invariant()
    def events_wait_while_a_section_is_not_over(self) -> None:
        assert self.gate.holds_events is (len(self.ended) < len(self.known))

    @invariant()
    def first_come_first_served(self) -> None:
        for parent, began in self.began.items():
            assert began == self.asked[parent][: len(began)]

    @invariant()
    def at_most_one_is_about_to_begin(self) -> None:
        assert len(self.told) <= 1

    def teardown(self) -> None:
        """Nothing starves: everything that was asked for runs, then the gate is open."""
        while self.told or self.stack:
            if self.told:
                self.begin()
            else:
                self.finish()
        assert self.ended == set(self.known)
        assert self.gate.open
        assert not self.gate.holds_events
        assert bool(self.watched.opened) is bool(self.known)


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=60)
