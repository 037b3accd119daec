"""Client ends that are used in this process: of a socket whose server end an object holds.

``client, server = WebSocketPair()``: usually the client end leaves in a response and a gateway's
connection takes its place. But an app may accept it too: an entry point or an object that has got
it from ``stub.fetch``, or an object that talks to itself. Then this process does what a gateway
does, with the same records: it *attaches* a connection to the exported server end, over the link to
the object's shard or, when that is this one, over a :class:`SocketLoop`. So a server end never
knows what it is connected to, and hibernates just the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from common.close_reasons import LOST_TEXT, UNCAUGHT
from common.link.records import (
    ATTACH,
    BLOB_FRAME,
    CLOSE,
    CLOSED,
    FRAMES,
    PAUSE,
    RESUME,
    SETTLED,
    UNSETTLED,
    Record,
)
from common.link.session import CONGESTED_BYTES
from shard.inbox import Inbox
from shard.outgoing import SocketLimits
from workers.events import CloseEvent, ErrorEvent, Event
from workers.websocket import LOST, NO_STATUS, WebSocket

if TYPE_CHECKING:
    from shard.sockets import SocketTable

KINDS: Final = frozenset({FRAMES, BLOB_FRAME, CLOSE, PAUSE, RESUME, SETTLED, UNSETTLED})
"""The records that a server end sends."""


class Wire(Protocol):
    """The way to a server end: a link, or the loop."""

    @property
    def is_open(self) -> bool:
        """Records sent now have a chance to arrive."""

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait for the other end's credit."""

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        """Send a record, behind all that were sent before."""

    @property
    def unicast(self) -> Callable[[int, str | bytes], None]:
        """Send one message."""


class ClientSocket:
    """The port of one client end that is used here."""

    def __init__(
        self, ws: WebSocket, wire: Wire, connection: int, clients: Clients, owner: Any
    ) -> None:
        self.ws = ws
        self.wire = wire
        self.connection = connection
        self.ended = False
        self._clients = clients
        self._limits = clients.limits
        self._owner = owner
        self._inbox = Inbox(ws, self, clients.loop)
        self._paused = False
        self._kept: deque[str | bytes | tuple[int, str]] = deque()
        self._kept_bytes = 0
        self._close_timer: asyncio.TimerHandle | None = None
        owner.slot.sockets.add(self)
        owner.regular_sockets.add(ws)

    # --- out: the app's socket sends (SocketPort) ----------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Pass a message on; one that the object cannot take now is kept, within bounds."""
        if self.ended:
            return
        if self._may_send and not self._kept:
            self.wire.unicast(self.connection, message)
            return
        self._kept.append(message)
        self._kept_bytes += len(message)
        if self._kept_bytes > self._limits.unsent_bytes:
            self._lose(1013, "the other end reads too slowly")

    def close(self, code: int | None, reason: str) -> None:
        """Pass the Close on, behind what is kept."""
        if self.ended:
            return
        self._kept.append((NO_STATUS if code is None else code, reason))
        self.flush()
        if not self.ended and self._close_timer is None:
            self._close_timer = self._clients.loop.call_later(
                self._limits.close_timeout_s, self._gave_up
            )

    def enqueue(self, event: Event) -> None:
        self._inbox.put(event)

    @property
    def _may_send(self) -> bool:
        return not self._paused and self.wire.queued_bytes < CONGESTED_BYTES

    def flush(self) -> None:
        """Pass on what was kept, as far as that is possible now."""
        while self._kept and self._may_send and not self.ended:
            item = self._kept.popleft()
            if isinstance(item, tuple):
                self._send_close(*item)
            else:
                self._kept_bytes -= len(item)
                self.wire.unicast(self.connection, item)

    def _send_close(self, code: int, reason: str) -> None:
        self.wire.send([CLOSED, self.connection, code, reason, True])
        if self.ws.ended:
            self._finish()

    # --- in: the server end's records ----------------------------------------------------------

    def arrived(self, message: str | bytes) -> None:
        """A message has come."""
        event = self.ws.arrived(message)
        if event is not None:
            self._inbox.put(event)

    def closed(self, code: int | None, reason: str) -> None:
        """The server end has sent Close."""
        event = self.ws.closed_by_peer(NO_STATUS if code is None else code, reason, True)
        if event is not None:
            self._inbox.put(event)
        if self.ws.close_sent and not self._kept:
            self._finish()

    def hold(self, paused: bool) -> None:
        """The object has enough to do, so that what is sent must be kept; or no longer."""
        self._paused = paused
        self.flush()

    def lost(self, text: str = LOST_TEXT) -> None:
        """The server end will never be reached again."""
        self._lose(LOST, text)

    def reset(self) -> None:
        """The owner is gone: the server end is told, the owner's old code is not."""
        self._inbox.close()
        self._tell_lost()
        self._finish()

    # --- what becomes of the events (InboxPort) ------------------------------------------------

    def inbox_changed(self) -> None:
        # The server end's code cannot be made to wait: like a gateway, bound what it may pile up.
        if self._inbox.waiting_bytes > self._limits.unsent_bytes:
            self._lose(1013, "this end reads too slowly")

    def inbox_refused(self) -> None:
        self._lose(1013, "the object is overloaded")

    def listener_raised(self, error: BaseException) -> None:
        self._inbox.put(ErrorEvent(f"Uncaught {type(error).__name__}: {error}", error, self.ws))
        if not self.ws.close_sent:
            self.ws.close(*UNCAUGHT[:2])

    def listeners_closed(self, event: CloseEvent) -> None:
        """Answer the Close of the server end if the app did not."""
        if event.wasClean and not self.ws.close_sent and not self.ended:
            self.ws.close(None if event.code == NO_STATUS else event.code)

    # --- the end -------------------------------------------------------------------------------

    def _gave_up(self) -> None:
        self._lose(LOST, "the closing handshake took too long")

    def _lose(self, code: int, text: str) -> None:
        if self.ended:
            return
        self._tell_lost()
        self._finish()
        event = self.ws.closed_by_peer(code, text, False)
        if event is not None:
            self._inbox.put(event)

    def _tell_lost(self) -> None:
        if self.wire.is_open and not self.ended:
            self.wire.send([CLOSED, self.connection, LOST, LOST_TEXT, False])

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._kept.clear()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._clients.forget(self)
        self._owner.slot.sockets.discard(self)
        self._owner.regular_sockets.discard(self.ws)


class Clients:
    """All client ends that are used in this process, by wire and connection."""

    def __init__(self, limits: SocketLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.loop = loop
        self._next_connection = 1
        self._open: dict[Wire, dict[int, ClientSocket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def attach(self, ws: WebSocket, wire: Wire, address: list[Any], owner: Any) -> None:
        """Join *ws*, which *owner* has accepted, to the exported server end at *address*.

        Args:
            ws: the client end.
            wire: leads to the shard of the server end.
            address: ``[shard, socket id, generation]``.
            owner: see :class:`shard.inbox.SocketOwner`.
        """
        connection = self._next_connection
        self._next_connection += 1
        port = ClientSocket(ws, wire, connection, self, owner)
        self._open.setdefault(wire, {})[connection] = port
        wire.send([ATTACH, address[1], connection, address[2]])
        ws.connect(port)

    def abandon(self, wire: Wire, address: list[Any]) -> None:
        """Tell the exported server end at *address* that nobody will ever attach to it."""
        connection = self._next_connection
        self._next_connection += 1
        wire.send([ATTACH, address[1], connection, address[2]])
        wire.send([CLOSED, connection, LOST, LOST_TEXT, False])

    def record(self, wire: Wire, record: Record) -> None:
        """Handle a record of a server end; one for a socket that is over is ignored."""
        ports = self._open.get(wire)
        if ports is None:
            return
        kind = record[0]
        if kind == FRAMES:
            for target, payload in zip(record[1], record[2], strict=True):
                for port in _found(ports, target):
                    port.arrived(payload)
        elif kind == BLOB_FRAME:
            message = str(record[2], "utf-8") if record[3] else bytes(record[2])
            for port in _found(ports, record[1]):
                port.arrived(message)
        elif kind == CLOSE:
            for port in _found(ports, record[1]):
                port.closed(record[2], record[3])
        elif kind in (PAUSE, RESUME):
            for port in _found(ports, record[1]):
                port.hold(kind == PAUSE)

    def wire_writable(self, wire: Wire) -> None:
        """The wire was congested and no longer is."""
        for port in list(self._open.get(wire, {}).values()):
            port.flush()

    def wire_down(self, wire: Wire) -> None:
        """The other shard is gone, and with it the server ends."""
        for port in list(self._open.pop(wire, {}).values()):
            port.lost()

    def forget(self, port: ClientSocket) -> None:
        """Drop a client end that is over."""
        ports = self._open.get(port.wire)
        if ports is not None:
            ports.pop(port.connection, None)
            if not ports:
                del self._open[port.wire]


def _found(ports: dict[int, ClientSocket], target: int | list[int]) -> list[ClientSocket]:
    connections = target if type(target) is list else (target,)
    return [ports[each] for each in connections if each in ports]


class SocketLoop:
    """One direction of the way between two ends in this process.

    Records arrive in order, in the next callback of the event loop: never from within the code
    that sends them.
    """

    is_open = True
    queued_bytes = 0
    """Nothing waits for longer than a turn of the event loop."""

    def __init__(
        self, receive: Callable[[list[Record]], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._receive = receive
        self._loop = loop
        self._records: list[Record] = []

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        """Pass a record on."""
        self._records.append(record)
        if len(self._records) == 1:
            self._loop.call_soon(self._flush)

    def urgent(self, record: Record) -> None:
        """The same: nothing ever waits here."""
        self.send(record)

    def unicast(self, target: int, payload: str | bytes) -> None:
        """Pass a message on."""
        self.send([FRAMES, [target], [payload]])

    multicast = unicast

    def _flush(self) -> None:
        records, self._records = self._records, []
        self._receive(records)


def serve_loop(sockets: SocketTable, line: SocketLoop, records: list[Record]) -> None:
    """Handle what client ends of this process send to server ends of this process.

    Args:
        sockets: those server ends.
        line: where they send to.
        records: in order.
    """
    link: Any = line
    for record in records:
        if record[0] == ATTACH:
            sockets.attach(link, record[1], record[2])
        elif record[0] == FRAMES:
            for connection, payload in zip(record[1], record[2], strict=True):
                if (socket := sockets.of(link).get(connection)) is not None:
                    socket.arrived(payload)
        elif record[0] == CLOSED and (socket := sockets.of(link).get(record[1])) is not None:
            socket.closed(*record[2:])
