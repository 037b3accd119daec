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
starts (:func:`task_factory`).
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Protocol

from shard.gate import InputGate, Section, current_section


class Owner(Protocol):
    """Whom a coroutine belongs to: an activation, or an entry point's request."""

    gate: InputGate
    context: Context
    dead: bool

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
        "_done",
        "_park",
        "_section",
        "_thrown",
        "_yielded",
        "coro",
        "owner",
        "task",
    )

    def __init__(self, owner: Owner, coro: Coroutine[Any, Any, Any] | None) -> None:
        self.owner = owner
        self.coro = coro
        self.task: asyncio.Task[Any] | None = None
        self._done: Done | None = None
        self._yielded: Any = None
        self._thrown: BaseException | None = None
        self._park: asyncio.Future[None] | None = None
        self._section: Section | None = current_section.get() if coro is not None else None
        if coro is not None:
            owner.task_started(self)

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
        self._yielded = None
        if self.task is not None:
            self.task.cancel()
        if done is not None:
            done(None, error)

    @property
    def spoilt(self) -> bool:
        """A spare that the app has cancelled during a step that did not suspend."""
        return self._park is not None and self._park.done()

    def discard(self) -> None:
        """End a spare that will not be used."""
        if self.task is not None and self.coro is None:
            self.task.cancel()

    # --- the task's side -----------------------------------------------------------------------

    def send(self, value: Any) -> Any:
        """One step: returns the future to wait for, as a task expects it."""
        coro = self.coro
        if coro is None:
            self._park = asyncio.get_running_loop().create_future()
            return _waiting_for(self._park)
        if self._yielded is not None:
            yielded, self._yielded = self._yielded, None
            return None if yielded is _BARE else _waiting_for(yielded)
        owner = self.owner
        if not owner.gate.open and not owner.gate.admits(self._section) and not owner.dead:
            return self._wait_for_gate()
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
            if self._done is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
                raise StopIteration(None) from None  # it has been reported
            raise
        finally:
            owner.step_ended()

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise inside the app's coroutine, as soon as the gate admits it."""
        error: BaseException = typ if isinstance(typ, BaseException) else (val or typ())
        if self.coro is None:
            raise error
        self._yielded = None
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
            self._done(value, error)


_BARE = object()
"""Stands for a bare ``yield``, as ``asyncio.sleep(0)`` does."""


def _waiting_for(future: Any) -> Any:
    # What Future.__await__ does before it yields itself: tells the task that it is awaited.
    future._asyncio_future_blocking = True
    return future


class TurnRunner:
    """Runs the handlers of one owner."""

    __slots__ = ("_context", "_loop", "_owner", "_spare")

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._context = owner.context
        self._spare: Carrier | None = None

    def finish(self, coro: Coroutine[Any, Any, Any], done: Done) -> bool:
        """Run a handler's coroutine; true if it finished without suspending.

        *done* is called exactly once, now or later.
        """
        spare = self._spare
        if spare is None or spare.spoilt:
            spare = self._spare = self._make_spare()
        loop = self._loop
        task = spare.task
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)  # type: ignore[arg-type]
        try:
            yielded = self._context.run(coro.send, None)
        except StopIteration as stop:
            value, error = stop.value, None
        except BaseException as raised:
            value, error = None, raised
            if isinstance(raised, KeyboardInterrupt | SystemExit):
                raise
        else:
            self._spare = None
            if yielded is None:
                yielded = _BARE
            elif hasattr(yielded, "_asyncio_future_blocking"):
                yielded._asyncio_future_blocking = False
            spare.adopt(coro, yielded, done)
            return False
        finally:
            _leave_task(loop, task)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
        done(value, error)
        return True

    def close(self) -> None:
        """End the spare."""
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def _make_spare(self) -> Carrier:
        # Steps that do not suspend run in the spare's context, so that what they start inherits it.
        self._context = self._owner.context.copy()
        carrier = Carrier(self._owner, None)
        carrier.task = asyncio.Task(carrier, loop=self._loop, context=self._context)
        return carrier


def task_factory(
    loop: asyncio.AbstractEventLoop, coro: Any, *, context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """Make the tasks of a shard's loop: those that an app's code starts stay under its gate."""
    owner = current_owner.get() if context is None else context.get(current_owner)
    if owner is None or isinstance(coro, Carrier) or not asyncio.iscoroutine(coro):
        return asyncio.Task(coro, loop=loop, context=context, **options)
    carrier = Carrier(owner, coro)
    carrier.task = asyncio.Task(carrier, loop=loop, context=context, **options)
    return carrier.task
