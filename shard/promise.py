"""An answer that is already on its way: what a call to another object returns.

The call has begun when the promise is made, so it may be dropped without being awaited. If the
answer is there by the time it is awaited, awaiting costs nothing; no future is made unless someone
really has to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Promise(Generic[T]):
    """One answer, to be had once or often."""

    __slots__ = ("__weakref__", "_done", "_error", "_future", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        """The answer is there."""
        return self._done

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Give the answer: a value, or an error to raise. Only the first one counts."""
        if self._done:
            return
        self._done = True
        self._value = value
        self._error = error
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            if self._future is None or self._future.cancelled():
                self._future = asyncio.get_running_loop().create_future()
            # Shielded: one waiter's cancellation is not the others'.
            yield from asyncio.shield(self._future).__await__()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]
