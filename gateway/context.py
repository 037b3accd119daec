"""What all connections of one gateway share."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, final

from common.clock import Clock
from common.metrics import Metrics
from common.settings import Settings
from gateway.deadlines import Deadlines
from gateway.deflate import Deflater
from gateway.holding import Budget
from gateway.keepalive import Keepalive
from gateway.partials import Partials

if TYPE_CHECKING:
    from gateway.http import HttpConnection


@final
class Counters:
    """What this gateway counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.accepted = metrics.counter(
            "limpet_gateway_connections_total", "Client connections accepted."
        )
        self.requests = metrics.counter(
            "limpet_gateway_requests_total", "HTTP requests passed on to a shard."
        )
        self.refused = metrics.counter(
            "limpet_gateway_refused_total", "Requests answered by the gateway itself."
        )
        self.upgraded = metrics.counter(
            "limpet_gateway_upgrades_total", "WebSocket handshakes completed."
        )
        self.violations = metrics.counter(
            "limpet_gateway_violations_total", "WebSockets failed for what the client sent."
        )
        self.slow = metrics.counter(
            "limpet_gateway_slow_total", "WebSockets closed because the client read too slowly."
        )
        self.crowded = metrics.counter(
            "limpet_gateway_crowded_total", "WebSockets closed for too many unfinished messages."
        )
        self.vanished = metrics.counter(
            "limpet_gateway_vanished_total", "WebSockets dropped because the client fell silent."
        )


@final
class Context:
    """Settings, time and counters.

    Args:
        settings: of the process.
        clock: where time comes from.
        metrics: where the counters are registered.
        max_connections: the most clients there may be at a time.
    """

    def __init__(
        self, settings: Settings, clock: Clock, metrics: Metrics, max_connections: int
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.deadlines = Deadlines(clock.monotonic_s())
        self.keepalive = Keepalive(settings.ping_interval_s, settings.ping_timeout_s)
        self.counters = Counters(metrics)
        self.hold_budget = Budget(settings.hold_connection_bytes, settings.hold_total_bytes)
        self.partials = Partials(settings.partial_total_bytes)
        self.http_connections: set[HttpConnection] = set()
        """Clients that speak HTTP; those that have become WebSockets are at their relays."""
        self.stopping = False
        """No new upgrades; HTTP connections end with the answer under way."""
        self.emptied: Callable[[], None] | None = None
        """Called when the last client has gone."""
        self._max_connections = max_connections
        self._open = 0
        self._deflaters: dict[int, Deflater] = {}
        self._last_id = 0
        self._date = ""
        self._date_until_s = 0.0

    @property
    def open_connections(self) -> int:
        """Clients connected now."""
        return self._open

    def connection_began(self) -> int:
        """A client has connected; how many more may, less than 0 if this is one too many."""
        self._open += 1
        return self._max_connections - self._open

    def connection_ended(self) -> None:
        """A client's TCP connection is over."""
        self._open -= 1
        if not self._open and self.emptied is not None:
            self.emptied()

    def new_id(self) -> int:
        """A number for a connection or request; never given twice by this process."""
        self._last_id += 1
        return self._last_id

    def deflater(self, bits: int) -> Deflater:
        """The compressor for that window; shared, as no connection has a context of its own."""
        deflater = self._deflaters.get(bits)
        if deflater is None:
            deflater = self._deflaters[bits] = Deflater(bits)
        return deflater

    def date(self) -> str:
        """The value of a ``Date`` header now."""
        now_s = self.deadlines.now_s
        if now_s >= self._date_until_s:
            self._date = formatdate(self.clock.wall_s(), usegmt=True)
            self._date_until_s = now_s + 1.0
        return self._date
