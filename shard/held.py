"""Held sockets: what remains of a hibernatable WebSocket while its object is not in memory.

``ctx.acceptWebSocket(ws, tags)`` makes a :class:`HeldSocket`, the record of one connection. It
belongs to the object's slot, is told of everything that its client does, and wakes the object when
that is needed. The ``WebSocket`` that the app sees is made from it for one activation, when it is
first asked for; within a life it is always the same object. So a sleeping socket costs its record
and nothing else.

The gateway keeps a copy of the record (``HOLD``, ``ATTACHMENT``) and hands it to this process'
successor (``ADOPT``).

::

    accepted ──▶ attached ──▶ closing: webSocketClose runs ──▶ unlisted ──▶ ended
        │ no gateway came       ▲
        └───────────────────────┘
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from common.close_reasons import (
    LOST_TEXT,
    NO_FAULT,
    OVERLOADED,
    OVERLOADED_TEXT,
    RESET,
    RESTARTING,
)
from common.errors import Overloaded
from common.link.driver import Link
from common.link.records import ATTACHMENT, CLOSE, HOLD
from shard.slot import EVENT_OVERHEAD_BYTES, Pending
from shard.socket_end import SocketEnd
from workers.events import Bytes
from workers.handlers import bound_handler
from workers.websocket import LOST, NO_STATUS, WebSocket, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shard.activation import Activation
    from shard.held_sockets import HeldSockets


class HeldSocket(SocketEnd):
    """The record of one held connection, and the port of the ``WebSocket`` that stands for it.

    Args:
        held: those of its object.
        order: greater than that of every socket that the object accepted before.
        tags: what it was accepted with.
        attachment: serialized.
    """

    __slots__ = (
        "_held",
        "_left",
        "_ws",
        "answered_ms",
        "attachment",
        "close_sent",
        "is_unlisted",
        "order",
        "tags",
    )

    def __init__(
        self, held: HeldSockets, order: int, tags: tuple[str, ...], attachment: bytes | None
    ) -> None:
        super().__init__(held.table, held.table.new_id())
        self.order = order
        self.tags = tags
        self.attachment = attachment
        self.answered_ms = 0
        """When it was last answered automatically, in ms since the epoch; 0 for never."""
        self._held = held
        self.close_sent = False
        """The app has closed."""
        self.is_unlisted = False
        """It is not among those of its object any more."""
        self._left: tuple[int, str, bool] | None = None
        """How the client's side ended, once it has."""
        self._ws: WebSocket | None = None

    # --- the app's object ----------------------------------------------------------------------

    def accept(self, ws: WebSocket, activation: Activation) -> None:
        """The app has accepted *ws*: what it sends is kept until a gateway attaches."""
        self._kept = []
        self._ws = ws
        ws.hold(self.tags)
        ws.host = activation
        ws.connect(self)
        self._table.expect(self)

    def wake(self, activation: Activation) -> WebSocket:
        """The app's object in this life."""
        ws = self._ws
        if ws is None:
            ws = self._ws = WebSocket()
            ws.hold(self.tags)
            ws.host = activation
            ws.wake(self, self.attachment, close_sent=self.close_sent)
            if self._left is not None:
                ws.closed_by_peer(*self._left)
            self._divert(ws)
        return ws

    def sleep(self) -> None:
        """The activation is over: its ``WebSocket`` may not be used any more."""
        ws, self._ws = self._ws, None
        if ws is not None:
            ws.wake(_GONE, None, close_sent=True)

    def gate_sends(self) -> None:
        """The activation has an output gate from now on."""
        if self._ws is not None:
            self._ws.gate_sends()

    def _divert(self, ws: WebSocket) -> None:
        if self.ended:
            ws.divert(_dropped)
        elif self.link is not None:
            ws.divert(partial(self.link.multicast, self.connection))

    # --- out: SocketPort -----------------------------------------------------------------------

    def close(self, code: int | None, reason: str) -> None:
        """Pass the app's Close on."""
        self.close_sent = True
        if self.ended:
            return
        if self.link is not None:
            self.link.send([CLOSE, self.connection, code, reason])
            if self._left is not None:
                self._end()
        elif self._kept is not None:
            self._kept.append((code, reason))

    def attached(self, data: bytes | None) -> None:
        """Keep the app's attachment, here and at the gateway."""
        self.attachment = data
        if self.is_held_by_gateway and not self.ended:
            cast("Link", self.link).send([ATTACHMENT, self.connection, data], len(data or b""))

    def enqueue(self, event: Any) -> None:
        """Held sockets have handlers, not listeners: nothing is dispatched to those."""

    # --- in: from the gateway ------------------------------------------------------------------

    def attach(self, link: Link, connection: int) -> None:
        self.link, self.connection = link, connection
        kept, self._kept = self._kept, None
        if kept is not None and self.is_held_by_gateway:
            self._held.tell_auto_response(link)
            address, data = self._held.address, self.attachment
            link.send([HOLD, connection, address, self.tags, data, self.order], len(data or b""))
        for item in kept or ():
            if type(item) is tuple:
                link.send([CLOSE, connection, *item])
            else:
                link.multicast(connection, item)
        if self._ws is not None:
            self._divert(self._ws)

    def adopt(self, answered_ms: int, close_sent: bool) -> None:
        """A gateway hands back the record of a connection that it has held."""
        self.answered_ms = answered_ms
        self.close_sent = close_sent

    @property
    def is_held_by_gateway(self) -> bool:
        """The other end is a client's: not one that the app itself uses."""
        peer = getattr(self.link, "peer", None)
        return peer is not None and peer.role == "gateway"

    def arrived(self, message: str | bytes) -> None:
        held = self._held
        if held.auto_response is not None and held.answers(self, message):
            return
        activation = held.slot.activation
        if activation is None or not activation.free:
            self._arrived_early(message)
        else:
            activation.held_message(
                self,
                self._ws or self.wake(activation),
                message if isinstance(message, str) else Bytes(message),
            )

    def _arrived_early(self, message: str | bytes) -> None:
        """The object is busy, or asleep."""
        data = message if isinstance(message, str) else Bytes(message)

        def start(activation: Activation) -> None:
            activation.held_message(self, self.wake(activation), data)

        self._deliver(len(data), EVENT_OVERHEAD_BYTES + len(data), start)

    def _deliver(self, size: int, weight: int, start: Callable[[Activation], None]) -> None:
        """Have *start* run as soon as the object is free; until then the frame is unsettled."""

        def begin(activation: Activation) -> None:
            start(activation)
            if not activation.dead:
                activation.settle(self, size)

        def fail(error: BaseException) -> None:
            # It stays unsettled: nobody has handled it.
            if isinstance(error, Overloaded):
                self._overflowed()

        self.handler_suspended(size)
        self._held.slot.deliver(Pending(weight, begin, fail))

    def _overflowed(self) -> None:
        """A message had to be dropped: nothing that comes after it may be delivered."""
        if not self.ended and self.link is not None:
            self.link.send([CLOSE, self.connection, *OVERLOADED[:2]])
            self._closed(LOST, OVERLOADED_TEXT, False)

    # --- the end -------------------------------------------------------------------------------

    def closed(self, code: int, reason: str, was_clean: bool) -> None:
        activation = self._held.slot.activation
        free = activation is not None and activation.free
        if was_clean or not self._unhandled or free or self._left is not None:
            self._closed(code, reason, was_clean, tell=True)
            return
        # What it said before is still to be handled, and answered: it may be listening.
        self._deliver(0, 0, lambda activation: self._closed(code, reason, False, tell=True))

    def _closed(self, code: int, reason: str, was_clean: bool, *, tell: bool = False) -> None:
        """See :meth:`shard.sockets.ServerSocket._closed`."""
        if self._left is not None:
            self._end()  # it had closed, and now is gone without waiting for our answer
            return
        tell = tell and not self.close_sent
        self._left = (code, reason, was_clean)
        if self._ws is not None:
            self._ws.closed_by_peer(code, reason, was_clean)
        if tell and not was_clean:
            self._behind_answers(self._part)
        if not was_clean and reason not in NO_FAULT:
            self._deliver(0, 0, partial(self._run_error, reason))
        self._deliver(0, 0, self._run_close)
        if self.close_sent or not was_clean:
            self._end()

    def _part(self) -> None:
        """All answers are out."""
        if self.link is not None and self.link.is_open:
            self.link.send([CLOSE, self.connection, LOST, ""])

    def _run_error(self, reason: str, activation: Activation) -> None:
        error = ConnectionError(reason)
        self._run(activation, "webSocketError", (self.wake(activation), error), _nothing_more)

    def _run_close(self, activation: Activation) -> None:
        assert self._left is not None
        arguments = (self.wake(activation), *self._left)
        self._run(activation, "webSocketClose", arguments, self._close_handled)
        self._held.discard(self)

    def _run(
        self,
        activation: Activation,
        name: str,
        arguments: tuple[Any, ...],
        then: Callable[[], None],
    ) -> None:
        handler = bound_handler(activation.instance, name, len(arguments))
        finished = suspended = False

        def done(value: Any, error: BaseException | None) -> None:
            nonlocal finished
            finished = True
            if error is not None:
                activation.failed(error, name)
            if not activation.dead:
                then()
                if suspended:
                    activation.settle(self, 0)

        if handler is None:
            then()
            return
        activation.invoke(self._held.limited(handler), arguments, done)
        if not finished:
            suspended = True
            self.handler_suspended()

    def _close_handled(self) -> None:
        """The handler has finished: answer the client's Close if the app did not (§5.5.1)."""
        if not self.close_sent:
            assert self._left is not None
            code, _, was_clean = self._left
            ws = self._ws
            if ws is not None and was_clean:
                ws.close() if code == NO_STATUS else ws.close(code)
        self._end()

    def lost(self, text: str = LOST_TEXT) -> None:
        self._closed(LOST, text or LOST_TEXT, False)

    def reset(self) -> None:
        if self.link is not None and not self.ended:
            self.link.send([CLOSE, self.connection, *RESET[:2]])
        if self._ws is not None:
            self._ws.closed_by_peer(LOST, RESET.text, False)
        self._end()
        self._tell_settled()  # whatever was under way: there is nothing more to tell
        self._held.discard(self)
        self.sleep()

    def leave(self) -> None:
        """Its record goes to another shard, by way of the gateway: here it never was."""
        if self.link is not None and not self.ended and not self.is_held_by_gateway:
            # The other end is an app's, on this or another shard: that cannot follow.
            self.link.send([CLOSE, self.connection, *RESTARTING[:2]])
        self.ended = True
        self._told_unsettled = False  # the gateway knows by GIVEN what was handled
        self._kept = None
        self._table.forget(self)
        self._held.discard(self)
        self.sleep()

    def handler_ended(self, size: int = 0) -> None:
        super().handler_ended(size)
        if not self._unhandled and self.is_unlisted:
            self._held.slot.sockets.discard(self)

    @property
    def is_unsettled(self) -> bool:
        """The gateway waits to hear that something has been handled."""
        return self._told_unsettled

    def _end(self) -> None:
        """Nothing can be sent any more."""
        if not self.ended:
            self.ended = True
            self._kept = None
            if self._ws is not None:
                self._behind_answers(partial(self._ws.divert, _dropped))
            self._table.forget(self)

    def _behind_answers(self, callback: Callable[[], None]) -> None:
        """Call back when what the app has sent so far has left."""
        gate = outputs_of(self._held.slot.activation)
        if gate is not None and gate.held:
            gate.push(callback)
        else:
            callback()


class _Gone:
    """The port of a ``WebSocket`` whose activation is over."""

    def send(self, message: str | bytes) -> None:
        """Never called: such a socket counts as closed."""

    def close(self, code: int | None, reason: str) -> None:
        """Never called."""

    def enqueue(self, event: Any) -> None:
        """Never called."""

    def attached(self, data: bytes | None) -> None:
        """What is attached now has nobody to go to."""


_GONE: Final = _Gone()


def _dropped(what: object) -> None:
    """Where goes what nobody can get any more."""


def _nothing_more() -> None:
    """After ``webSocketError``."""
