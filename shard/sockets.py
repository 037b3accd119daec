"""The server ends of WebSockets: between an app's ``WebSocket`` and a gateway's connection.

A server end is *exported* when its pair's client end leaves the object in a 101 response: it gets
an id, which travels back to the gateway. The gateway then *attaches* its connection to that id over
its own link to this shard; from there on frames flow both ways by connection id. What the app sends
before that waits here, in order.

A regular socket (``accept()``) is a :class:`ServerSocket`: it lives and ends with its object's
activation. A hibernatable one is a :class:`shard.held.HeldSocket`, which outlives it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, cast

import structlog

from common.close_reasons import (
    LOST_TEXT,
    NOT_THERE,
    OVERLOADED,
    OVERLOADED_TEXT,
    RESET,
    RESTARTING,
    UNCAUGHT,
)
from common.errors import Overloaded
from common.link.driver import Link
from common.link.records import CLOSE
from shard.slot import EVENT_OVERHEAD_BYTES, Pending
from shard.socket_end import SocketEnd
from workers.events import Bytes, CloseEvent, ErrorEvent, Event, MessageEvent
from workers.websocket import HELD, LOST, NO_STATUS, WebSocket, outputs_of

log = structlog.get_logger(__name__)

ATTACH_TIMEOUT_S: Final = 10.0
"""How long an exported socket waits for its gateway before it counts as lost."""


class ServerSocket(SocketEnd):
    """The port of a server end, and the mouth through which its events come in."""

    __slots__ = ("_kept_frames", "ws")

    def __init__(self, table: SocketTable, socket_id: int, ws: WebSocket) -> None:
        super().__init__(table, socket_id)
        self.ws = ws
        self._kept = []
        self._kept_frames = 0

    # --- out: the app's socket sends (SocketPort) ----------------------------------------------

    def close(self, code: int | None, reason: str) -> None:
        """Pass the app's Close on."""
        if self.ended:
            return
        if self.link is not None:
            self.link.send([CLOSE, self.connection, code, reason])
            if self.ws.ended:
                self._forget()
        elif self._kept is not None:
            self._kept.append((code, reason))

    # --- in: from the gateway ------------------------------------------------------------------

    def attach(self, link: Link, connection: int) -> None:
        """A gateway's connection is the other end now: send it what was kept."""
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
        elif not self.ended:
            self._kept_frames += 1
            self.handler_suspended(len(message))

    def enqueue(self, event: Event) -> None:
        """Deliver an event as soon as the object is free."""
        owner: Any = self.ws.host
        if owner.dead:
            return
        if type(event) is MessageEvent:
            self._enqueue_message(owner, event)
        else:
            # Of no size: it must arrive, however much else waits.
            owner.slot.deliver(
                Pending(0, lambda owner: owner.deliver(self, self.ws, event), _dropped)
            )

    def _enqueue_message(self, owner: Any, event: MessageEvent) -> None:
        size = len(event.data)
        if self._kept_frames:
            self._kept_frames -= 1  # it has been counted since it came
        else:
            self.handler_suspended(size)

        def start(owner: Any) -> None:
            owner.deliver(self, self.ws, event)
            self.handler_ended(size)

        def fail(error: BaseException) -> None:
            self.handler_ended(size)
            if isinstance(error, Overloaded):
                self._overflowed()

        owner.slot.deliver(Pending(EVENT_OVERHEAD_BYTES + size, start, fail))

    def _overflowed(self) -> None:
        """A message had to be dropped: nothing that comes after it may be delivered."""
        if not self.ended and self.link is not None:
            self.link.send([CLOSE, self.connection, *OVERLOADED[:2]])
            self._closed(LOST, OVERLOADED_TEXT, False)

    def closed(self, code: int, reason: str, was_clean: bool) -> None:
        """The client has sent Close, or is gone."""
        owner: Any = self.ws.host
        if was_clean or not self._unhandled or owner is None or owner.free or owner.dead:
            self._closed(code, reason, was_clean, tell=True)
            return
        # What it said before is still to be handled, and answered: it may be listening.

        def close(_: object) -> None:
            self._closed(code, reason, False, tell=True)

        owner.slot.deliver(Pending(0, close, close))

    def _closed(self, code: int, reason: str, was_clean: bool, *, tell: bool = False) -> None:
        """See :meth:`closed`; *tell* the gateway when all answers to a client that is gone are out.

        It waits for that, because the client may have ended only its own direction of TCP.
        """
        ws = self.ws
        tell = tell and not ws.close_sent  # whoever has the app's Close waits for nothing else
        event = ws.closed_by_peer(code, reason, was_clean)
        if event is not None:
            self.enqueue(event)
        if not was_clean:
            gate = outputs_of(ws.host)
            if not tell:
                self._forget()
            elif gate is not None and gate.held:
                gate.push(self._part)
            else:
                self._part()
        elif ws.close_sent:
            self._forget()
        elif ws.host is None and self.link is not None:
            # Nobody has accepted it, so nobody else answers (RFC 6455 §5.5.1).
            self.link.send([CLOSE, self.connection, None if code == NO_STATUS else code, ""])
            self._forget()

    def _part(self) -> None:
        """All answers are out."""
        if self.link is not None and self.link.is_open and not self.ended:
            self.link.send([CLOSE, self.connection, LOST, ""])
        self._forget()

    def lost(self, text: str = LOST_TEXT) -> None:
        """The client will never be reached again: its gateway died or never came."""
        self._closed(LOST, text, False)

    def reset(self) -> None:
        """The object was reset: the client is told, the app's old code is not."""
        if self.link is not None and not self.ended:
            self.link.send([CLOSE, self.connection, *RESET[:2]])
        self.ws.closed_by_peer(LOST, RESET.text, False)
        self._forget()

    def leave(self) -> None:
        """It ends with the activation."""
        if self.link is not None and not self.ended:
            self.link.send([CLOSE, self.connection, *RESTARTING[:2]])
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
            self.ws.close(*UNCAUGHT[:2])

    def _forget(self) -> None:
        if not self.ended:
            self.ended = True
            self._kept = None
            self.ws.divert(_dropped)
            self._table.forget(self)
            owner: Any = self.ws.host
            if owner is not None:
                owner.slot.sockets.discard(self)
                owner.regular_sockets.discard(self.ws)


def _dropped(what: object) -> None:
    """Where goes what nobody can get any more."""


class SocketTable:
    """All server ends of a shard: by id until they are attached, then by link and connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_waiting_bytes: int) -> None:
        self.max_waiting_bytes = max_waiting_bytes
        self._loop = loop
        # Not from 1: an id of a process that has ended must mean nothing to its successor.
        self._last_id = secrets.randbits(32) << 20
        self._exported: dict[int, SocketEnd] = {}
        self._attached: dict[Link, dict[int, SocketEnd]] = {}

    def __len__(self) -> int:
        return len(self._exported) + sum(map(len, self._attached.values()))

    def export(self, ws: WebSocket) -> int:
        """Give a server end an id by which a gateway can attach to it within the time limit."""
        if ws.mode == HELD:
            held = cast("SocketEnd", ws.port)
            if not held.ended:
                self._exported[held.id] = held
            return held.id
        socket = ServerSocket(self, self.new_id(), ws)
        self._exported[socket.id] = socket
        self.expect(socket)
        owner: Any = ws.host
        if owner is not None:
            owner.slot.sockets.add(socket)
        ws.connect(socket)
        return socket.id

    def new_id(self) -> int:
        """The id of one more end."""
        self._last_id += 1
        return self._last_id

    def expect(self, socket: SocketEnd) -> None:
        """A gateway must attach to that end within the time limit."""
        socket._timer = self._loop.call_later(ATTACH_TIMEOUT_S, self._expired, socket)

    def awaits_gateway(self, sockets: Iterable[SocketEnd]) -> bool:
        """Whether one of these is exported, and its gateway has not attached yet."""
        exported = self._exported
        return bool(exported) and any(socket.id in exported for socket in sockets)

    @property
    def unattached(self) -> int:
        """How many ends wait for their gateway."""
        return len(self._exported)

    def attach(self, link: Link, socket_id: int, connection: int) -> None:
        """Join a gateway's connection to an exported socket; an unknown one is closed 1012."""
        socket = self._exported.pop(socket_id, None)
        if socket is None:
            link.send([CLOSE, connection, *NOT_THERE[:2]])
            return
        self.adopt(link, connection, socket)

    def adopt(self, link: Link, connection: int, socket: SocketEnd) -> None:
        """A gateway's connection is the other end of *socket* now."""
        if socket._timer is not None:
            socket._timer.cancel()
            socket._timer = None
        self._attached.setdefault(link, {})[connection] = socket
        socket.attach(link, connection)

    def of(self, link: Link) -> dict[int, SocketEnd]:
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

    def forget(self, socket: SocketEnd) -> None:
        """Drop a socket that has ended."""
        if socket._timer is not None:
            socket._timer.cancel()
            socket._timer = None
        self._exported.pop(socket.id, None)
        if socket.link is not None:
            self._attached.get(socket.link, {}).pop(socket.connection, None)

    def _expired(self, socket: SocketEnd) -> None:
        self._exported.pop(socket.id, None)
        socket.lost()
