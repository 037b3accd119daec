"""Which alarms ring next: a plain machine, without asyncio, clock or randomness.

::

               set                release                 ended, set meanwhile
    NONE ─────────────▶ WAITING ───────────▶ RUNNING ─────────────────────────▶ WAITING
      ▲                  │  ▲                 │ │ ended, still set
      │       drop       │  └─────────────────┘ │     (after a delay)
      └──────────────────┴──── ended, dropped ──┘

An alarm waits by the wall clock for the time it was set for, by the monotonic one for a retry.
That a run has gone well is not said here: its success removes the alarm from the object's file, and
whoever sees that commit calls :meth:`Schedule.drop`. So an alarm cannot be lost on the way between
its handler and the disk; at worst it rings again.

A wall clock that jumps back makes what has not rung wait again, and one that jumps forward makes it
due; neither touches what is running, or has rung.
"""

from __future__ import annotations

import heapq
from typing import Final, TypeAlias

from shard.alarms.alarm import Alarm
from shard.alarms.pace import Pace

OVERDUE_MS: Final = 1000
"""So late, an alarm is let go only at the pace of those that are overdue."""
TIDY_FROM: Final = 64

_Heap: TypeAlias = list[tuple[float, int, Alarm]]


class Schedule:
    """See the module.

    Args:
        max_running: how many alarms may run at once.
        overdue_per_s: how many overdue ones are let go in a second; 0 is no limit.

    Attributes:
        waiting: how many alarms wait.
        running: how many run.
    """

    __slots__ = ("_due", "_last_stamp", "_max_running", "_pace", "_retries", "running", "waiting")

    def __init__(self, max_running: int, overdue_per_s: float) -> None:
        self._max_running = max_running
        self._pace = Pace(overdue_per_s)
        self._due: _Heap = []  # by wall clock, ms
        self._retries: _Heap = []  # by monotonic clock, s
        self._last_stamp = 0
        self.waiting = 0
        self.running = 0

    def set(self, alarm: Alarm, due_ms: int) -> None:
        """Its object has set it, anew or for the first time."""
        alarm.due_ms = due_ms
        alarm.failures = alarm.retries = 0
        if alarm.running:
            alarm.fresh = True
        else:
            self._enqueue(self._due, due_ms, alarm)

    def drop(self, alarm: Alarm) -> None:
        """Its object has none any more."""
        alarm.due_ms = None
        alarm.fresh = False
        self._dequeue(alarm)

    def delay(self, alarm: Alarm, due_ms: int, until_s: float) -> None:
        """It is set, but is not to ring before *until_s* (monotonic); if it runs, afterwards."""
        alarm.due_ms = due_ms
        alarm.fresh = False
        if not alarm.running:
            self._enqueue(self._retries, until_s, alarm)

    def release(self, wall_ms: float, now_s: float, most: int) -> list[Alarm]:
        """Those that are to run now, at most so many; they count as running.

        Args:
            wall_ms: the wall clock, milliseconds since 1970.
            now_s: the monotonic clock, seconds.
            most: how many.
        """
        released: list[Alarm] = []
        while len(released) < most and self.wait_s(wall_ms, now_s) == 0:
            retry = _first(self._retries)
            if retry is not None and retry <= now_s:
                alarm = heapq.heappop(self._retries)[2]
            else:
                due_ms, _, alarm = heapq.heappop(self._due)
                if wall_ms - due_ms > OVERDUE_MS:
                    self._pace.take()
            self._dequeue(alarm)
            alarm.running = True
            self.running += 1
            released.append(alarm)
        return released

    def ended(self, alarm: Alarm, again_at_s: float | None) -> None:
        """Its run is over, well or not; if it is still set, it rings again.

        Args:
            alarm: which.
            again_at_s: monotonic; not earlier than that, unless it was set anew. ``None``: at the
                time it was set for, as it has not rung.
        """
        alarm.running = False
        self.running -= 1
        if alarm.due_ms is None:
            return
        if alarm.fresh or again_at_s is None:
            alarm.fresh = False
            self._enqueue(self._due, alarm.due_ms, alarm)
        else:
            self._enqueue(self._retries, again_at_s, alarm)

    def wait_s(self, wall_ms: float, now_s: float) -> float | None:
        """Seconds until :meth:`release` has something, if no clock jumps; ``None``: not by itself.

        The arguments are those of :meth:`release`.
        """
        if self.running >= self._max_running:
            return None
        retry_s = _first(self._retries)
        if retry_s is not None and retry_s <= now_s:
            return 0.0
        due_ms = _first(self._due)
        waits = [] if retry_s is None else [retry_s - now_s]
        if due_ms is not None:
            if due_ms > wall_ms:
                waits.append((due_ms - wall_ms) / 1000)
            elif wall_ms - due_ms > OVERDUE_MS:
                waits.append(self._pace.wait_s(now_s))
            else:
                return 0.0
        return min(waits, default=None)

    def _enqueue(self, heap: _Heap, at: float, alarm: Alarm) -> None:
        self._dequeue(alarm)
        self._last_stamp += 1
        alarm.stamp = self._last_stamp
        self.waiting += 1
        heapq.heappush(heap, (at, alarm.stamp, alarm))
        if len(heap) > TIDY_FROM and len(heap) > 2 * self.waiting:
            heap[:] = [item for item in heap if item[2].stamp == item[1]]
            heapq.heapify(heap)

    def _dequeue(self, alarm: Alarm) -> None:
        # Its item stays in its heap, and is known by its stamp to count for nothing.
        if alarm.stamp:
            alarm.stamp = 0
            self.waiting -= 1


def _first(heap: _Heap) -> float | None:
    while heap and heap[0][2].stamp != heap[0][1]:
        heapq.heappop(heap)
    return heap[0][0] if heap else None
