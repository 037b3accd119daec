"""The app's stateless entry point: ``class Default(WorkerEntrypoint)``, a new instance a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import structlog

from shard.gate import InputGate
from shard.turn import Carrier, TurnRunner, current_owner
from workers.events import Event
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
    """

    dead = False

    def __init__(
        self,
        make: Callable[[], Any],
        enter: Callable[[Any, EntryPoint], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
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
                    "the entry point's fetch() must return a Response, "
                    f"it returned {type(value).__name__}"
                )
            if error is not None:
                log.error("entry.handler_failed", url=request.url, exc_info=error)
                answer(None, error)
            else:
                answer(value, None)

        try:
            result = self.context.run(self._start, request)
        except Exception as error:
            done(None, error)
            return
        if type(result) is CoroutineType:
            self._turns.finish(result, done)
        else:
            done(result, None)

    def _start(self, request: Request) -> Any:
        return self._make().fetch(request)

    def close(self) -> None:
        """End the requests that are under way."""
        self._turns.close()
        for carrier in list(self._carriers):
            if carrier.task is not None:
                carrier.task.cancel()

    # --- Owner and SocketHost ------------------------------------------------------------------

    def task_started(self, carrier: Carrier) -> None:
        self._carriers.add(carrier)

    def task_ended(self, carrier: Carrier) -> None:
        self._carriers.discard(carrier)

    def step_ended(self) -> None:
        """Requests do not wait for each other."""

    def accepted(self, socket: WebSocket) -> None:
        for event in socket.kept_events():
            socket.port.enqueue(event)

    def run_listeners(self, socket: WebSocket, event: Event) -> None:
        """Run the listeners of a socket that the entry point accepted itself."""
        for listener in socket.listeners(event.type):
            try:
                result = self.context.run(listener, event)
            except Exception as error:
                log.error("entry.listener_failed", on=event.type, exc_info=error)
                continue
            if type(result) is CoroutineType:
                self._turns.finish(result, self._listened)

    def _listened(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            log.error("entry.listener_failed", exc_info=error)
