"""The server ends of WebSockets: between an app's ``WebSocket`` and a gateway's connection.

A server end is *exported* when its pair's client end leaves the object in a 101 response: it gets an id, which
travels back to the gateway. The gateway then *attaches* its connection to that id over its own link
to this shard; from there on frames flow both ways by connection id. What the app sends before that
waits here, in order.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from common.link.driver import Link
from common.link.records import CLOSE, PAUSE, RESUME, SETTLED, UNSETTLED
from shard.slot import EVENT_OVERHEAD_BYTES, Pending
from workers.events import Bytes, CloseEvent, ErrorEvent, Event, MessageEvent
from workers.websocket import LOST, NO_STATUS, WebSocket

if TYPE_CHECKING:
    from shard.activation import Activation

log = structlog.get_logger(__name__)

ATTACH_TIMEOUT_S: Final = 10.0
"""How long an exported socket waits for its gateway before it counts as lost."""
LOST_TEXT: Final = "WebSocket disconnected without sending Close frame."
MAX_UNATTACHED_BYTES: Final = 16 << 20


class ServerSocket:
    """The port of a server end, and the mouth through which its events come in."""

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "_open_handlers",
        "_paused",
        "_table",
        "_timer",
        "_waiting_bytes",
        "connection",
        "ended",
        "id",
        "link",
        "ws",
    )

    def __init__(self, table: SocketTable, socket_id: int, ws: WebSocket) -> None:
        self.id = socket_id
        self.ws = ws
        self.link: Link | None = None
        self.connection = -1
        self.ended = False
        self._table = table
        self._kept: list[Any] | None = []
        self._kept_bytes = 0
        self._open_handlers = 0
        self._waiting_bytes = 0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    # --- out: the app's socket sends (SocketPort) ----------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Pass a message on to the gateway, or keep it until that is known."""
        if self.link is not None:
            self.link.multicast(self.connection, message)
        elif self._kept is not None:
            self._kept_bytes += len(message)
            if self._kept_bytes > MAX_UNATTACHED_BYTES:
                self.lost("too much was sent before the connection was established")
            else:
                self._kept.append(message)

    def close(self, code: int | None, reason: str) -> None:
        """Pass the app's Close on."""
        if self.link is not None:
            self.link.send([CLOSE, self.connection, code, reason])
            if self.ws.ended:
                self._forget()
        elif self._kept is not None:
            self._kept.append((code, reason))

    # --- in: from the gateway ------------------------------------------------------------------

    def attach(self, link: Link, connection: int) -> None:
        """A gateway's connection is the other end now: send it what was kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept, self._kept = self._kept or [], None
        self.link, self.connection = link, connection
        for item in kept:
            if type(item) is tuple:
                link.send([CLOSE, connection, *item])
            else:
                link.multicast(connection, item)
        self.ws.divert(partial(link.multicast, connection))

    def arrived(self, message: str | bytes) -> None:
        """A message has come (hot path)."""
        ws = self.ws
        activation: Any = ws.host
        if activation is None or not activation.free or ws.keeps_events:
            self._arrived_early(message)
            return
        event = MessageEvent(message if isinstance(message, str) else Bytes(message), ws)
        activation.message(self, ws, ws._message_listeners, event)

    def _arrived_early(self, message: str | bytes) -> None:
        """The object is busy, or has not accepted the socket yet."""
        event = self.ws.arrived(message)
        if event is not None:
            self.enqueue(event)

    def enqueue(self, event: Event) -> None:
        """Deliver an event as soon as the object is free."""
        size = EVENT_OVERHEAD_BYTES
        if type(event) is MessageEvent:
            size += len(event.data)
        self._count(size)

        def start(activation: Activation) -> None:
            self._count(-size)
            activation.deliver(self, self.ws, event)

        owner: Any = self.ws.host
        owner.slot.deliver(Pending(size, start, lambda error: self._count(-size)))

    def closed(self, code: int, reason: str, was_clean: bool) -> None:
        """The client has sent Close, or is gone."""
        event = self.ws.closed_by_peer(code, reason, was_clean)
        if event is not None:
            self.enqueue(event)
        if self.ws.close_sent or not was_clean:
            self._forget()

    def lost(self, text: str = LOST_TEXT) -> None:
        """The client will never be reached again: its gateway died or never came."""
        self.closed(LOST, text, False)

    def reset(self) -> None:
        """The object was reset: the client is told, the app's old code is not."""
        if self.link is not None and not self.ended:
            self.link.send([CLOSE, self.connection, 1011, "Durable Object was reset"])
        self._forget()

    # --- what became of the handlers -----------------------------------------------------------

    def listeners_closed(self, event: CloseEvent) -> None:
        """The close listeners have finished: answer the client's Close if the app did not."""
        if event.wasClean and not self.ws.close_sent and not self.ended:
            if event.code == NO_STATUS:
                self.ws.close()
            else:
                self.ws.close(event.code)

    def listener_raised(self, error: BaseException) -> None:
        """A message listener raised: the connection ends, the object goes on (RFC 6455 §7.4.1)."""
        text = f"Uncaught {type(error).__name__}: {error}"
        self.enqueue(ErrorEvent(text, error, self.ws))
        if not self.ws.close_sent:
            self.ws.close(1011, "Uncaught exception in a message listener")

    def handler_suspended(self) -> None:
        """A message's handler goes on later: until then its frame counts as not handled."""
        self._open_handlers += 1
        self._count(EVENT_OVERHEAD_BYTES)
        if self._open_handlers == 1 and self.link is not None:
            self.link.urgent([UNSETTLED, [self.connection]])

    def handler_ended(self) -> None:
        """… and has ended."""
        self._open_handlers -= 1
        self._count(-EVENT_OVERHEAD_BYTES)
        if self._open_handlers == 0 and self.link is not None and not self.ended:
            self.link.urgent([SETTLED, [self.connection]])

    def _count(self, size: int) -> None:
        """Keep account of what waits, and stop the gateway reading when it is too much."""
        self._waiting_bytes += size
        limit = self._table.max_waiting_bytes
        if self.link is None or self.ended:
            return
        if not self._paused and self._waiting_bytes > limit:
            self._paused = True
            self.link.urgent([PAUSE, [self.connection]])
        elif self._paused and self._waiting_bytes <= limit // 2:
            self._paused = False
            self.link.urgent([RESUME, [self.connection]])

    def _forget(self) -> None:
        if not self.ended:
            self.ended = True
            self._kept = None
            if self._timer is not None:
                self._timer.cancel()
            self._table.forget(self)


class SocketTable:
    """All server ends of a shard: by id until they are attached, then by link and connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_waiting_bytes: int) -> None:
        self.max_waiting_bytes = max_waiting_bytes
        self._loop = loop
        self._next_id = 1
        self._exported: dict[int, ServerSocket] = {}
        self._attached: dict[Link, dict[int, ServerSocket]] = {}

    def __len__(self) -> int:
        return len(self._exported) + sum(map(len, self._attached.values()))

    def export(self, ws: WebSocket) -> int:
        """Give a server end an id by which a gateway can attach to it within the time limit."""
        socket = ServerSocket(self, self._next_id, ws)
        self._next_id += 1
        self._exported[socket.id] = socket
        socket._timer = self._loop.call_later(ATTACH_TIMEOUT_S, self._expired, socket)
        owner: Any = ws.host
        if owner is not None:
            owner.slot.sockets.add(socket)
        ws.connect(socket)
        return socket.id

    def attach(self, link: Link, socket_id: int, connection: int) -> None:
        """Join a gateway's connection to an exported socket; an unknown one is closed 1012."""
        socket = self._exported.pop(socket_id, None)
        if socket is None:
            link.send([CLOSE, connection, 1012, "The object is no longer there"])
            return
        self._attached.setdefault(link, {})[connection] = socket
        socket.attach(link, connection)

    def of(self, link: Link) -> dict[int, ServerSocket]:
        """The sockets whose connections come over that link, by connection id."""
        return self._attached.setdefault(link, {})

    def link_down(self, link: Link) -> None:
        """A gateway is gone, and with it its clients."""
        for socket in list(self._attached.pop(link, {}).values()):
            socket.lost()

    def withdraw(self, socket_id: int) -> None:
        """An exported socket will not be attached: the response that carried it was dropped."""
        socket = self._exported.get(socket_id)
        if socket is not None:
            self._expired(socket)

    def forget(self, socket: ServerSocket) -> None:
        """Drop a socket that has ended."""
        self._exported.pop(socket.id, None)
        if socket.link is not None:
            self._attached.get(socket.link, {}).pop(socket.connection, None)
        activation: Any = socket.ws.host
        if activation is not None:
            activation.slot.sockets.discard(socket)
            activation.regular_sockets.discard(socket.ws)

    def _expired(self, socket: ServerSocket) -> None:
        self._exported.pop(socket.id, None)
        socket.lost()
