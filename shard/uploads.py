"""A streamed request body on its way to the outside world: from the app's code to a socket.

The two ends belong to different parties. The source is the app's code: it is read by a task of the
object, under its gates, and dies with the object. What writes to the socket is a task of the shard
that must outlive nothing of the app. Between them lies one bounded queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any


class Upload:
    """The queue between both: iterate over it once.

    Args:
        source: the app's stream of bytes.
        window_bytes: how much of it may wait here.
        length: what its ``Content-Length`` promises, or ``None``.
        moved: called each time that a piece has been handed on.

    Attributes:
        error: why the source ended early, if it did.
    """

    def __init__(
        self,
        source: AsyncIterator[Any],
        window_bytes: int,
        length: int | None,
        moved: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._window_bytes = window_bytes
        self._missing = length
        self._moved = moved
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._ended = False
        self._begun = False
        self._waiter: asyncio.Future[None] | None = None
        # Made in the caller's context, so it runs under the gates of the caller's object.
        self._task = asyncio.get_running_loop().create_task(self._pump())
        self._task.add_done_callback(self._pumped)

    def stop(self) -> None:
        """Nobody wants the rest: the source is closed."""
        self._task.cancel()

    # --- the app's side ------------------------------------------------------------------------

    async def _pump(self) -> None:
        try:
            async for piece in self._source:
                data = piece.encode() if isinstance(piece, str) else bytes(piece)
                self._count(len(data))
                if data:
                    self._pieces.append(data)
                    self._waiting_bytes += len(data)
                    self._tell()
                while self._waiting_bytes > self._window_bytes:
                    await self._change()
            if self._missing:
                raise TypeError(f"the body ended {self._missing} bytes short of its Content-Length")
        finally:
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    def _count(self, size: int) -> None:
        if self._missing is not None:
            self._missing -= size
            if self._missing < 0:
                raise TypeError(
                    f"the body is {-self._missing} bytes longer than its Content-Length"
                )

    def _pumped(self, task: asyncio.Task[None]) -> None:
        self._ended = True
        if task.cancelled():
            self.error = ConnectionError("the sender of the request's body is gone")
        else:
            self.error = task.exception()
        self._tell()

    # --- the socket's side ---------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:
            # The HTTP client tries again on a connection that turned out to be stale.
            raise ConnectionError("a streamed body cannot be sent a second time")
        self._begun = True
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self._ended:
                raise StopAsyncIteration
            await self._change()
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        self._tell()
        self._moved()
        return piece

    # At any time at most one side waits: the reader when the queue is empty, the pump when it is
    # full. So one future serves both.

    async def _change(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
