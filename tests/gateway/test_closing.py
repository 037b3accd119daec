"""Properties of the table; what it does to a real connection is in test_connection.py."""

from __future__ import annotations

from itertools import product

from gateway.closing import STEPS, Cause, Phase, Tcp, Tell, Write


def runs(phase: Phase = Phase.OPEN, depth: int = 4) -> list[list[tuple[Cause, object]]]:
    if phase is Phase.DONE or depth == 0:
        return [[]]
    found = []
    for cause in Cause:
        step = STEPS.get((phase, cause))
        if step is not None:
            found += [[(cause, step), *rest] for rest in runs(step.phase, depth - 1)]
    return found


def test_every_way_tells_the_object_once_and_ends_tcp_once() -> None:
    """G5."""
    for run in runs():
        steps = [step for _, step in run]
        assert steps[-1].phase is Phase.DONE  # type: ignore[attr-defined]
        assert sum(step.tell is not Tell.NOTHING for step in steps) == 1  # type: ignore[attr-defined]
        assert sum(step.tcp is not Tcp.KEEP for step in steps) == 1  # type: ignore[attr-defined]
        assert sum(step.write is not Write.NONE for step in steps) <= 1  # type: ignore[attr-defined]


def test_a_clean_end_has_a_close_frame_from_each_side() -> None:
    for run in runs():
        causes = {cause for cause, _ in run}
        told = any(step.tell is Tell.CLIENTS for _, step in run)  # type: ignore[attr-defined]
        assert told is (Cause.CLIENT_CLOSE in causes)


def test_the_end_of_tcp_and_time_can_always_be_handled() -> None:
    for phase, cause in product(Phase, (Cause.GONE, Cause.TIMEOUT, Cause.FAULT)):
        assert ((phase, cause) in STEPS) is (phase is not Phase.DONE)


def test_what_needs_the_clients_close_comes_after_it() -> None:
    for (phase, cause), step in STEPS.items():
        if step.write is Write.ECHO:
            assert phase is Phase.BY_CLIENT
        if step.tell is Tell.CLIENTS:
            assert cause is Cause.CLIENT_CLOSE
