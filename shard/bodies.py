"""Streamed bodies over a link: bounded by credit, in both directions.

The receiver grants ``window_bytes`` at the start, silently, and more as its reader consumes; the
sender never sends more than that, and does not pull from its source while it has none. So a body of
any length needs at most one window of memory on each side, and a slow reader slows its source down.

Every body ends with one record: ``BODY_END`` if it is complete, else ``BODY_ABORT``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from common.errors import LinkDown
from common.link.records import BODY, BODY_ABORT, BODY_CREDIT, BODY_END
from shard.line import Line

CHUNK_BYTES = 64 * 1024
"""Largest piece that is sent as one record; larger ones are cut."""


class BodyError(OSError):
    """The body ended early: its sender aborted it, or is gone."""


class InboundBody:
    """A body that arrives piece by piece; iterate over it once.

    Args:
        link: gets the credit.
        request_id: whose body.
    """

    __slots__ = (
        "_chunks",
        "_discarded",
        "_ended",
        "_error",
        "_link",
        "_owed",
        "_request_id",
        "_waiter",
    )

    def __init__(self, link: Line, request_id: int) -> None:
        self._link = link
        self._request_id = request_id
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._discarded = False
        self._error: BaseException | None = None
        self._owed = 0
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, chunk: bytes) -> None:
        """The next piece has come."""
        if self._discarded:
            self._credit(len(chunk))
        elif self._error is None:
            self._chunks.append(chunk)
            self._tell()

    @property
    def over(self) -> bool:
        """Nothing more will come of it."""
        return self._ended or (self._error is not None and not self._discarded)

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._tell()

    def abort(self, error: BaseException) -> None:
        """The rest will never come: reading on raises *error*."""
        if not self._ended and (self._error is None or self._discarded):
            self._error = error
            self._discarded = False
            self._tell()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            BodyError: it ended early.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        self._owed += len(chunk)
        if not self._ended and (not self._chunks or self._owed >= CHUNK_BYTES):
            owed, self._owed = self._owed, 0
            self._credit(owed)
        return chunk

    def discard(self) -> None:
        """Nobody will read the rest: let the sender run to its end."""
        unread = sum(map(len, self._chunks)) + self._owed
        self._chunks.clear()
        self._owed = 0
        if not self._ended and self._error is None:
            self._error = BodyError("the body was discarded")
            self._discarded = True
            self._tell()
            if unread:
                self._credit(unread)

    def _credit(self, count: int) -> None:
        if self._link.is_open:
            self._link.urgent([BODY_CREDIT, self._request_id, count])


class OutboundBody:
    """Sends a body from an async iterator.

    Args:
        source: gives ``bytes``; closed when the body ends early.
        window_bytes: the credit to start with.
    """

    __slots__ = ("_credit", "_link", "_request_id", "_source", "_task", "_waiter", "stopped")

    def __init__(
        self, link: Line, request_id: int, source: AsyncIterator[Any], window_bytes: int
    ) -> None:
        self._link = link
        self._request_id = request_id
        self._source = source
        self._credit = window_bytes
        self._task: asyncio.Task[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.stopped = False

    def credit(self, count: int) -> None:
        """The receiver has consumed *count* bytes more."""
        self._credit += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """The receiver wants no more, or is gone: :meth:`run` ends wherever it waits."""
        self.stopped = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Send until the end of the source, which is closed in any case.

        What the source raises ends the body as aborted and is raised again. So does a cancellation,
        unless :meth:`stop` was its reason.
        """
        self._task = asyncio.current_task()
        try:
            if self.stopped:
                self._abort("it is not wanted")
                return
            async for piece in self._source:
                data = piece.encode() if isinstance(piece, str) else bytes(piece)
                await self._send(data)
        except asyncio.CancelledError:
            self._abort("it is not wanted" if self.stopped else "its sender was ended")
            if not self.stopped:
                raise
        except Exception as error:
            self._abort(f"{type(error).__name__}: {error}")
            raise
        else:
            if self._link.is_open:
                self._link.send([BODY_END, self._request_id])
        finally:
            self._task = None
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    async def _send(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            while self._credit <= 0:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            chunk = data[start : start + min(CHUNK_BYTES, self._credit)]
            start += len(chunk)
            self._credit -= len(chunk)
            if self._link.is_open:
                self._link.send([BODY, self._request_id, chunk], len(chunk))

    def _abort(self, text: str) -> None:
        if self._link.is_open:
            self._link.send([BODY_ABORT, self._request_id, text])


def link_lost(error: LinkDown | None = None) -> BodyError:
    """What a reader is told whose sender is gone."""
    return BodyError(f"the sender of the body is gone ({error or 'link down'})")
