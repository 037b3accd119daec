"""Counters and gauges of one process, shown in Prometheus' text format.

A counter on a hot path is an integer in an object, ``tally.value += 1``; Prometheus' own counters
take a lock at each step, some 0.5 µs. Everything is read only when somebody asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from common.setting import Role

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of ``Metrics.render()``."""


@final
class Tally:
    """A number that only rises. Add to ``value`` directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


@dataclass(slots=True)
class _Metric:
    kind: Literal["counter", "gauge"]
    help: str
    label_names: tuple[str, ...]
    readers: dict[tuple[str, ...], Callable[[], float]] = field(default_factory=dict)


@final
class Metrics(Collector):
    """All metrics of this process; each carries its role and index as labels.

    Args:
        role: what this process is.
        index: its number among those of its role.
    """

    def __init__(self, role: Role, index: int) -> None:
        self._own_labels = {"role": role, "index": str(index)}
        self._metrics: dict[str, _Metric] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # CPU, memory, descriptors

    def counter(self, name: str, help: str, **labels: str) -> Tally:
        """Add a counter and return what to count with.

        Args:
            name: ends in ``_total``; before that in a unit, if it has one.
            help: one line for people.
            labels: tell this counter from others of its name.

        Raises:
            ValueError: the name is used for another kind, with other labels, or for these already;
                or does not end in ``_total``.
        """
        if not name.endswith("_total"):
            raise ValueError(f"counter {name} must end in _total")
        tally = Tally()
        self._add(name, "counter", help, labels, lambda: tally.value)
        return tally

    def count(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Add a number that only rises and is counted elsewhere, read when asked for.

        The arguments are those of :meth:`gauge`; the name ends in ``_total``.
        """
        if not name.endswith("_total"):
            raise ValueError(f"counter {name} must end in _total")
        self._add(name, "counter", help, {}, read)

    def gauge(self, name: str, help: str, read: Callable[[], float], **labels: str) -> None:
        """Add a value that goes up and down, read when asked for.

        Args:
            name: ends in a unit, if it has one.
            help: one line for people.
            read: returns the value at once, without blocking.
            labels: tell this gauge from others of its name.

        Raises:
            ValueError: the name is used for another kind, with other labels, or for these already.
        """
        self._add(name, "gauge", help, labels, read)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[_Family]:
        """Yield the metrics as prometheus_client wants them."""
        for name, metric in self._metrics.items():
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(name, metric.help, labels=(*self._own_labels, *metric.label_names))
            for values, read in metric.readers.items():
                family.add_metric((*self._own_labels.values(), *values), read())
            yield family

    def _add(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        help: str,
        labels: dict[str, str],
        read: Callable[[], float],
    ) -> None:
        metric = self._metrics.setdefault(name, _Metric(kind, help, tuple(labels)))
        if (metric.kind, metric.label_names) != (kind, tuple(labels)):
            raise ValueError(f"metric {name} exists with another kind or other labels")
        if tuple(labels.values()) in metric.readers:
            raise ValueError(f"metric {name} exists with these labels")
        metric.readers[tuple(labels.values())] = read
