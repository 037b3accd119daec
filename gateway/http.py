"""One client's HTTP/1.1 connection: requests in order, answers in order, until it is a WebSocket.

One request at a time: what comes behind it waits, within a bound, until it has been answered. All
that belongs to a request is in its :class:`~gateway.exchange.Exchange`, so a connection that waits
for one holds next to nothing.

::

           a whole head           answered, kept alive
    IDLE ───────────────▶ BUSY ───────────────────────▶ IDLE
      │                    │
      │ bad head           ├─ 101 ─────────▶ OVER: a Connection takes the transport
      │                    └─ answered, to be closed ─┐
      └──▶ LINGERING ◀────────────────────────────────┘  the client may still be sending
"""

from __future__ import annotations

import asyncio
import enum
import math
from typing import TYPE_CHECKING, Final, Protocol, cast

from gateway import handshake
from gateway.connection import Connection
from gateway.deadlines import TICK_S
from gateway.exchange import Exchange
from gateway.handshake import Accept
from gateway.lobby import Lobby
from gateway.refusal import RETRY, Refusal, unavailable
from gateway.request_body import MalformedBodyError
from gateway.request_head import BadHeadError, HeadParser, RequestHead
from gateway.responses import encode_refusal
from gateway.target import absolute_url

if TYPE_CHECKING:
    from gateway.context import Context
    from gateway.deflate import Deflate
    from gateway.relay import Relay

HELD_BYTES: Final = 64 * 1024
"""Bytes of pipelined requests that may wait; beyond, reading pauses."""
STEPS_PER_TURN: Final = 32
"""Heads that are read before other connections have their turn; a piece of a body is half of it."""
LINGERING_CLIENTS: Final = 32
"""How many clients beyond MAX_CONNECTIONS are told why; what comes on top is cut off."""


NO_SHARD: Final = "ERROR: No shard is up just now."


class Routes(Protocol):
    """Where requests go; :class:`gateway.router.Router` in a running gateway."""

    lobby: Lobby
    """Where they wait while no shard is up."""

    def pick(self) -> Relay | None:
        """The shard whose entry point takes the next request; ``None`` if none is up."""

    def relay(self, shard: int) -> Relay | None:
        """The relay to that shard, if there is such a shard."""

    def abandon(self, socket: list[int]) -> None:
        """Tell an object that the client of a socket it has accepted is gone."""


class State(enum.Enum):
    """Where an HTTP connection stands."""

    IDLE = "waits for a request"
    BUSY = "a request is under way"
    LINGERING = "has said its last word; discards what comes until the client ends, too"
    OVER = "closed, or a WebSocket now"


class HttpConnection(asyncio.Protocol):
    """A client's connection.

    Args:
        context: of this gateway.
        router: where requests go.
    """

    __slots__ = (
        "_client",
        "_clogged_bytes",
        "_closes",
        "_deadline_s",
        "_eof",
        "_exchange",
        "_held",
        "_next_turn",
        "_parser",
        "_paused",
        "_pumping",
        "_state",
        "_waiting",
        "context",
        "is_clogged",
        "router",
        "slot",
        "transport",
    )

    def __init__(self, context: Context, router: Routes) -> None:
        self.context = context
        self.router = router
        self.transport: asyncio.Transport | None = None
        self.slot = 0
        self.is_clogged = False
        """The client reads slowly: part of the answer waits in the transport."""
        self._state = State.IDLE
        self._parser: HeadParser | None = None
        self._exchange: Exchange | None = None
        self._held = b""
        self._paused = False
        self._pumping = False
        self._next_turn = False
        self._clogged_bytes = 0
        self._eof = False
        self._waiting: tuple[RequestHead, str, Accept | None] | None = None
        self._closes = False  # the answer under way has said that it is the last one
        self._client: str | None = None
        self._deadline_s = math.inf

    # --- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self.transport = transport
        context = self.context
        context.counters.accepted.value += 1
        context.http_connections.add(self)
        room = context.connection_began()
        if room < -LINGERING_CLIENTS:
            self.break_off()
            return
        if room < 0:
            text = "ERROR: This gateway has all the connections it may have."
            self._refuse(Refusal(503, text, RETRY), lingers=True)
            return
        self._within(context.settings.head_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Read requests, or the body of one."""
        if self._state not in (State.LINGERING, State.OVER):
            self._held = self._held + data if self._held else data
            self._pump()

    def eof_received(self) -> bool:
        """The client will send no more, but may wait for an answer."""
        if self._state is State.BUSY and self._exchange is not None:
            self._eof = True
            return not self._exchange.is_receiving
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._waiting is not None:
            self._waiting = None
            self.router.lobby.leave(self)
        self._leave()
        self.context.connection_ended()

    def pause_writing(self) -> None:
        """The client reads the answer slowly."""
        self.is_clogged = True
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_clogged = False
        self._deadline_s = math.inf
        if self._exchange is not None:
            self._exchange.drained()

    # --- requests ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Take what can be taken from what has come. Never recurses."""
        if self._pumping or self._next_turn:
            return
        self._pumping = True
        try:
            steps = STEPS_PER_TURN
            while steps > 0 and self._held and self._wants_more:
                data, self._held = self._held, b""
                if self._state is State.IDLE:
                    self._read_head(data)
                    steps -= 1
                else:
                    self._read_body(data)
                    steps -= STEPS_PER_TURN // 2
            if self._held and self._wants_more:  # one client must not keep the others waiting
                self._next_turn = True
                asyncio.get_running_loop().call_soon(self._go_on)
        finally:
            self._pumping = False
        self._start_or_stop_reading()

    def _go_on(self) -> None:
        self._next_turn = False
        self._pump()

    @property
    def _wants_more(self) -> bool:
        """What comes next can be used now."""
        if self._state is not State.BUSY:
            return self._state is State.IDLE
        exchange = self._exchange
        return exchange is not None and exchange.is_receiving and not exchange.is_blocked

    def _start_or_stop_reading(self) -> None:
        if self._state is State.OVER or self.transport is None:
            return
        if self._state is State.LINGERING:
            reads = True
        elif self._next_turn or self._waiting is not None:
            reads = False
        elif self._exchange is not None and self._exchange.is_receiving:
            reads = not self._exchange.is_blocked
        else:
            reads = len(self._held) <= HELD_BYTES
        if reads is self._paused and not self.transport.is_closing():
            self._paused = not reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _read_body(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            self._held = exchange.feed(data)
        except MalformedBodyError as error:
            exchange.refused(Refusal(400, f"ERROR: Bad request: {error}."))
        else:
            self._watch_body(exchange)

    def _read_head(self, data: bytes) -> None:
        settings = self.context.settings
        parser = self._parser
        if parser is None:
            parser = self._parser = HeadParser(
                settings.max_head_bytes, settings.max_headers, settings.max_url_bytes
            )
            self._within(settings.head_timeout_s)
        try:
            head, rest = parser.feed(data)
        except BadHeadError as error:
            self._parser = None
            self._refuse(error.refusal, rest=error.rest, lingers=error.refusal.close)
            return
        if head is not None:
            self._parser = None
            self._begin(head, rest)

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        judged = self._judge(head)
        if isinstance(judged, Refusal):
            self._refuse(judged, head, rest)
            return
        relay = self.router.pick()
        if relay is not None:
            self._pass_on(relay, head, rest, *judged)
        elif not self.context.stopping and self.router.lobby.enter(self):
            self._state = State.BUSY
            self._waiting = (head, *judged)
            self._held = rest
            self._within(self.context.settings.hold_timeout_s)
        else:
            self._refuse(unavailable(NO_SHARD), head, rest)

    def admitted(self) -> None:
        """A shard is up: the request that waited for one may go on."""
        waiting, self._waiting = self._waiting, None
        relay = self.router.pick()
        assert waiting is not None
        assert relay is not None
        self._deadline_s = math.inf
        head, url, accept = waiting
        rest, self._held = self._held, b""
        self._pass_on(relay, head, rest, url, accept)
        self._pump()

    def _waited_in_vain(self) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        self.router.lobby.leave(self)
        rest, self._held = self._held, b""
        self._refuse(unavailable(NO_SHARD), waiting[0], rest)

    def _pass_on(
        self, relay: Relay, head: RequestHead, rest: bytes, url: str, accept: Accept | None
    ) -> None:
        self._state = State.BUSY
        self._closes = head.close or self.context.stopping
        if accept is not None:
            self._within(self.context.settings.upgrade_timeout_s)
        self.context.counters.requests.value += 1
        self._exchange = exchange = Exchange(self, head, accept, relay)
        try:
            self._held = exchange.start(url, rest)
            self._watch_body(exchange)
        except MalformedBodyError as error:
            self._exchange = None
            self._state = State.IDLE
            self._refuse(Refusal(400, f"ERROR: Bad request: {error}."), head, lingers=True)

    def _judge(self, head: RequestHead) -> tuple[str, Accept | None] | Refusal:
        host = head.host
        if not host and head.version < (1, 1):
            host = self._own_host()
        url = absolute_url(head.target, host)
        if isinstance(url, Refusal):
            return url
        accept = handshake.check(
            head.method,
            head.version,
            head.headers,
            has_body=head.has_body,
            compression=self.context.settings.compression,
        )
        if isinstance(accept, Refusal):
            return accept
        if accept is not None and self.context.stopping:
            return unavailable("ERROR: This gateway is stopping.")
        return url, accept

    def _refuse(
        self,
        refusal: Refusal,
        head: RequestHead | None = None,
        rest: bytes = b"",
        *,
        lingers: bool = False,
    ) -> None:
        """Answer without asking a shard."""
        self.context.counters.refused.value += 1
        # Who does not read a body cannot tell where the next request begins.
        unread = lingers or (head is not None and head.has_body)
        close = refusal.close or unread or self.context.stopping
        close = close or (head is not None and head.close)
        answer = Refusal(refusal.status, refusal.text, refusal.headers, close, refusal.upgrade)
        self.write(
            encode_refusal(
                answer,
                version=head.version if head is not None else (1, 1),
                date=self.context.date(),
                head=head is not None and head.method == "HEAD",
            )
        )
        self._held = rest
        self.exchange_over(close=close, unread=unread)

    def _watch_body(self, exchange: Exchange) -> None:
        """The rest of a body must come in time, too, unless it is we who do not read it."""
        if exchange.is_receiving and not exchange.is_blocked:
            self._within(self.context.settings.head_timeout_s)
        elif exchange.accept is None:
            self._deadline_s = math.inf

    # --- for the exchange ----------------------------------------------------------------------

    @property
    def client(self) -> str | None:
        """The client's address."""
        if self._client is None and self.transport is not None:
            peer = self.transport.get_extra_info("peername")
            self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        return self._client or None

    @property
    def closes(self) -> bool:
        """The answer must be the last one."""
        return self._closes or self.context.stopping

    def write(self, data: bytes) -> None:
        """Send part of an answer."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def body_unblocked(self, exchange: Exchange) -> None:
        """The shard has consumed what it was sent of the request's body."""
        self._watch_body(exchange)
        self._pump()

    def answering(self, last: bool) -> None:
        """The head of a streamed answer is out."""
        self._closes = self._closes or last
        self._deadline_s = math.inf

    def break_off(self) -> None:
        """The answer cannot be completed: end the connection, so that the client notices."""
        self._exchange = None
        if self.transport is not None:
            self.transport.abort()
        self._leave()

    def exchange_over(self, *, close: bool, unread: bool) -> None:
        """A request has been answered.

        Args:
            close: the connection ends with it.
            unread: the client may still be sending the request.
        """
        self._exchange = None
        transport = self.transport
        assert transport is not None
        if not (close or self._closes or (self._eof and not self._held)):
            self._state = State.IDLE
            self._within(self.context.settings.keepalive_timeout_s)
            self._pump()
            return
        if unread and not self._eof and not transport.is_closing():
            self._state = State.LINGERING
            self._held = b""
            self._within(self.context.settings.close_timeout_s)
            self._start_or_stop_reading()
            transport.write_eof()
            return
        flushing = transport.get_write_buffer_size() > 0
        transport.close()
        self._leave(flushing=flushing)

    def switch(self, head: bytes, relay: Relay, socket: list[int], deflate: Deflate | None) -> None:
        """Answer 101 and hand the transport over to a WebSocket."""
        transport = self.transport
        assert transport is not None
        self._exchange = None
        held, eof = self._held, self._eof
        self._leave()
        if transport.is_closing():
            self.router.abandon(socket)
            return
        self.transport = None
        transport.write(head)
        connection = Connection(self.context.new_id(), relay, transport, deflate)
        transport.set_protocol(connection)
        relay.attach(connection, socket[1], socket[2])
        self.context.counters.upgraded.value += 1
        if self._paused:
            transport.resume_reading()
        if held:
            connection.data_received(held)
        if eof and not connection.eof_received():
            transport.close()

    # --- for the gateway -----------------------------------------------------------------------

    def stop(self) -> None:
        """The gateway stops: end now unless a request is under way."""
        self._closes = True
        if self._state is State.IDLE and self.transport is not None:
            self.transport.close()
            self._leave()

    def drop(self) -> None:
        """End now, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    def due(self, now_s: float) -> float:
        """Some deadline has passed."""
        if now_s < self._deadline_s:
            return self._deadline_s
        transport = self.transport
        if transport is None:
            return math.inf
        exchange = self._exchange
        if self._waiting is not None:
            self._waited_in_vain()
            return self._deadline_s
        if self.is_clogged and transport.get_write_buffer_size() < self._clogged_bytes:
            self._wait_for_reader()  # slow, but it reads
        elif self._state is State.BUSY and exchange is not None and not self.is_clogged:
            if exchange.accept is not None:
                exchange.timed_out()
            else:
                exchange.refused(Refusal(408, "ERROR: The request's body did not come in time."))
        elif self._state is State.IDLE and not self.is_clogged:
            transport.close()
            self._leave()
        else:
            transport.abort()
        return self._deadline_s

    # --- inside --------------------------------------------------------------------------------

    def _within(self, timeout_s: float) -> None:
        """Something must happen within that time."""
        deadlines = self.context.deadlines
        self._deadline_s = at_s = deadlines.now_s + timeout_s
        # An entry that comes too early is harmless: due() says when to ask again.
        if not self.slot or at_s < self.slot * TICK_S:
            deadlines.set(self, at_s)

    def _wait_for_reader(self) -> None:
        assert self.transport is not None
        self._clogged_bytes = self.transport.get_write_buffer_size()
        self._within(self.context.settings.head_timeout_s)

    def _leave(self, *, flushing: bool = False) -> None:
        """Nothing more will be read here."""
        self._state = State.OVER
        self._held = b""
        self._parser = None
        self.context.http_connections.discard(self)
        if flushing:
            self._within(self.context.settings.close_timeout_s)
        elif self.slot:
            self.context.deadlines.cancel(self)

    def _own_host(self) -> str:
        assert self.transport is not None
        name = self.transport.get_extra_info("sockname")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) == 2 else "localhost"
