"""How fast what is overdue may be let go."""

from __future__ import annotations

from typing import Final

BURST_S: Final = 0.1
"""So much of a second's amount may go at once."""


class Pace:
    """So many a second, and no more than a tenth of that at once.

    Args:
        per_s: how many; 0 is no limit.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._left = self._burst
        self._at = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next one may go; 0 if it may go now.

        Args:
            now_s: monotonic.
        """
        if not self._per_s:
            return 0.0
        if now_s > self._at:
            self._left = min(self._burst, self._left + (now_s - self._at) * self._per_s)
            self._at = now_s
        return 0.0 if self._left >= 1.0 else (1.0 - self._left) / self._per_s

    def take(self) -> None:
        """One goes; :meth:`wait_s` has just said 0."""
        if self._per_s:
            self._left -= 1.0
