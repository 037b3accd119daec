"""What a round measures, and how rounds become one figure. Pure: no clock, no I/O.

Noise is handled here: a figure is the median of the rounds, and a ratio is the median of the
ratios *within* each round, so that a slow minute of the machine hits both sides of a ratio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Metric = Literal["per_second", "cpu_us", "p50_us", "p99_us", "bytes_per_connection", "lag_p99_us"]

METRIC_TITLES: Mapping[Metric, str] = {
    "per_second": "per second",
    "cpu_us": "CPU per operation",
    "p50_us": "p50 latency",
    "p99_us": "p99 latency",
    "bytes_per_connection": "memory per connection",
    "lag_p99_us": "p99 of the event loop's lag",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer in one scenario in one round.

    A metric that the scenario does not measure is None. `cpu_us` is the CPU time, in
    microseconds per operation, of all server processes together; `cpu_us_by_role` splits it.
    The lag is how late the timers of a shard's event loop ran while others wrote
    `puts_per_second` values to a slow disk.
    `generator_cpu_share` is the load generator's share of one core (near 1: it was the limit).
    """

    per_second: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None
    cpu_us_by_role: Mapping[str, float] = field(default_factory=dict)
    bytes_per_connection: float | None = None
    lag_p50_us: float | None = None
    lag_p99_us: float | None = None
    lag_max_us: float | None = None
    puts_per_second: float | None = None
    generator_cpu_share: float = 0.0
    errors: int = 0
    first_error: str | None = None

    def metric(self, name: Metric) -> float | None:
        """Return the value of a metric by its name."""
        match name:
            case "per_second":
                return self.per_second
            case "cpu_us":
                return self.cpu_us
            case "p50_us":
                return self.p50_us
            case "p99_us":
                return self.p99_us
            case "bytes_per_connection":
                return self.bytes_per_connection
            case "lag_p99_us":
                return self.lag_p99_us


Rounds = Sequence[Sample]
"""The samples of one peer in one scenario, in the order of the rounds."""

Results = Mapping[str, Mapping[str, Rounds]]
"""scenario name → peer name → its rounds."""


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are there; None without any."""
    present = [value for value in values if value is not None]
    return median(present) if present else None


def typical(rounds: Rounds, metric: Metric) -> float | None:
    """Return the median of a metric over the rounds."""
    return middle(sample.metric(metric) for sample in rounds)


def spread(rounds: Rounds, metric: Metric) -> tuple[float, float] | None:
    """Return the least and the greatest value of a metric over the rounds."""
    present = [value for s in rounds if (value := s.metric(metric)) is not None]
    return (min(present), max(present)) if present else None


def typical_by_role(rounds: Rounds) -> dict[str, float]:
    """Return the median CPU per operation, in microseconds, of each process role."""
    roles = sorted({role for sample in rounds for role in sample.cpu_us_by_role})
    return {role: median(s.cpu_us_by_role.get(role, 0.0) for s in rounds) for role in roles}


def ratio(rounds: Rounds, base: Rounds, metric: Metric) -> float | None:
    """Return the median over the rounds of rounds[i] / base[i]; None where nothing can be compared.

    Both sequences are in the order of the same interleaved rounds; a round that lacks one side
    does not count.
    """
    ratios: list[float] = []
    for sample, base_sample in zip(rounds, base, strict=False):
        value, base_value = sample.metric(metric), base_sample.metric(metric)
        if value is not None and base_value:
            ratios.append(value / base_value)
    return median(ratios) if ratios else None


def total_errors(rounds: Rounds) -> int:
    """All errors of all rounds. A figure with errors is not a result."""
    return sum(sample.errors for sample in rounds)
