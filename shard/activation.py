"""One in-memory life of an object: its instance, its gates, and the handlers that are under way.

An activation runs one step of code at a time. It is *free* when nothing of it is on the stack, no
event waits and no section holds events back; only then may the next event start, and the slot
keeps those that have to wait. A call that an object makes to another one in the same process runs
there and then, on the caller's stack; this flag is what keeps the answer's path back from
re-entering an object in the middle of its own line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import structlog

from common.errors import ObjectReset
from shard.gate import InputGate, Section, current_section
from shard.turn import Carrier, Done, TurnRunner, current_owner
from workers.events import CloseEvent, Event, MessageEvent
from workers.websocket import Listener, WebSocket

if TYPE_CHECKING:
    from shard.slot import Slot
    from shard.sockets import ServerSocket

log = structlog.get_logger(__name__)


class Activation:
    """Runs the code of one object.

    Attributes:
        instance: the app's object, once its constructor has returned.
        free: the next event may start now.
        dead: reset or evicted; nothing of it may run, send or commit any more.
        stirred: an event has started since :meth:`Slot.sweep` last looked.
    """

    __slots__ = (
        "_carriers",
        "_loop",
        "context",
        "dead",
        "free",
        "gate",
        "held_up",
        "instance",
        "regular_sockets",
        "slot",
        "stirred",
        "turns",
        "waiting_for",
    )

    def __init__(self, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        self.slot = slot
        self.instance: Any = None
        self.free = False
        self.dead = False
        self.stirred = True
        self.held_up = 0
        self.regular_sockets: WeakSet[WebSocket] = WeakSet()
        self.waiting_for: set[asyncio.Future[Any]] = set()
        self.gate = InputGate(self._gate_opened)
        self._loop = loop
        self._carriers: set[Carrier] = set()
        self.context: Context = copy_context()
        self.context.run(current_owner.set, self)
        slot.host.enter_context(self.context, self)
        self.turns = TurnRunner(self, loop)

    def __repr__(self) -> str:
        return f"<Activation of {self.slot}>"

    # --- running -------------------------------------------------------------------------------

    def construct(self, make: Callable[[], Any]) -> None:
        """Run the app's constructor.

        Raises:
            BaseException: whatever it raises.
        """
        try:
            self.instance = self.context.run(make)
        finally:
            self.step_ended()

    def invoke(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """Run a handler, sync or async, as the next event. The activation must be free.

        Args:
            function, args: what to call.
            done: called exactly once with the handler's value or exception, now or later; with
                :class:`ObjectReset` or the reason of the reset if the activation ends first.
        """
        self.free = False
        self.stirred = True
        try:
            try:
                result = self.context.run(function, *args)
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
                    done(result, None)
        finally:
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
        finally:
            self.step_ended()
        ended(None, None)

    def message(
        self,
        socket: ServerSocket | None,
        target: WebSocket,
        listeners: tuple[Listener, ...],
        event: Event,
    ) -> None:
        """The same for a message, the hot path: no bookkeeping unless a listener suspends."""
        self.free = False
        self.stirred = True
        run = self.context.run
        try:
            for listener in listeners:
                try:
                    result = run(listener, event)
                except Exception as error:
                    self.failed(error, "message")
                    if socket is not None:
                        socket.listener_raised(error)
                    break
                except BaseException as error:
                    self._stopped(error, self._report_message)
                    break
                if result is not None:
                    self._carry_message(socket, result)
        finally:
            self.step_ended()

    def _carry_message(self, socket: ServerSocket | None, result: Any) -> None:
        if type(result) is not CoroutineType:
            if not hasattr(result, "__await__"):
                return
            result = _await(result)
        if socket is None:
            self.turns.finish(result, self._report_message)
            return
        done = _MessageDone(self, socket)
        if not self.turns.finish(result, done):
            done.suspended()

    def _listen(self, listener: Listener, event: Event, done: Done) -> None:
        try:
            result = self.context.run(listener, event)
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

    def _report_message(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            self.failed(error, "message")

    def failed(self, error: BaseException, event: str) -> None:
        """Log what a handler raised. Its own event is over; nothing else is harmed."""
        if self.dead or isinstance(error, ObjectReset):
            return
        log.error("object.handler_failed", object=str(self.slot), on=event, exc_info=error)

    def _stopped(self, error: BaseException, done: Done) -> None:
        """Code was ended by something that is not an ``Exception``: abort(), or the process's end."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        done(None, error)

    # --- SocketHost ----------------------------------------------------------------------------

    def accepted(self, socket: WebSocket) -> None:
        self.regular_sockets.add(socket)
        for event in socket.kept_events():
            socket.port.enqueue(event)

    # --- gates ---------------------------------------------------------------------------------

    def block_concurrency_while(
        self, callback: Callable[[], Any], timeout_s: float
    ) -> asyncio.Future[Any]:
        """Run *callback* while nothing else of the object runs; a future of its value.

        It begins on a later turn of the event loop. If it raises or takes longer than *timeout_s*
        seconds, the object is reset.
        """
        result: asyncio.Future[Any] = self._loop.create_future()
        section = Section(current_section.get(), lambda: self._begin(section, callback, result, timeout_s))
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
                self.slot.reset(error)
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
            lambda task: ended(None, asyncio.CancelledError())
            if task.cancelled()
            else ended(None, task.exception())
            if task.exception() is not None
            else ended(task.result(), None)
        )

    def _section_timed_out(self) -> None:
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
    def busy(self) -> bool:
        """Something keeps it in memory: a task, a section, ``waitUntil``, a regular socket."""
        return bool(
            self._carriers
            or self.regular_sockets
            or self.waiting_for
            or self.held_up
            or self.gate.holds_events
        )

    def end(self, error: BaseException) -> None:
        """Let nothing of it run any more; handlers under way are told *error*."""
        self.dead = True
        self.free = False
        self.turns.close()
        carriers, self._carriers = self._carriers, set()
        for carrier in carriers:
            carrier.cut(error)
        for future in list(self.waiting_for):
            future.cancel()
        self.waiting_for.clear()


class _MessageDone:
    """Told when a message's handler that has suspended ends."""

    __slots__ = ("_activation", "_socket", "_suspended")

    def __init__(self, activation: Activation, socket: ServerSocket) -> None:
        self._activation = activation
        self._socket = socket
        self._suspended = False

    def suspended(self) -> None:
        """The handler goes on later: the frame counts as not handled until then."""
        self._suspended = True
        self._socket.handler_suspended()

    def __call__(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            self._activation.failed(error, "message")
        if self._suspended:
            self._socket.handler_ended()


async def _await(awaitable: Any) -> Any:
    return await awaitable


async def _call(callback: Callable[[], Any]) -> Any:
    result = callback()
    return await result if hasattr(result, "__await__") else result
