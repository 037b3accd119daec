"""Timers, ``fetch`` and the other functions of JavaScript's global scope that need a host."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from workers.fetch import fetch as _fetch
from workers.host import Timer, current_host
from workers.request import Request
from workers.serialization import deserialize, serialize

if TYPE_CHECKING:
    from workers.response import Response


def setTimeout(callback: Callable[..., Any], delay_ms: float = 0, *args: Any) -> Timer:
    """Call ``callback(*args)`` once, after ``delay_ms`` milliseconds.

    Source: https://developer.mozilla.org/docs/Web/API/Window/setTimeout
    """
    return _timer(callback, delay_ms, args, repeat=False)


def setInterval(callback: Callable[..., Any], delay_ms: float = 0, *args: Any) -> Timer:
    """Call ``callback(*args)`` every ``delay_ms`` milliseconds.

    Source: https://developer.mozilla.org/docs/Web/API/Window/setInterval
    """
    return _timer(callback, delay_ms, args, repeat=True)


def clearTimeout(timer: Timer | None = None) -> None:
    """Cancel what :func:`setTimeout` or :func:`setInterval` returned; no effect on ``None``."""
    if timer is not None:
        timer.cancel()


def clearInterval(timer: Timer | None = None) -> None:
    """Cancel what :func:`setInterval` returned; no effect on ``None``."""
    clearTimeout(timer)


def queueMicrotask(callback: Callable[[], Any]) -> None:
    """Call ``callback()`` when the running step has ended, before any other event."""
    current_host().queue_microtask(callback)


async def fetch(resource: Any, init: Any = None, **options: Any) -> Response:
    """Send a request: as ``workers.fetch``, with the options in a dict as in JavaScript.

    Source: https://developers.cloudflare.com/workers/runtime-apis/fetch/
    """
    return await _fetch(Request.new(resource, init, **options))


def structuredClone(value: Any, _options: object = None) -> Any:
    """Return a deep copy.

    Raises:
        DataCloneError: it contains something that cannot be copied.
    """
    return deserialize(serialize(value))


class _Crypto:
    """The parts of JavaScript's ``crypto`` that Python programs have used."""

    def randomUUID(self) -> str:
        """Return a random UUID."""
        return str(uuid.uuid4())

    def getRandomValues(self, array: Any) -> Any:
        """Fill ``array`` with random bytes and return it."""
        array[:] = secrets.token_bytes(len(array))
        return array


class _Performance:
    """JavaScript's ``performance``."""

    def now(self) -> float:
        """Return milliseconds of a clock that only rises."""
        return time.perf_counter() * 1000


class _Scheduler:
    """Cloudflare's ``scheduler``."""

    async def wait(self, delay_ms: float, _options: object = None) -> None:
        """Return after ``delay_ms`` milliseconds."""
        await asyncio.sleep(delay_ms / 1000)


crypto = _Crypto()
performance = _Performance()
scheduler = _Scheduler()


def _timer(
    callback: Callable[..., Any], delay_ms: float, args: tuple[Any, ...], *, repeat: bool
) -> Timer:
    if not callable(callback):
        raise TypeError(f"a timer needs a function, not {type(callback).__name__}")
    function = partial(callback, *args) if args else callback
    return current_host().set_timer(function, max(delay_ms or 0, 0) / 1000, repeat=repeat)
