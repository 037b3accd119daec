"""``setTimeout``, ``setInterval`` and ``waitUntil``: what code asks to be done later.

What a timer runs is an event of its object: it waits while the object is busy or its gate closed.
A pending ``setTimeout`` keeps its object in memory; an interval alone does so only for a while
(:data:`shard.slot.INTERVAL_IDLE_S`). All of it ends with the object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import structlog

from common.errors import ObjectReset
from shard.slot import Pending
from shard.turn import current_owner

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.entry import EntryPoint

log = structlog.get_logger(__name__)


class Timer:
    """Calls *fire* after a while, or again and again; see :class:`workers.host.Timer`.

    Args:
        fire: what to call.
        delay_s: seconds until then, and between two calls.
        repeat: call it again and again.
        holders: a set that keeps the timer until it is done; cancels it when its owner ends.
    """

    def __init__(
        self,
        fire: Callable[[], None],
        delay_s: float,
        repeat: bool,
        holders: set[Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._fire = fire
        self._delay_s = delay_s
        self._repeat = repeat
        self._holders = holders
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = loop.call_later(delay_s, self._due)
        holders.add(self)

    def _due(self) -> None:
        if self._repeat:
            self._handle = self._loop.call_later(self._delay_s, self._due)
        else:
            self.cancel()
        self._fire()

    def cancel(self) -> None:
        """Do not call it (again)."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._holders.discard(self)

    @property
    def cancelled(self) -> bool:
        """It will not be called again."""
        return self._handle is None


def object_timer(
    activation: Activation,
    callback: Callable[[], object],
    delay_s: float,
    repeat: bool,
    loop: asyncio.AbstractEventLoop,
) -> Timer:
    """A timer of an object."""
    waiting = False

    def done(value: Any, error: BaseException | None) -> None:
        if error is not None:
            _failed("timer.failed", error, activation)

    def start(activation: Activation) -> None:
        nonlocal waiting
        waiting = False
        if repeat and timer.cancelled:
            return  # cleared while it waited
        stirred = activation.stirred
        activation.invoke(callback, (), done)
        if repeat:
            activation.stirred = stirred  # an interval is no sign that anybody needs the object

    def fire() -> None:
        nonlocal waiting
        if activation.dead:
            timer.cancel()
        elif not waiting:  # an interval whose last call still waits is skipped, as in a browser
            waiting = True
            activation.slot.deliver(Pending(0, start, lambda error: None))

    holders: set[Any] = activation.intervals if repeat else activation.waiting_for
    timer = Timer(fire, delay_s, repeat, holders, loop)
    return timer


def entry_timer(
    entry: EntryPoint,
    callback: Callable[[], object],
    delay_s: float,
    repeat: bool,
    loop: asyncio.AbstractEventLoop,
) -> Timer:
    """A timer of a request to the entry point."""

    def done(value: Any, error: BaseException | None) -> None:
        if error is not None:
            _failed("timer.failed", error, None)

    return Timer(lambda: entry.invoke(callback, (), done), delay_s, repeat, entry.waiting_for, loop)


def keep_alive(awaitable: Any, activation: Activation | None) -> None:
    """``waitUntil``: go on with *awaitable*, whose failure is only logged.

    As a task of the object it keeps the object in memory, and ends with it.
    """
    if not hasattr(awaitable, "__await__"):
        return
    # Begun inside blockConcurrencyWhile(), it belongs inside.
    context = copy_context()
    if activation is not None:
        if activation.dead:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            return
        if current_owner.get() is not activation:
            context = activation.context.copy()

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _failed("wait_until.failed", error, activation)

    task = asyncio.get_running_loop().create_task(_await(awaitable), context=context)
    task.add_done_callback(ended)


def run_soon(callback: Callable[[], object], activation: Activation | None) -> None:
    """``queueMicrotask``: call *callback* when the running step has ended."""

    def run() -> None:
        if activation is not None:
            if activation.dead:
                return
            activation.free = False
        try:
            result = callback()
            if asyncio.iscoroutine(result):
                keep_alive(result, activation)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            _failed("microtask.failed", error, activation)
        finally:
            if activation is not None:
                activation.step_ended()

    asyncio.get_running_loop().call_soon(run)


def _failed(event: str, error: BaseException, activation: Activation | None) -> None:
    if activation is None:
        log.error(event, exc_info=error)
    elif not activation.dead and not isinstance(error, ObjectReset):
        log.error(event, object=str(activation.slot), exc_info=error)


async def _await(awaitable: Any) -> Any:
    return await awaitable
