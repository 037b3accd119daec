"""What has come for one socket and is on its way to the listeners of whoever owns it.

Events are handed over in order and never from within the app's own code: at the earliest in the
next callback of the event loop. What the owner has not handled yet is counted in bytes, so that the
port of the socket can slow its source down, or end it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from shard.slot import EVENT_OVERHEAD_BYTES, Pending
from workers.events import CloseEvent, Event, MessageEvent

if TYPE_CHECKING:
    from workers.websocket import WebSocket


class EventQueue(Protocol):
    """Where the events of an owner wait for their turn: a slot, or what stands in for one."""

    sockets: set[Any]

    def deliver(self, event: Pending) -> None:
        """Start an event now, or behind those that wait."""


class SocketOwner(Protocol):
    """Whose code uses a socket: an activation, an entry point, a bridge."""

    @property
    def slot(self) -> EventQueue:
        """Where its events wait."""

    def deliver(self, socket: Any, target: WebSocket, event: Event) -> None:
        """Run the listeners of an event; *socket* is told how they ended (:class:`Delivery`)."""


class InboxPort(Protocol):
    """The port that an inbox belongs to."""

    def inbox_changed(self) -> None:
        """More waits, or less."""

    def inbox_refused(self) -> None:
        """The owner is overloaded: an event was dropped, so the socket must end."""

    def listener_raised(self, error: BaseException) -> None:
        """A message listener raised."""

    def listeners_closed(self, event: CloseEvent) -> None:
        """All close listeners have ended."""


class Inbox:
    """The events of one socket that its owner has not handled yet.

    Attributes:
        waiting_bytes: what they count for, the messages of suspended handlers included.
    """

    __slots__ = ("_closed", "_events", "_loop", "_port", "_ws", "waiting_bytes")

    def __init__(self, ws: WebSocket, port: InboxPort, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting_bytes = 0
        self._ws = ws
        self._port = port
        self._loop = loop
        self._events: deque[Delivery] = deque()
        self._closed = False

    def put(self, event: Event) -> None:
        """Deliver an event, after all that were put in before."""
        if self._closed:
            return
        # Others than messages are of no size: they must arrive, however much else waits.
        size = 0
        if type(event) is MessageEvent:
            size = EVENT_OVERHEAD_BYTES + len(event.data)
        self.waiting_bytes += size
        self._events.append(Delivery(self, event, size))
        if len(self._events) == 1:
            self._loop.call_soon(self._flush)
        self._port.inbox_changed()

    def close(self) -> None:
        """The owner is gone: deliver nothing more."""
        self._closed = True
        self._events.clear()

    def _flush(self) -> None:
        owner: Any = self._ws.host
        while self._events:
            self._events.popleft().post(owner)

    def _start(self, delivery: Delivery, owner: SocketOwner) -> None:
        if self._closed:
            delivery.release()
            return
        try:
            owner.deliver(delivery, self._ws, delivery.event)
        finally:
            delivery.release()


class Delivery:
    """One event on its way; the activation tells it what becomes of the handlers."""

    __slots__ = ("_inbox", "_open", "_size", "event")

    def __init__(self, inbox: Inbox, event: Event, size: int) -> None:
        self.event = event
        self._inbox = inbox
        self._size = size
        self._open = 1

    def post(self, owner: SocketOwner) -> None:
        """Put it into the owner's queue."""
        owner.slot.deliver(
            Pending(self._size, lambda owner: self._inbox._start(self, owner), self._failed)
        )

    def release(self) -> None:
        """One of those that work on it has finished."""
        self._open -= 1
        if not self._open:
            self._inbox.waiting_bytes -= self._size
            self._inbox._port.inbox_changed()

    def _failed(self, error: BaseException) -> None:
        self.release()
        if not self._inbox._closed:
            self._inbox._port.inbox_refused()

    # --- told by the owner ---------------------------------------------------------------------

    def listener_raised(self, error: BaseException) -> None:
        self._inbox._port.listener_raised(error)

    def listeners_closed(self, event: CloseEvent) -> None:
        self._inbox._port.listeners_closed(event)

    def handler_suspended(self, size: int = 0) -> None:
        self._open += 1

    def handler_ended(self, size: int = 0) -> None:
        self.release()
