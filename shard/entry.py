"""The app's stateless entry point, ``class Default(WorkerEntrypoint)``: an instance a request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import structlog

from common.errors import Unavailable
from shard.gate import InputGate
from shard.messages import returned_instead
from shard.slot import Pending
from shard.turn import Carrier, Done, TurnRunner, current_owner, plain, step_aside, step_back
from workers.events import CloseEvent, Event, MessageEvent
from workers.request import Request
from workers.response import Response
from workers.websocket import WebSocket

if TYPE_CHECKING:
    from shard.requests import Answer

log = structlog.get_logger(__name__)


class EntryPoint:
    """Runs requests that are addressed to no object.

    Args:
        make: makes an instance of the app's class for one request.
        enter: puts what the code finds there into a context.
        socket_accepted: told of each socket that a request has accepted.

    Attributes:
        enter_function: calls a handler so that it can wait; see :mod:`shard.stacks`.
        slot: where the events of its sockets wait.
        regular_sockets: those that are open.
        waiting_for: what its requests wait for outside; cancelled at the end.
    """

    dead = False
    death: BaseException = Unavailable("the shard is stopping")
    stirred = False
    held_up = 0
    streams = 0
    free = False
    """Never: its events always take the way over :attr:`slot`."""

    def __init__(
        self,
        make: Callable[[], Any],
        enter: Callable[[Any, EntryPoint], None],
        loop: asyncio.AbstractEventLoop,
        socket_accepted: Callable[[EntryPoint, WebSocket], None],
    ) -> None:
        self.enter_function: Callable[..., Any] | None = None
        self.slot = EntryEvents(self, loop)
        self.regular_sockets: set[WebSocket] = set()
        self.waiting_for: set[asyncio.Future[Any]] = set()
        self._socket_accepted = socket_accepted
        self._loop = loop
        self.gate = InputGate(lambda: None)
        self.context = copy_context()
        self.context.run(current_owner.set, self)
        enter(self.context, self)
        self._make = make
        self._turns = TurnRunner(self, loop)
        self._carriers: set[Carrier] = set()

    def serve(self, request: Request, answer: Answer) -> None:
        """Run the entry point's ``fetch``; *answer* gets its response or error, exactly once."""

        def done(value: Any, error: BaseException | None) -> None:
            if error is None and not isinstance(value, Response):
                error = TypeError(
                    "Default.fetch() must return a Response, but it " + returned_instead(value)
                )
            if error is not None:
                log.error("entry.handler_failed", url=request.url, exc_info=error)
                answer(None, error)
            else:
                answer(value, None)

        self.invoke(self._start, (request,), done)

    def _start(self, request: Request) -> Any:
        return self._make().fetch(request)

    def invoke(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """Run a function that a request has passed to an object. Nothing else of it may be running.

        Args:
            function: what to call.
            args: its arguments.
            done: called exactly once with its value or exception.
        """
        outer = step_aside(self._loop)
        try:
            # Each request in a copy: what one of them sets is not for the next one to see.
            if self.enter_function is None:
                result = self.context.copy().run(function, *args)
            else:
                result = self.context.copy().run(self.enter_function, function, *args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            done(None, plain(error))
            return
        finally:
            step_back(self._loop, outer)
        if type(result) is CoroutineType:
            self._turns.finish(result, done)
        elif hasattr(result, "__await__"):
            self._turns.finish(_await(result), done)
        else:
            done(result, None)

    def close(self) -> None:
        """End the requests that are under way."""
        self._turns.close()
        for carrier in list(self._carriers):
            if carrier.task is not None:
                carrier.task.cancel()
        for future in list(self.waiting_for):
            future.cancel()
        for socket in list(self.slot.sockets):
            socket.reset()

    # --- Owner and SocketHost ------------------------------------------------------------------

    def task_started(self, carrier: Carrier) -> None:
        self._carriers.add(carrier)

    def task_ended(self, carrier: Carrier) -> None:
        self._carriers.discard(carrier)

    def step_ended(self) -> None:
        """Requests do not wait for each other."""

    def accepted(self, socket: WebSocket) -> None:
        self.regular_sockets.add(socket)
        for event in socket.kept_events():
            socket.port.enqueue(event)
        self._socket_accepted(self, socket)

    def deliver(self, socket: Any, target: WebSocket, event: Event) -> None:
        """Run the listeners of a socket's event; see :class:`shard.inbox.SocketOwner`."""
        open_listeners = 1

        def ended(value: Any, error: BaseException | None) -> None:
            nonlocal open_listeners
            open_listeners -= 1
            if error is not None:
                log.error("entry.listener_failed", on=event.type, exc_info=error)
            if not open_listeners and type(event) is CloseEvent:
                socket.listeners_closed(event)

        for listener in target.listeners(event.type):
            open_listeners += 1
            if not self._listen(socket, listener, event, ended):
                break
        ended(None, None)

    def _listen(self, socket: Any, listener: Any, event: Event, ended: Done) -> bool:
        """Run one listener; false if no further ones may run."""
        try:
            result = self.context.copy().run(listener, event)
        except Exception as error:
            ended(None, error)
            if type(event) is MessageEvent:
                socket.listener_raised(error)
                return False
            return True
        if not hasattr(result, "__await__"):
            ended(None, None)
            return True
        if type(result) is not CoroutineType:
            result = _await(result)
        if type(event) is not MessageEvent:
            self._turns.finish(result, ended)
            return True
        suspended = False

        def handled(value: Any, error: BaseException | None) -> None:
            ended(value, error)
            if suspended:
                socket.handler_ended(len(event.data))

        if not self._turns.finish(result, handled):
            suspended = True
            socket.handler_suspended(len(event.data))
        return True


class EntryEvents:
    """Stands in for a slot: the events of the sockets that requests have accepted.

    They do not wait for each other, but for the code that is running just now.
    """

    def __init__(self, entry: EntryPoint, loop: asyncio.AbstractEventLoop) -> None:
        self.sockets: set[Any] = set()
        self._entry = entry
        self._loop = loop
        self._events: deque[Pending] = deque()

    def deliver(self, event: Pending) -> None:
        """Start an event in the next callback of the event loop."""
        self._events.append(event)
        if len(self._events) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._events:
            entry: Any = self._entry
            self._events.popleft().start(entry)


async def _await(awaitable: Any) -> Any:
    return await awaitable
