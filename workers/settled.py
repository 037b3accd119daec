"""An awaitable whose outcome is known already.

Storage calls have done their work when they return. What they return can still be awaited, given to
``asyncio.gather`` or made a task; awaiting it never lets another event of the object run.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")


class Settled(Coroutine[Any, Any, T], Generic[T]):
    """An awaitable of ``value``; may be dropped without being awaited."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        return self._value
        yield  # a generator, which ends without suspending

    # A coroutine by its methods, so that asyncio.create_task() takes it.

    def send(self, value: Any) -> NoReturn:
        """Step it, as an event loop does."""
        raise StopIteration(self._value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> NoReturn:
        """Raise in it, as an event loop does."""
        raise typ if val is None else val

    def close(self) -> None:
        """Do nothing: it has ended."""

    def _not_awaited(self, *_: object) -> NoReturn:
        raise TypeError("a storage call was not awaited: write `await ctx.storage.…`")

    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = _not_awaited

    def __repr__(self) -> str:
        return "<result of a storage call: not awaited yet>"


DONE: Settled[None] = Settled(None)
"""The outcome of a call that returns nothing."""
