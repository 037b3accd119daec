"""One in-memory life of an object: its instance, its gates, and the handlers that are under way.

An activation runs one step of code at a time. It is *free* when nothing of it is on the stack, no
event waits and no section holds events back; only then may the next event start, and the slot
keeps those that have to wait. A call that an object makes to another one in the same process runs
there and then, on the caller's stack; this flag is what keeps the answer's path back from
re-entering an object in the middle of its own line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import structlog

from common.errors import ObjectReset
from shard.gate import InputGate, Section, current_section
from shard.turn import Carrier, Done, TurnRunner, current_owner, plain, step_aside, step_back
from workers.events import CloseEvent, Event, MessageEvent
from workers.handlers import bound_handler
from workers.websocket import Listener, WebSocket

if TYPE_CHECKING:
    from shard.held import HeldSocket
    from shard.held_sockets import HeldSockets
    from shard.slot import Slot
    from shard.socket_end import SocketEnd
    from shard.sockets import ServerSocket
    from shard.storage.object_storage import ObjectStorage
    from shard.storage.output_gate import OutputGate

log = structlog.get_logger(__name__)


class Activation:
    """Runs the code of one object.

    Attributes:
        instance: the app's object, once its constructor has returned.
        context: what its code finds set: the shard's own context, and what the constructor sets.
        free: the next event may start now.
        on_message: the app's ``webSocketMessage``, looked up once; takes socket and message.
        dead: reset or evicted; nothing of it may run, send or commit any more.
        death: why it is dead: what the calls under way are told.
        stirred: an event has started since :meth:`Slot.sweep` last looked.
        storage: its durable storage, once it has used that.
        outputs: its output gate, once it has written something.
        blameless: its end, if it has come, was not its own doing: its disk's, or its process's.
        uncommitted: commits what the running step has written, if it has written.
    """

    __slots__ = (
        "_carriers",
        "_enter",
        "_loop",
        "_running_context",
        "blameless",
        "context",
        "dead",
        "death",
        "free",
        "gate",
        "held_up",
        "instance",
        "intervals",
        "on_message",
        "outputs",
        "regular_sockets",
        "slot",
        "stirred",
        "storage",
        "streams",
        "turns",
        "uncommitted",
        "waiting_for",
    )

    def __init__(self, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        self.slot = slot
        self.instance: Any = None
        self.free = False
        self.dead = False
        self.blameless = False
        self.death: BaseException = ObjectReset("the object is not in memory any more")
        self.stirred = True
        self.held_up = 0
        self.streams = 0
        self.on_message: Callable[..., Any] = _ignore_message
        self.regular_sockets: WeakSet[WebSocket] = WeakSet()
        self.waiting_for: set[Any] = set()
        self.intervals: set[Any] = set()
        self.storage: ObjectStorage | None = None
        self.outputs: OutputGate | None = None
        self.uncommitted: Callable[[], None] | None = None
        self.gate = InputGate(self._gate_opened)
        self._loop = loop
        self._enter = slot.host.enter_function
        self._carriers: set[Carrier] = set()
        # Not the context of whoever woke it: that may be another object's.
        self.context: Context = slot.host.base_context.copy()
        self.context.run(current_owner.set, self)
        slot.host.enter_context(self.context, self)
        self._running_context: Context = self.context.copy()
        self.turns = TurnRunner(self, loop)

    def __repr__(self) -> str:
        return f"<Activation of {self.slot}>"

    # --- running -------------------------------------------------------------------------------

    def construct(self, make: Callable[[], Any]) -> None:
        """Run the app's constructor.

        Raises:
            BaseException: whatever it raises.
        """
        outer = step_aside(self._loop)
        try:
            self.instance = self.context.run(make)
            self.bind_message_handler()
        finally:
            step_back(self._loop, outer)
            self._running_context = self.context.copy()
            self.step_ended()

    def bind_message_handler(self) -> None:
        """Look up the app's ``webSocketMessage``, and the time limit of such handlers."""
        handler = bound_handler(self.instance, "webSocketMessage", 2) or _ignore_message
        held: HeldSockets | None = self.slot.held
        self.on_message = handler if held is None else held.limited(handler)

    def invoke(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """Run a handler, sync or async, as the next event. The activation must be free.

        Args:
            function: what to call.
            args: its arguments.
            done: called exactly once with the handler's value or exception, now or later; with
                :class:`ObjectReset` or the reason of the reset if the activation ends first.
        """
        self.free = False
        self.stirred = True
        outer = step_aside(self._loop)
        try:
            try:
                if self._enter is None:
                    result = self._running_context.run(function, *args)
                else:
                    result = self._running_context.run(self._enter, function, *args)
            except Exception as error:
                self._ended(done, None, error)
            except BaseException as error:
                self._stopped(error, done)
            else:
                if type(result) is CoroutineType:
                    self.turns.finish(result, done)
                elif hasattr(result, "__await__"):
                    self.turns.finish(_await(result), done)
                else:
                    self._ended(done, result, None)
        finally:
            step_back(self._loop, outer)
            self._clean_context()
            self.step_ended()

    def deliver(self, socket: ServerSocket | None, target: WebSocket, event: Event) -> None:
        """Run the listeners of a socket's event as the next event. The activation must be free."""
        listeners = target.listeners(event.type)
        if type(event) is MessageEvent:
            self.message(socket, target, listeners, event)
            return
        open_listeners = 1

        def ended(value: Any, error: BaseException | None) -> None:
            nonlocal open_listeners
            open_listeners -= 1
            if error is not None:
                self.failed(error, event.type)
            if not open_listeners and socket is not None and type(event) is CloseEvent:
                socket.listeners_closed(event)

        self.free = False
        self.stirred = True
        try:
            for listener in listeners:
                open_listeners += 1
                self._listen(listener, event, ended)
                if self.dead:
                    return
        finally:
            self.step_ended()
        ended(None, None)

    def message(
        self,
        socket: ServerSocket | None,
        target: WebSocket,
        listeners: tuple[Listener, ...],
        event: MessageEvent,
    ) -> None:
        """The same for a message, the hot path: no bookkeeping unless a listener suspends.

        A listener that raises does not keep the others from running; then its connection ends.
        """
        self.free = False
        self.stirred = True
        context = self._running_context
        raised: Exception | None = None
        try:
            for listener in listeners:
                try:
                    result = context.run(listener, event)
                except Exception as error:
                    self.failed(error, "message")
                    raised = raised or error
                except BaseException as error:
                    self._stopped(error, self._report_message)
                else:
                    if result is not None:
                        self._carry_message(socket, result, len(event.data))
                if context != self.context:
                    self._clean_context()
                    context = self._running_context
                if self.dead:
                    return
            if raised is not None and socket is not None:
                socket.listener_raised(raised)
        finally:
            self.step_ended()

    def held_message(self, socket: HeldSocket, ws: WebSocket, message: str | bytes) -> None:
        """Run ``webSocketMessage``: the hot path of held sockets. The activation must be free."""
        self.free = False
        self.stirred = True
        context = self._running_context
        try:
            try:
                result = context.run(self.on_message, ws, message)
            except Exception as error:
                self.failed(error, "webSocketMessage")
            except BaseException as error:
                self._stopped(error, self._report_message)
            else:
                if result is not None:
                    self._carry_message(socket, result, len(message))
            if context != self.context:
                self._clean_context()
        finally:
            self.step_ended()
        if self.outputs is not None and self.outputs.held and not self.dead:
            # Its answers wait for the disk: until they leave, the frame is not handled.
            socket.handler_suspended()
            self.settle(socket, 0)

    def _carry_message(self, socket: SocketEnd | None, result: Any, size: int) -> None:
        if type(result) is not CoroutineType:
            if not hasattr(result, "__await__"):
                return
            result = _await(result)
        if socket is None:
            self.turns.finish(result, self._report_message)
            return
        done = _MessageDone(self, socket, size)
        if not self.turns.finish(result, done):
            done.suspended()

    def _listen(self, listener: Listener, event: Event, done: Done) -> None:
        try:
            result = self._running_context.run(listener, event)
        except Exception as error:
            done(None, error)
        except BaseException as error:
            self._stopped(error, done)
        else:
            if type(result) is CoroutineType:
                self.turns.finish(result, done)
            elif hasattr(result, "__await__"):
                self.turns.finish(_await(result), done)
            else:
                done(None, None)
        self._clean_context()

    def _clean_context(self) -> None:
        # What one handler has set is not for the next one to see.
        if self._running_context != self.context:
            self._running_context = self.context.copy()

    def _report_message(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            self.failed(error, "message")

    def failed(self, error: BaseException, event: str) -> None:
        """Log what a handler raised. Its own event is over; nothing else is harmed."""
        if self.dead or isinstance(error, ObjectReset):
            return
        log.error("object.handler_failed", object=str(self.slot), on=event, exc_info=error)

    def _stopped(self, error: BaseException, done: Done) -> None:
        """Code was ended by what is no ``Exception``: abort(), or the process's end."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        self._ended(done, None, plain(error))

    def _ended(self, done: Done, value: Any, error: BaseException | None) -> None:
        if self.dead:
            value, error = None, self.death
        done(value, error)

    # --- SocketHost ----------------------------------------------------------------------------

    def accepted(self, socket: WebSocket) -> None:
        self.regular_sockets.add(socket)
        port: Any = socket.port
        if hasattr(port, "reset"):  # it left in a response before it was accepted
            self.slot.sockets.add(port)
        for event in socket.kept_events():
            port.enqueue(event)
        self.slot.host.socket_accepted(self, socket)
        if self.outputs is not None:
            socket.gate_sends()

    def gate_outputs(self, gate: OutputGate) -> None:
        """It has written something: from now on, what it sends goes through *gate*."""
        self.outputs = gate
        for socket in self.regular_sockets:
            socket.gate_sends()
        held: HeldSockets | None = self.slot.held
        if held is not None:
            held.gate_sends()

    # --- gates ---------------------------------------------------------------------------------

    def block_concurrency_while(
        self, callback: Callable[[], Any], timeout_s: float
    ) -> asyncio.Future[Any]:
        """Run *callback* while nothing else of the object runs; a future of its value.

        It begins on a later turn of the event loop. If it raises or takes longer than *timeout_s*
        seconds, the object is reset.
        """
        result: asyncio.Future[Any] = self._loop.create_future()
        section = Section(
            current_section.get(), lambda: self._begin(section, callback, result, timeout_s)
        )
        try:
            begins = self.gate.block(section)
        except RecursionError as error:
            self.slot.reset(error)
            raise
        self.free = False
        # Nobody may be waiting for it; a failure resets the object, which reports it.
        result.add_done_callback(lambda future: future.cancelled() or future.exception())
        if begins:
            self._loop.call_soon(section.begin)
        return result

    def _begin(
        self,
        section: Section,
        callback: Callable[[], Any],
        result: asyncio.Future[Any],
        timeout_s: float,
    ) -> None:
        if self.dead:
            return
        self.gate.begin(section)
        timer = self._loop.call_later(timeout_s, self._section_timed_out)

        def ended(value: Any, error: BaseException | None) -> None:
            timer.cancel()
            if self.dead:
                return
            if error is not None:
                self.slot.reset(plain(error) or error)
                return
            if not result.done():
                result.set_result(value)
            following = self.gate.finish(section)
            if following is not None:
                # Two turns later: whoever awaited this one goes on before the next one begins.
                self._loop.call_soon(self._loop.call_soon, following.begin)

        context = self.context.copy()
        context.run(current_section.set, section)
        carrier = self._loop.create_task(_call(callback), context=context)
        carrier.add_done_callback(
            lambda task: (
                ended(None, asyncio.CancelledError())
                if task.cancelled()
                else ended(None, task.exception())
                if task.exception() is not None
                else ended(task.result(), None)
            )
        )

    def _section_timed_out(self) -> None:
        if self.dead:
            return
        self.slot.reset(
            ObjectReset(
                "A call to blockConcurrencyWhile() in a Durable Object waited for too long. "
                "The call was canceled and the Durable Object was reset."
            ),
            overloaded=True,
        )

    def _gate_opened(self) -> None:
        self._loop.call_soon(self.step_ended)

    # --- Owner ---------------------------------------------------------------------------------

    def task_started(self, carrier: Carrier) -> None:
        self._carriers.add(carrier)

    def task_ended(self, carrier: Carrier) -> None:
        self._carriers.discard(carrier)

    def step_ended(self) -> None:
        slot = self.slot
        if self.uncommitted is not None and not self.dead:
            self.uncommitted()
        if self.dead:
            return
        if self.instance is None or self.gate.holds_events:
            self.free = False
        elif slot.pending:
            self.free = False
            slot.drain_soon()
        else:
            self.free = True

    @property
    def carriers(self) -> Iterable[Carrier]:
        """The tasks that are under way."""
        return self._carriers

    def settle(self, socket: SocketEnd, size: int) -> None:
        """A message of *size* has been handled; it counts so when what came of it may leave."""
        outputs = self.outputs
        if outputs is not None and outputs.held:
            outputs.push(lambda: socket.handler_ended(size))
        else:
            socket.handler_ended(size)

    @property
    def busy(self) -> bool:
        """Something keeps it in memory: a task, a section, ``waitUntil``, a regular socket."""
        return bool(
            self._carriers
            or self.regular_sockets
            or self.waiting_for
            or self.held_up
            or self.gate.holds_events
            or (self.storage is not None and self.storage.busy)
        )

    @property
    def was_reset(self) -> bool:
        """It had been constructed, and was reset: the stubs that called it are broken."""
        error = self.death
        return self.instance is not None and getattr(error, "durableObjectReset", False) is True

    def end(self, error: BaseException) -> None:
        """Let nothing of it run any more; handlers under way are told *error*."""
        self.dead = True
        self.death = error
        self.free = False
        self.turns.close()
        carriers, self._carriers = self._carriers, set()
        for carrier in carriers:
            carrier.cut(error)
        for waited in (*self.waiting_for, *self.intervals):
            waited.cancel()
        self.waiting_for.clear()
        if self.storage is not None:
            self.storage.end(error)


class _MessageDone:
    """Told when a message's handler that has suspended ends."""

    __slots__ = ("_activation", "_size", "_socket", "_suspended")

    def __init__(self, activation: Activation, socket: SocketEnd, size: int) -> None:
        self._activation = activation
        self._socket = socket
        self._size = size
        self._suspended = False

    def suspended(self) -> None:
        """The handler goes on later: the frame counts as not handled until then."""
        self._suspended = True
        self._socket.handler_suspended(self._size)

    def __call__(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            self._activation.failed(error, "message")
        # What a dead activation was working on has not been handled.
        if self._suspended and not self._activation.dead:
            self._activation.settle(self._socket, self._size)


def _ignore_message(ws: WebSocket, message: str | bytes) -> None:
    """For a class without ``webSocketMessage``."""


async def _await(awaitable: Any) -> Any:
    return await awaitable


async def _call(callback: Callable[[], Any]) -> Any:
    result = callback()
    return await result if hasattr(result, "__await__") else result
