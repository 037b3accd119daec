"""A slot: what a shard keeps of one object, whether or not it is in memory.

It makes the activation when an event comes, keeps the events that have to wait, and ends the
activation when the object is idle or reset. Its states, and what leads from one to the next, are a
table: :mod:`shard.lifecycle`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

import structlog

from common.errors import ObjectReset, Overloaded, Unavailable
from common.ids import ObjectId
from shard.activation import Activation
from shard.lifecycle import STEPS, Action, Cause, State
from shard.turn import Done, plain
from shard.waking import Wakes
from workers.exceptions import set_flags

log = structlog.get_logger(__name__)

EVENT_OVERHEAD_BYTES = 200
"""What one waiting event counts beside its payload."""
INTERVAL_IDLE_S = 70.0
"""How long an object stays in memory that does nothing but run a ``setInterval``."""
MAX_STACKED = 16
"""How many objects may be at work on one stack, each called by the one before. The next event waits
for the event loop, so that a long chain of calls does not run into Python's recursion limit."""

_stacked = 0


class SlotHost(Protocol):
    """What a slot needs from its shard."""

    max_pending_bytes: int
    wakes: Wakes
    base_context: Context
    enter_function: Callable[..., Any] | None
    """Calls a handler so that it can wait; see :mod:`shard.stacks`."""
    """What the context of every activation starts from."""

    def enter_context(self, context: Any, activation: Activation) -> None:
        """Put into an activation's context what its code finds there (``env``, log fields, …)."""

    def socket_accepted(self, owner: Any, socket: Any) -> None:
        """The app has accepted a regular socket: see that its messages find the way to it."""

    def make_instance(self, activation: Activation) -> Any:
        """Construct the app's object; may raise anything."""

    def storage_is_away(self, slot: Slot) -> bool:
        """Whether a thread works on the object's database; when that is over, it is queued to wake.

        An object that woke meanwhile would make its whole shard wait for the disk.
        """

    def slot_idle(self, slot: Slot) -> None:
        """The slot holds nothing any more and may be forgotten."""


class Pending:
    """An event that waits for its object.

    Attributes:
        size: bytes it counts for; an event of size 0 is never refused.
        start: begins it, once the object is free.
        fail: called instead if the object is reset before that.
    """

    __slots__ = ("fail", "size", "start")

    def __init__(
        self,
        size: int,
        start: Callable[[Activation], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.size = size
        self.start = start
        self.fail = fail


class Slot:
    """One object's place in its shard.

    Attributes:
        id: whose place it is.
        namespace: the class and key it belongs to (opaque here).
        state: where it is in its life.
        activation: its life in memory, or ``None``.
        pending: events that wait, oldest first.
        sockets: the server ends of its WebSockets, regular and held.
        held: its :class:`~shard.held_sockets.HeldSockets`, once it has had one.
    """

    __slots__ = (
        "_draining",
        "_idle_since",
        "_loop",
        "activation",
        "held",
        "host",
        "id",
        "namespace",
        "pending",
        "pending_bytes",
        "sockets",
        "state",
    )

    def __init__(
        self, object_id: ObjectId, namespace: Any, host: SlotHost, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.id = object_id
        self.namespace = namespace
        self.host = host
        self.state = State.ASLEEP
        self.activation: Activation | None = None
        self.pending: deque[Pending] = deque()
        self.pending_bytes = 0
        self.sockets: set[Any] = set()
        self.held: Any = None
        self._loop = loop
        self._draining = False
        self._idle_since: float | None = None

    def __str__(self) -> str:
        name = self.id.name
        return f"{self.namespace}({name if name is not None else str(self.id)[:16]!r})"

    # --- events in -----------------------------------------------------------------------------

    def call(self, function: Callable[[Any], tuple[Any, tuple[Any, ...]]], done: Done) -> None:
        """Deliver a call: *function* picks the method and arguments from the instance.

        *done* is called exactly once. Exceptions of *function* itself are the call's exceptions.
        """

        def start(activation: Activation) -> None:
            try:
                method, args = function(activation.instance)
            except Exception as error:
                done(None, error)
                return
            activation.invoke(method, args, done)

        self.deliver(Pending(EVENT_OVERHEAD_BYTES, start, lambda error: done(None, error)))

    def deliver(self, event: Pending) -> None:
        """Start an event now, or behind those that wait."""
        activation = self.activation
        if activation is None:
            self._rouse(event)
        elif activation.free:
            self._start(activation, event)
        else:
            self._wait(event)

    def _start(self, activation: Activation, event: Pending) -> None:
        global _stacked
        if _stacked < MAX_STACKED:
            _stacked += 1
            try:
                event.start(activation)
            finally:
                _stacked -= 1
            return
        activation.free = False
        self.drain_soon()
        self._wait(event)

    def _wait(self, event: Pending) -> None:
        wanted = self.pending_bytes + event.size
        if event.size and self.pending and wanted > self.host.max_pending_bytes:
            error = Overloaded(
                "Durable Object is overloaded. Too many requests queued: "
                f"{len(self.pending)} events of {self.pending_bytes} bytes wait for {self}"
            )
            event.fail(set_flags(error, overloaded=True))
            return
        self.pending.append(event)
        self.pending_bytes += event.size

    def drain_soon(self) -> None:
        """Start waiting events in a later callback of the event loop."""
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._draining = False
        activation = self.activation
        if activation is None or activation.dead:
            return
        # One at a time: step_ended() asks for another drain while events wait, so other objects
        # get their turn in between.
        if self.pending and activation.instance is not None and not activation.gate.holds_events:
            event = self.pending.popleft()
            self.pending_bytes -= event.size
            event.start(activation)
            activation.step_ended()

    # --- lives ---------------------------------------------------------------------------------

    def _step(self, cause: Cause) -> Action:
        """Something has happened to the object.

        Raises:
            KeyError: it cannot happen now.
        """
        self.state, action = STEPS[self.state, cause]
        return action

    def _rouse(self, event: Pending) -> None:
        """An event has come for an object that is not in memory."""
        if self.state is State.DUE:
            self._wait(event)
        elif self.host.storage_is_away(self):
            self._step(Cause.CROWD)
            self._wait(event)
        elif self.host.wakes.crowded:
            self._step(Cause.CROWD)
            self._wait(event)
            self.host.wakes.queue(self)
        else:
            self._step(Cause.EVENT)
            self._wake(event)

    def take_turn(self) -> None:
        """See :class:`shard.waking.Sleeper`."""
        if self.state is State.DUE:
            self._step(Cause.TURN)
            event = self.pending.popleft()
            self.pending_bytes -= event.size
            self._wake(event)

    def _wake(self, event: Pending) -> None:
        """Construct, and start the event that this is for."""
        activation = self._construct(event)
        if activation is None:
            return
        if activation.free:
            self._start(activation, event)
            return
        # What the constructor has called comes after the event that it was run for.
        self.pending.appendleft(event)
        self.pending_bytes += event.size
        activation.step_ended()

    def _construct(self, event: Pending) -> Activation | None:
        activation = Activation(self, self._loop)
        self.activation = activation
        self._idle_since = None
        try:
            activation.construct(lambda: self.host.make_instance(activation))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            error = activation.death if activation.dead else plain(raised) or raised
            log.error("object.constructor_failed", object=str(self), exc_info=error)
            if self.activation is activation:
                self.reset(error)
            event.fail(error)
            return None
        if activation.dead:
            event.fail(activation.death)
            return None
        self._step(Cause.CONSTRUCTED)
        return activation

    def reset(self, error: BaseException, *, overloaded: bool = False) -> None:
        """End the activation: calls under way and waiting fail with *error*, sockets close."""
        if self._step(Cause.RESET) is not Action.FAIL:
            return
        activation, self.activation = self.activation, None
        assert activation is not None
        for name, value in (("durableObjectReset", True), ("overloaded", overloaded)):
            if value:
                try:
                    setattr(error, name, True)
                except AttributeError:
                    break
        activation.end(error)
        pending, self.pending = self.pending, deque()
        self.pending_bytes = 0
        for socket in list(self.sockets):
            socket.reset()
        for event in pending:
            event.fail(error)
        self._forget()

    def sweep(self, now: float, idle_timeout_s: float) -> None:
        """Evict the activation if nothing has happened for *idle_timeout_s* seconds.

        Args:
            now: monotonic seconds.
            idle_timeout_s: at least 0.
        """
        activation = self.activation
        if activation is None or self.state is not State.AWAKE:
            self._forget()
            return
        if self._idle_since is None or activation.stirred or activation.busy or self.pending:
            activation.stirred = False
            self._idle_since = now
        elif now - self._idle_since >= self._patience_s(activation, idle_timeout_s):
            self._sleep(Cause.IDLE)

    @staticmethod
    def _patience_s(activation: Activation, idle_timeout_s: float) -> float:
        return max(idle_timeout_s, INTERVAL_IDLE_S) if activation.intervals else idle_timeout_s

    def evict(self) -> None:
        """The object leaves this shard: drop the activation. Events that wait fail."""
        self._sleep(Cause.LEAVE)

    def _sleep(self, cause: Cause) -> None:
        """Drop the activation; the next event constructs again."""
        self._step(cause)
        activation, self.activation = self.activation, None
        pending, self.pending = self.pending, deque()
        self.pending_bytes = 0
        if activation is not None:
            activation.blameless = True
            activation.end(ObjectReset(f"{self} was evicted"))
        if self.held is not None:
            self.held.sleep()
        for event in pending:
            event.fail(Unavailable(f"{self} leaves this shard"))
        self._forget()

    def leave(self) -> None:
        """The object's partition goes to another shard: nothing of it remains here."""
        self.evict()
        for socket in list(self.sockets):
            socket.leave()
        self._forget()

    def _forget(self) -> None:
        if self.activation is None and not self.pending and not self.sockets:
            self.host.slot_idle(self)
