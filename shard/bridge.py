"""A bridge: an outgoing socket that an app returns, so that a client talks to a server elsewhere.

``return await fetch(request)`` with an upgrade is the usual proxy. No app code runs for its
messages. Each direction hands on message by message, and stops reading its source while its sink
has too much unsent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientError

from workers.events import CloseEvent, Event, MessageEvent
from workers.websocket import LOST, NO_STATUS, WebSocket

if TYPE_CHECKING:
    from shard.outgoing import OutgoingSocket
    from shard.slot import Pending

MAX_UNSENT_BYTES: Final = 256 * 1024
_CLIENT_LOST: Final = (1001, "the client went away")
_SERVER_LOST: Final = (1014, "the connection to the server was lost")
"""1014 is Bad Gateway in the IANA registry of close codes."""


def bridge(outgoing: WebSocket, port: OutgoingSocket, loop: asyncio.AbstractEventLoop) -> WebSocket:
    """Join *outgoing*, which nobody has accepted, to a new server end, and return that.

    Raises:
        TypeError: it is in use here.
    """
    if outgoing.host is not None:
        raise TypeError("Can't return WebSocket in a Response after calling accept().")
    server = WebSocket()
    server.host = _Direction(port, outgoing, _CLIENT_LOST, loop)
    server.accept()
    inward = outgoing.host = _Direction(None, server, _SERVER_LOST, loop)
    outgoing.accept()
    port.owned_by(inward)
    return server


class _Direction:
    """Owns one end, whose messages it sends through the other.

    Args:
        port: of the sink, if it tells when it has too much unsent.
        sink: where messages go.
        lost: code and reason for the sink when the source is lost.
    """

    free = False
    dead = False

    def __init__(
        self,
        port: OutgoingSocket | None,
        sink: WebSocket,
        lost: tuple[int, str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.slot = _Queue(self, port, loop)
        self.regular_sockets: set[WebSocket] = set()
        self._sink = sink
        self._lost = lost

    def accepted(self, socket: WebSocket) -> None:
        for event in socket.kept_events():
            socket.port.enqueue(event)

    def deliver(self, socket: Any, target: WebSocket, event: Event) -> None:
        """Hand on what has come; a Close is answered when the far end answers it."""
        sink = self._sink
        if sink.close_sent:
            return
        if type(event) is MessageEvent:
            sink.send(event.data)
        elif type(event) is CloseEvent:
            if event.code == NO_STATUS:
                sink.close()
            elif event.code == LOST or not event.wasClean:
                sink.close(*self._lost)
            else:
                sink.close(event.code, event.reason)


class _Queue:
    """The messages of one direction that wait for the sink; see :class:`shard.inbox.EventQueue`."""

    def __init__(
        self, direction: Any, port: OutgoingSocket | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sockets: set[Any] = set()
        self._direction = direction
        self._port = port
        self._loop = loop
        self._events: deque[Pending] = deque()
        self._draining: asyncio.Task[None] | None = None

    def deliver(self, event: Pending) -> None:
        self._events.append(event)
        if self._draining is None:
            self._flush()

    def _flush(self) -> None:
        port = self._port
        while self._events:
            if port is not None and port.unsent_bytes > MAX_UNSENT_BYTES and not port.ended:
                self._draining = self._loop.create_task(_drained(port), context=Context())
                self._draining.add_done_callback(self._drained)
                return
            self._events.popleft().start(self._direction)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self._draining = None
        if not task.cancelled():
            self._flush()


async def _drained(port: OutgoingSocket) -> None:
    with suppress(ClientError, OSError):  # the port tells its own socket
        await port.drain()
