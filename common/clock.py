"""Time as a thing that is handed in, so that tests can hand in another.

Intervals, timeouts and leases go by ``monotonic_s``, which no adjustment of the clock moves. Only
what the outside world names by date, alarms and logs, goes by ``wall_s``.
"""

from __future__ import annotations

import time
from typing import Protocol, final


class Clock(Protocol):
    """A source of time."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""

    def wall_s(self) -> float:
        """Seconds since 1970-01-01 UTC; may jump when the machine's clock is set."""


@final
class SystemClock:
    """The machine's own clocks. ``monotonic_s`` is that of ``asyncio``'s loops as well."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        """See :meth:`Clock.monotonic_s`."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See :meth:`Clock.wall_s`."""
        return time.time()
