"""An event loop that does not wait: when nothing can run, it jumps to the next timer.

An hour of time-outs, pings and back-off takes milliseconds, and always the same course. What would
hang on a real loop fails at once here: when nothing can run and no timer is set, :class:`Deadlock`
names the tasks that wait.

::

    async def main() -> None:
        await asyncio.sleep(3600)

    virtual_time.run(main())  # returns at once

    @virtual_time.on_virtual_time  # a test function, in any framework
    async def test_idle_timeout() -> None: ...

Only the loop's own clock is virtual: code must take the time from ``loop.time()``. Sockets within
the process work, since the kernel passes bytes on at once. Work in threads is waited for without
moving the clock if it was started by ``run_in_executor`` or ``asyncio.to_thread``, or lies within
:meth:`VirtualTimeLoop.hold`.
"""

# ruff: noqa: N818 - they read as what happened: Deadlock, Leftovers

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Final, ParamSpec, TypeVar

START_S: Final = 1000.0
"""What ``loop.time()`` says at first: not 0, which much code takes for "never"."""
LIMIT_S: Final = 86_400.0
"""Virtual seconds after which a run is taken for an endless one."""
PATIENCE_S: Final = 10.0
"""Real seconds to wait within :meth:`VirtualTimeLoop.hold` when nothing in the loop can run …"""
GRACE_S: Final = 0.5
"""… and without it, when there is a thread or a socket that might yet bring something."""

P = ParamSpec("P")
T = TypeVar("T")


class VirtualTimeError(RuntimeError):
    """The run cannot go on, or has left something behind."""


class Deadlock(VirtualTimeError):
    """Nothing can run, no timer is set, and nothing outside the loop is waited for."""


class TimeLimitExceeded(VirtualTimeError):
    """The next timer lies beyond the bound of the run."""


class Leftovers(VirtualTimeError):
    """Tasks or timers were left when the run ended."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A stdlib event loop on virtual time.

    Args:
        limit_s: virtual seconds the loop may run, greater than 0.
        patience_s: real seconds to wait within :meth:`hold` when nothing else can run.
    """

    def __init__(self, *, limit_s: float = LIMIT_S, patience_s: float = PATIENCE_S) -> None:
        self._now_s = START_S
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._held = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Let the clock stand still while something outside the loop, such as a thread, works.

        Within it, the loop waits in real time for what ``call_soon_threadsafe`` brings.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def leftovers(self) -> list[str]:
        """What has not ended: a line for each other task and each timer."""
        current = asyncio.current_task(self)
        lines = [
            f"task {task.get_name()}: {_place(task)}"
            for task in asyncio.all_tasks(self)
            if task is not current
        ]
        lines += [
            f"timer in {timer.when() - self._now_s:g} s: {timer!r}"
            for timer in self._timers()
            if not timer.cancelled()
        ]
        return sorted(lines)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As usual; the clock stands still until it is done."""
        hold = self.hold()
        hold.__enter__()
        try:
            future = super().run_in_executor(executor, func, *args)
        except BaseException:
            hold.__exit__(None, None, None)
            raise
        future.add_done_callback(lambda _: hold.__exit__(None, None, None))
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As usual; its time-out does not come early."""
        with self.hold():
            await super().shutdown_default_executor()

    # --- for the selector ----------------------------------------------------------------------

    def _timers(self) -> list[asyncio.TimerHandle]:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers

    def _jump(self, duration_s: float) -> None:
        """Nothing can run for that long: be there."""
        then_s = max(self._now_s + duration_s, math.nextafter(self._now_s, math.inf))
        if then_s - START_S > self._limit_s:
            raise TimeLimitExceeded(
                f"more than {self._limit_s:g} virtual seconds; left are:" + self._listing()
            )
        self._now_s = then_s

    def _stuck(self) -> Deadlock:
        reason = (
            f"nothing came from outside within {self._patience_s:g} s of holding the clock"
            if self._held
            else "nothing can run, no timer is set"
        )
        return Deadlock(f"{reason}, and these wait for ever:{self._listing()}")

    def _listing(self) -> str:
        return "".join(f"\n  {line}" for line in self.leftovers()) or "\n  (no task)"


class _JumpingSelector(selectors.BaseSelector):
    """Never sleeps on behalf of a timer: moves the clock of its loop instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self.register = self._real.register  # type: ignore[method-assign]
        self.unregister = self._real.unregister  # type: ignore[method-assign]
        self.modify = self._real.modify  # type: ignore[method-assign]

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise NotImplementedError  # replaced by the real one's

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise NotImplementedError  # replaced by the real one's

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        loop = self._loop
        if timeout is not None and not loop._held:
            loop._jump(timeout)
        elif loop._held:
            ready = self._real.select(loop._patience_s)
        elif self._has_outside():
            ready = self._real.select(GRACE_S)
        if not ready and (timeout is None or loop._held):
            raise loop._stuck()
        return ready

    def _has_outside(self) -> bool:
        """Whether a socket (beside the loop's own) or a thread may yet bring something."""
        return len(self._real.get_map()) > 1 or threading.active_count() > 1


def run(
    main: Coroutine[Any, Any, T], *, limit_s: float = LIMIT_S, check_leftovers: bool = False
) -> T:
    """Run a coroutine on virtual time, like ``asyncio.run``.

    Args:
        main: what to run.
        limit_s: virtual seconds it may take, greater than 0.
        check_leftovers: it must end every task and timer that it started.

    Raises:
        Deadlock: it would have waited for ever.
        TimeLimitExceeded: it took longer than *limit_s*.
        Leftovers: it left tasks or timers, and *check_leftovers* is set.
    """

    async def checked() -> T:
        result = await main
        if check_leftovers:
            await asyncio.sleep(0)  # transports end in a callback
            await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTimeLoop)
            if lines := loop.leftovers():
                raise Leftovers("left when the run ended:" + "".join(f"\n  {x}" for x in lines))
        return result

    with asyncio.Runner(loop_factory=functools.partial(VirtualTimeLoop, limit_s=limit_s)) as runner:
        return runner.run(checked())


def on_virtual_time(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Turn an ``async def`` test into a plain one that runs on virtual time and leaves nothing."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        run(function(*args, **kwargs), check_leftovers=True)

    return wrapper


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits, as ``function (file:line)`` from the outermost to the innermost."""
    places = []
    waited: Any = task.get_coro()
    while waited is not None:
        frame = getattr(waited, "cr_frame", None) or getattr(waited, "gi_frame", None)
        if frame is None:
            break
        code = frame.f_code
        places.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        waited = getattr(waited, "cr_await", None) or getattr(waited, "gi_yieldfrom", None)
    return " > ".join(places) or repr(task.get_coro())
