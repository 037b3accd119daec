"""When to try again: delays that double up to a bound, with jitter. A machine without a clock."""

from __future__ import annotations

import random


class Backoff:
    """Full-jitter exponential back-off.

    Args:
        minimum_s: upper bound of the first delay.
        maximum_s: upper bound of any delay.
        rng: source of the jitter; tests hand in a seeded one.
    """

    __slots__ = ("_bound_s", "_maximum_s", "_minimum_s", "_rng")

    def __init__(self, minimum_s: float, maximum_s: float, rng: random.Random) -> None:
        if not 0 < minimum_s <= maximum_s:
            raise ValueError(f"back-off bounds {minimum_s} s and {maximum_s} s: 0 < min <= max")
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._bound_s = minimum_s
        self._rng = rng

    def next_delay_s(self) -> float:
        """Seconds to wait before the next try: at least half of a bound that doubles each time."""
        bound = self._bound_s
        self._bound_s = min(bound * 2, self._maximum_s)
        return bound * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """A try has succeeded: start again from the shortest delay."""
        self._bound_s = self._minimum_s
