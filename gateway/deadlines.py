"""One coarse timer for all client connections, HTTP and WebSocket alike.

A loop timer for each connection would cost more memory than the connection. Here each is entered
in the slot of a tick; moving a deadline to *later* needs no work at all, because
:meth:`Deadlines.advance` asks :meth:`Timed.due` and enters whoever is not due yet again. Deadlines
pass up to one tick late, never early.

Without I/O and clock: the caller says what time it is.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

TICK_S: Final = 0.25


class Timed(Protocol):
    """Something with a deadline. :class:`Deadlines` alone writes ``slot``, which starts as 0."""

    slot: int

    def due(self, now_s: float) -> float:
        """Do what is due at *now_s*, if anything.

        Returns:
            When to ask again, in seconds of the same clock; ``math.inf`` for never.
        """


class Deadlines:
    """The slots of the ticks to come.

    Args:
        now_s: the time at the beginning, in seconds of a monotonic clock.
    """

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        """The time at the last tick: good enough for stamping what has been heard from clients."""
        self._slots: dict[int, set[Timed]] = {}
        self._tick = math.floor(now_s / TICK_S)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def set(self, timed: Timed, at_s: float) -> None:
        """Ask *timed* at *at_s*, and not when it was entered before."""
        if timed.slot:
            self.cancel(timed)
        if at_s == math.inf:
            return
        tick = max(self._tick + 1, math.ceil(at_s / TICK_S))
        timed.slot = tick
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
        slot.add(timed)

    def cancel(self, timed: Timed) -> None:
        """Forget *timed*."""
        slot = self._slots.get(timed.slot)
        if slot is not None:
            slot.discard(timed)
        timed.slot = 0

    def advance(self, now_s: float) -> None:
        """Time has come to *now_s*: ask everything whose slot has passed."""
        self.now_s = max(self.now_s, now_s)
        tick = math.floor(self.now_s / TICK_S)
        if tick - self._tick > len(self._slots):
            passed = sorted(slot for slot in self._slots if slot <= tick)
        else:
            passed = [slot for slot in range(self._tick + 1, tick + 1) if slot in self._slots]
        self._tick = tick
        for number in passed:
            for timed in self._slots.pop(number):
                if timed.slot == number:  # not moved by another one's turn
                    timed.slot = 0
                    again = timed.due(self.now_s)
                    if not timed.slot:
                        self.set(timed, again)
