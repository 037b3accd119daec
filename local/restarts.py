"""When a process that died is started again: a policy without clock, randomness or processes.

Theory of operation. A child that dies after a long healthy life met an accident: it is started
again at once. A child that dies soon after its start will probably die again: each such death
doubles the wait, up to a bound, so that a broken app costs a few starts a minute and never a busy
loop. A child counts as healthy again once it has been *ready* for `healthy_after_s`; until then
every death belongs to the same streak.

    delay(n) = min(max_delay_s, first_delay_s * 2 ** (n - 1)) * (1 ± jitter)    for death n

The jitter keeps children that died together (the machine was out of memory, say) from starting
together.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before each start of a child that died.

    Args:
        first_delay_s: wait after the first death of a streak, in seconds; more than 0.
        max_delay_s: longest wait before jitter, in seconds; at least `first_delay_s`.
        healthy_after_s: time in readiness, in seconds, that ends a streak.
        jitter: fraction of the delay by which it may vary either way, 0 to less than 1.

    Raises:
        ValueError: an argument is out of range.
    """

    first_delay_s: float = 0.05
    max_delay_s: float = 10.0
    healthy_after_s: float = 10.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.max_delay_s:
            raise ValueError("0 < first_delay_s <= max_delay_s must hold")
        if self.healthy_after_s < 0:
            raise ValueError("healthy_after_s must not be negative")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter must be in [0, 1)")

    def delay_s(self, deaths: int, chance: float) -> float:
        """Return the wait, in seconds, after the `deaths`-th death of a streak (1 is the first).

        `chance` in [0, 1) places the answer within the jitter.
        """
        # The exponent is bounded because 2 ** 2000 does not fit a float.
        delay_s = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(deaths - 1, 64))
        return delay_s * (1 + self.jitter * (2 * chance - 1))


@dataclass(frozen=True, slots=True)
class Restart:
    """The answer to the `deaths`-th death of a streak: wait `delay_s` seconds, then start."""

    delay_s: float
    deaths: int


@dataclass(slots=True)
class Restarts:
    """One child's history. Times are seconds on a monotonic clock and are handed in."""

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    deaths: int = 0
    total: int = 0
    _ready_at: float | None = None

    def started(self) -> None:
        """Note that a new process runs; it is not ready yet."""
        self._ready_at = None

    def ready(self, now: float) -> None:
        """Note that the process said it is ready."""
        self._ready_at = now

    def is_settled(self, now: float) -> bool:
        """Return whether the process has been ready for so long that its streak is over."""
        return self._ready_at is not None and now - self._ready_at >= self.policy.healthy_after_s

    def died(self, now: float, chance: float) -> Restart:
        """Note that the process ended unasked, and say when to start the next one.

        Args:
            now: the time of death.
            chance: a random number in [0, 1) for the jitter.
        """
        if self.is_settled(now):
            self.deaths = 0
        self.deaths += 1
        self.total += 1
        self._ready_at = None
        return Restart(self.policy.delay_s(self.deaths, chance), self.deaths)
