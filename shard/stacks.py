"""``run_sync``: synchronous code that waits, while everything else goes on.

``from pyodide.ffi import run_sync`` lets a plain function wait for an awaitable. On Cloudflare the
runtime then switches to another stack; CPython has one for each thread. So such code runs on a
*greenlet*, a second C stack of the same thread: when it waits, the event loop's stack goes on, and
the handler turns into a coroutine like any other. It belongs to its object's tasks, obeys its gate,
and is cut when the object ends.

::

    call(function) ──▶ plain value                      it did not wait
                   └─▶ coroutine: await, switch back    it did: :func:`_wait_for`

A switch costs most of a microsecond, so only apps pay for it whose own modules speak of
``run_sync`` (:func:`app_uses_run_sync`). Greenlets are used again: making one costs 7 µs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from greenlet import getcurrent, greenlet

MAX_SPARE: Final = 64

_spare: list[Stack] = []


class Stack(greenlet):  # type: ignore[misc]
    """A stack on which one synchronous handler at a time runs.

    Attributes:
        task: the current task of the event loop while that handler itself runs. On the same stack
            the handler may call another object, whose coroutine then runs there as another task.
    """

    task: asyncio.Task[Any] | None = None


class _Waiting:
    """What a stack hands out when its handler waits."""

    __slots__ = ("awaitable", "stack")

    def __init__(self, stack: Stack, awaitable: Any) -> None:
        self.stack = stack
        self.awaitable = awaitable


def app_uses_run_sync(root: Path) -> bool:
    """Whether a module of the app in *root*, as far as they are loaded, speaks of ``run_sync``."""
    prefix = os.path.join(root, "")
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        is_apps = isinstance(name, str) and name.startswith(prefix) and name.endswith(".py")
        if is_apps and _mentions_run_sync(str(name)):
            return True
    return False


@lru_cache(maxsize=4096)
def _mentions_run_sync(path: str) -> bool:
    try:
        return b"run_sync" in Path(path).read_bytes()
    except OSError:
        return False  # loaded from a place that is gone: it has said what it had to say


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function* on a stack of its own.

    Returns:
        what it returns; a coroutine of that, if it waits.

    Raises:
        BaseException: what it raises before it waits for the first time.
    """
    stack = _spare.pop() if _spare else Stack(_work)
    stack.parent = getcurrent()
    # A context can be entered once at a time, and this one may be left in the middle.
    stack.gr_context = copy_context()
    stack.task = asyncio.current_task()
    return _outcome(stack, stack.switch(function, args))


def wait(awaitable: Any) -> Any:
    """Wait for *awaitable* in synchronous code that :func:`call` has called.

    Raises:
        RuntimeError: it was called in another way.
        BaseException: what the awaitable raises.
    """
    stack = getcurrent()
    if not isinstance(stack, Stack) or asyncio.current_task() is not stack.task:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(
            "run_sync() can wait only in a synchronous handler (fetch, an RPC method, alarm, "
            "a timer) of an app that imports it when it is loaded; in a coroutine use await"
        )
    assert stack.parent is not None
    value, error = stack.parent.switch(_Waiting(stack, awaitable))
    if error is not None:
        raise error
    return value


def _work(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """What a stack does: one handler after the other."""
    me = getcurrent()
    while True:
        result: list[Any] = [None, None]
        try:
            result[0] = function(*args)
        except BaseException as error:
            result[1] = error
        assert me.parent is not None
        # A spare stack must not keep an object alive: what it has given is emptied by the taker.
        del function, args
        function, args = me.parent.switch(result)


def _outcome(stack: Stack, given: Any) -> Any:
    if isinstance(given, _Waiting):
        return _wait_for(given)
    if len(_spare) < MAX_SPARE:
        stack.gr_context = None
        stack.task = None
        _spare.append(stack)
    value, error = given
    given.clear()
    if error is not None:
        raise error
    return value


async def _wait_for(waiting: _Waiting) -> Any:
    stack = waiting.stack
    given: Any = waiting
    while isinstance(given, _Waiting):
        value, error = None, None
        try:
            value = await given.awaitable
        except BaseException as raised:
            error = raised
        stack.parent = getcurrent()
        stack.task = asyncio.current_task()
        given = stack.switch(value, error)
    result = _outcome(stack, given)
    if isinstance(result, Coroutine):
        return await result
    return result
