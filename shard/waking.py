"""Who wakes when: so that thousands of objects that wake at once do not stop everything else.

After a crash, every object that somebody has spoken to meanwhile wakes: each runs its constructor
and opens its database. Done one after the other where their events arrive, that is seconds in which
no object that is awake gets its messages, and no link its acknowledgements. So objects wake for at
most WAKE_SLICE_S at a stretch. Those that come later are *due*: their events wait, and they wake in
the order in which they came, a slice at a time, while the event loop turns in between.

An object that wakes alone never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import Protocol


class Sleeper(Protocol):
    """Who waits for its turn."""

    def take_turn(self) -> None:
        """Wake; or do nothing, if it has left meanwhile. Does not raise."""


class Wakes:
    """See the module.

    Args:
        slice_s: seconds of waking before the loop turns; 0 for no limit.
        loop: whose time it is.
    """

    __slots__ = ("_context", "_due", "_loop", "_slice_ends_at", "_slice_s", "_turning")

    def __init__(self, slice_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._slice_s = slice_s
        self._loop = loop
        self._context = copy_context()  # not that of whoever is the last to wake somebody
        self._due: deque[Sleeper] = deque()
        self._turning = False
        self._slice_ends_at = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._due)

    @property
    def crowded(self) -> bool:
        """Whoever wants to wake now must :meth:`queue`."""
        if not self._slice_s:
            return False
        if self._turning:
            return bool(self._due) or self._loop.time() >= self._slice_ends_at
        self._begin_slice()
        return False

    def queue(self, sleeper: Sleeper) -> None:
        """Have it take its turn, behind those that wait."""
        self._due.append(sleeper)
        if not self._turning:
            self._begin_slice()

    def stop(self) -> None:
        """Nobody wakes any more."""
        self._due.clear()

    def _begin_slice(self) -> None:
        self._turning = True
        self._slice_ends_at = self._loop.time() + self._slice_s
        self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._turning = False
        if not self._due:
            return
        self._begin_slice()
        due = self._due
        while due:
            due.popleft().take_turn()
            if self._loop.time() >= self._slice_ends_at:
                return
