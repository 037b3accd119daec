"""Turns: how a handler runs, and what it costs.

A plain function, or a coroutine that finishes without suspending, is run where it stands: no task,
no future, no trip through the event loop. Only when a coroutine suspends does a task take it over.
The app must not see the difference: ``asyncio.current_task()``, ``asyncio.timeout`` and
``TaskGroup`` work from the first line of a handler, and the task they saw there is the one that
carries the handler on.

So each activation keeps one *spare* task, a real :class:`asyncio.Task` that has not been given
anything to do. While a handler takes its first step the spare is the loop's current task. If the
handler finishes, the spare is kept for the next one; if it suspends, the spare becomes its task.

Every later step asks the input gate first, and so does each step of every task that the app itself
starts (:func:`task_factory`). What runs outside any task, a callback given to ``loop.call_soon`` or
a future's ``add_done_callback``, is not held back: there is nothing to hold it by.

Context variables follow asyncio's rule: what a handler sets is seen by itself and the tasks it
starts. What an object's constructor sets is seen by all its handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol

from shard.gate import InputGate, Section, current_section
from workers.exceptions import RemoteError

CLEANUP_S: Final = 10.0
"""How long the ``finally`` blocks of an object that was reset may go on."""


class Owner(Protocol):
    """Whom a coroutine belongs to: an activation, or an entry point's request."""

    gate: InputGate
    context: Context
    """What its code finds set. Handlers run in copies of it."""
    free: bool
    """None of its code is on the stack, so that an event may start."""
    dead: bool
    death: BaseException
    """Once it is dead: what to tell those who still wait for its handlers."""
    held_up: int
    """How many timers, streams and stubs keep it in memory."""
    streams: int
    """How many of these are streams that somebody reads."""
    stirred: bool
    """It has done something since somebody last looked."""

    def task_started(self, carrier: Carrier) -> None:
        """A task carries something for this owner."""

    def task_ended(self, carrier: Carrier) -> None:
        """… and has ended."""

    def step_ended(self) -> None:
        """Code of this owner has just run: held-back events may be looked at."""


current_owner: ContextVar[Owner | None] = ContextVar("limpet_owner", default=None)

Done = Callable[[Any, BaseException | None], None]
"""Told how a handler ended: its value and ``None``, or ``None`` and its exception."""


class Carrier(Coroutine[Any, Any, Any]):
    """What a task of an object runs: the app's coroutine behind the input gate.

    Tasks step it with :meth:`send` and :meth:`throw`; it steps the app's coroutine, or first waits
    for the gate.
    """

    __slots__ = (
        "_cut_at",
        "_done",
        "_park",
        "_section",
        "_thrown",
        "_yielded",
        "coro",
        "owner",
        "task",
    )

    def __init__(
        self,
        owner: Owner,
        coro: Coroutine[Any, Any, Any] | None,
        section: Section | None = None,
    ) -> None:
        self.owner = owner
        self.coro = coro
        self.task: asyncio.Task[Any] | None = None
        self._done: Done | None = None
        self._yielded: Any = None
        self._thrown: BaseException | None = None
        self._park: asyncio.Future[None] | None = None
        self._cut_at: float | None = None
        self._section = section
        if coro is not None:
            owner.task_started(self)

    @property
    def carries_handler(self) -> bool:
        """Somebody waits for what it carries: it is no task that the app has started itself."""
        return self._done is not None

    def __getattr__(self, name: str) -> Any:
        # What debuggers and anyio ask of a task's coroutine: cr_running, cr_frame, __qualname__, …
        coro = None if name in Carrier.__slots__ else self.coro
        if coro is None:
            raise AttributeError(name)
        return getattr(coro, name)

    def adopt(self, coro: Coroutine[Any, Any, Any], yielded: Any, done: Done) -> None:
        """Carry on *coro*, which has suspended on *yielded*, and tell *done* when it ends."""
        self.coro = coro
        self._done = done
        self._yielded = yielded
        self.owner.task_started(self)
        if self._park is not None and not self._park.done():
            self._park.set_result(None)

    def cut(self, error: BaseException) -> None:
        """The owner is dead: report *error* now, and let the app's code run only to clean up."""
        done, self._done = self._done, None
        if self.task is not None:
            self._cut_at = self.task.get_loop().time()
            self.task.cancel()
        if done is not None:
            done(None, error)

    @property
    def spoilt(self) -> bool:
        """A spare that the app has cancelled during a step that did not suspend."""
        park = self._park
        if park is not None:
            return park.done()
        return self.task is not None and self.task.cancelling() > 0

    def discard(self) -> None:
        """End a spare that will not be used."""
        if self.task is not None and self.coro is None:
            self.task.cancel()

    # --- the task's side -----------------------------------------------------------------------

    def send(self, value: Any) -> Any:  # noqa: C901 - every step of every task: no calls to spare
        """One step: returns the future to wait for, as a task expects it."""
        coro = self.coro
        if coro is None:
            self._park = asyncio.get_running_loop().create_future()
            return _waiting_for(self._park)
        yielded = self._yielded
        if yielded is not None:
            self._yielded = None
            if yielded is not _BARE:
                return _waiting_for(yielded)
            if self._park is None:
                # This step was queued before the handler began, so before all that it has queued.
                return None
        owner = self.owner
        if owner.dead:
            if self._overstays():
                self._end_by_force(coro)
        elif not owner.gate.open and not owner.gate.admits(self._section):
            return self._wait_for_gate()
        owner.free = False
        try:
            if self._thrown is not None:
                thrown, self._thrown = self._thrown, None
                return coro.throw(thrown)
            return coro.send(value)
        except StopIteration as stop:
            self._ended(stop.value, None)
            raise
        except BaseException as error:
            self._ended(None, error)
            if not isinstance(error, KeyboardInterrupt | SystemExit):
                if self._done is not None:
                    raise StopIteration(None) from None  # it has been reported
                if owner.dead:
                    raise asyncio.CancelledError from None  # nobody is left to be told
            raise
        finally:
            owner.step_ended()

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise inside the app's coroutine, as soon as the gate admits it."""
        error: BaseException = typ if isinstance(typ, BaseException) else (val or typ())
        if self.coro is None:
            raise error
        yielded, self._yielded = self._yielded, None
        if (
            isinstance(error, asyncio.CancelledError)
            and asyncio.isfuture(yielded)
            and yielded.cancel(*error.args)
        ):
            # What the coroutine waits for is cancelled first, as Task.cancel() does.
            return _waiting_for(yielded)
        self._thrown = error
        return self.send(None)

    def close(self) -> None:
        """End the app's coroutine (``GeneratorExit``)."""
        if self.coro is not None:
            self.coro.close()

    def __await__(self) -> Any:
        raise TypeError("a carrier is run by its task only")

    def _wait_for_gate(self) -> Any:
        opened = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not opened.done():
                opened.set_result(None)

        self.owner.gate.when_open(tell)
        return _waiting_for(opened)

    def _ended(self, value: Any, error: BaseException | None) -> None:
        self.owner.task_ended(self)
        if self._done is not None:
            self._done(value, plain(error))

    def _overstays(self) -> bool:
        if self._cut_at is None or self.task is None:
            return False
        return self.task.get_loop().time() - self._cut_at > CLEANUP_S

    def _end_by_force(self, coro: Coroutine[Any, Any, Any]) -> None:
        # It went on after its cancellation, longer than a clean-up takes.
        self.owner.task_ended(self)
        with contextlib.suppress(RuntimeError):  # it ignored even GeneratorExit
            coro.close()
        raise asyncio.CancelledError


_BARE = object()
"""Stands for a bare ``yield``, as ``asyncio.sleep(0)`` does."""


def _waiting_for(future: Any) -> Any:
    # What Future.__await__ does before it yields itself: tells the task that it is awaited. The
    # task complains of what is no future.
    if hasattr(future, "_asyncio_future_blocking"):
        future._asyncio_future_blocking = True
    return future


def plain(error: BaseException | None) -> BaseException | None:
    """What a caller is told of an error: another coroutine's cancellation is not the caller's."""
    if isinstance(error, asyncio.CancelledError):
        return RemoteError(f"the handler was cancelled: {error}", "CancelledError")
    return error


def step_aside(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """Take the current task, if there is one, off the stage: code of another owner runs next."""
    outer = asyncio.current_task(loop)
    if outer is not None:
        _leave_task(loop, outer)
    return outer


def step_back(loop: asyncio.AbstractEventLoop, outer: asyncio.Task[Any] | None) -> None:
    """Undo :func:`step_aside`."""
    if outer is not None:
        _enter_task(loop, outer)


class TurnRunner:
    """Runs the handlers of one owner."""

    __slots__ = ("_context", "_loop", "_owner", "_spare")

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._context: Context = owner.context
        self._spare: Carrier | None = None

    def finish(self, coro: Coroutine[Any, Any, Any], done: Done) -> bool:  # noqa: C901 - as send()
        """Run a handler's coroutine; true if it finished without suspending.

        *done* is called exactly once, now or later.
        """
        spare = self._spare
        if spare is None or spare.spoilt:
            spare = self._make_spare()
        loop = self._loop
        task = spare.task
        owner = self._owner
        context = self._context
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)  # type: ignore[arg-type]
        try:
            yielded = context.run(coro.send, None)
        except StopIteration as stop:
            value, error = stop.value, None
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt | SystemExit):
                raise
            value, error = None, plain(raised)
        else:
            self._spare = None
            if yielded is None:
                yielded = _BARE
            elif hasattr(yielded, "_asyncio_future_blocking"):
                yielded._asyncio_future_blocking = False
            spare.adopt(coro, yielded, done)
            if owner.dead:  # it has ended its own object, and goes on to wait for something
                spare.cut(owner.death)
            return False
        finally:
            _leave_task(loop, task)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
        if context != owner.context:  # it has set a variable, which the next one must not see
            self.close()
        if owner.dead:
            value, error = None, owner.death
        done(value, error)
        return True

    def close(self) -> None:
        """End the spare."""
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def _make_spare(self) -> Carrier:
        self.close()
        # Steps that do not suspend run in the spare's context, so that what they start inherits it.
        self._context = self._owner.context.copy()
        carrier = self._spare = Carrier(self._owner, None)
        carrier.task = asyncio.Task(carrier, loop=self._loop, context=self._context)
        return carrier


def task_factory(
    loop: asyncio.AbstractEventLoop, coro: Any, *, context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """Make the tasks of a shard's loop: those that an app's code starts stay under its gate.

    There, any awaitable will do, so that ``create_task(stub.fetch(url))`` is fine.
    """
    owner = current_owner.get() if context is None else context.get(current_owner)
    if owner is None or type(coro) is Carrier:
        return asyncio.Task(coro, loop=loop, context=context, **options)
    if not asyncio.iscoroutine(coro) and hasattr(coro, "__await__"):
        coro = _await(coro)
    section = current_section.get() if context is None else context.get(current_section)
    carrier = Carrier(owner, coro, section)
    carrier.task = asyncio.Task(carrier, loop=loop, context=context, **options)
    if owner.dead:
        carrier.cut(owner.death)
    return carrier.task


async def _await(awaitable: Any) -> Any:
    return await awaitable
