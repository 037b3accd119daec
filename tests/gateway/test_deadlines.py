from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.deadlines import TICK_S, Deadlines


class Item:
    def __init__(self, deadlines: Deadlines, due_s: float) -> None:
        self.slot = 0
        self.due_s = due_s
        self.fired_at: float | None = None
        deadlines.set(self, due_s)

    def due(self, now_s: float) -> float:
        if now_s < self.due_s:
            return self.due_s
        assert self.fired_at is None
        self.fired_at = now_s
        return math.inf


@given(
    st.floats(0, 1e6),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=10),
    st.lists(st.floats(0.01, 30), min_size=1, max_size=20),
)
def test_never_early_and_at_most_a_tick_late(
    start_s: float, items: list[tuple[float, float]], steps: list[float]
) -> None:
    """Also where a deadline was moved to later without telling."""
    deadlines = Deadlines(start_s)
    entered = [Item(deadlines, start_s + first) for first, _ in items]
    for item, (_, more) in zip(entered, items, strict=True):
        item.due_s += more
    now_s = start_s
    for step in steps:
        before_s, now_s = now_s, now_s + step
        deadlines.advance(now_s)
        for item in entered:
            if item.fired_at == now_s:
                assert now_s >= item.due_s
                assert item.due_s > before_s - 3 * TICK_S
            if item.due_s + 3 * TICK_S < now_s:
                assert item.fired_at is not None


def test_cancelling_and_moving() -> None:
    deadlines = Deadlines(0.0)
    one, other = Item(deadlines, 1.0), Item(deadlines, 1.0)
    deadlines.cancel(one)
    other.due_s = 0.5
    deadlines.set(other, 0.5)
    deadlines.advance(0.5)
    assert other.fired_at == 0.5
    deadlines.advance(10.0)
    assert one.fired_at is None
    assert len(deadlines) == 0


def test_never_is_not_entered() -> None:
    deadlines = Deadlines(0.0)
    Item(deadlines, math.inf)
    assert len(deadlines) == 0


def test_one_that_cancels_another_in_its_turn() -> None:
    deadlines = Deadlines(0.0)

    class Pair(Item):
        other: Item

        def due(self, now_s: float) -> float:
            deadlines.cancel(self.other)
            return super().due(now_s)

    one, two = Pair(deadlines, 1.0), Pair(deadlines, 1.0)
    one.other, two.other = two, one
    deadlines.advance(2.0)
    assert (one.fired_at is None) != (two.fired_at is None)
