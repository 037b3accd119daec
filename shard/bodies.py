"""Streamed bodies over a link: bounded by credit, in both directions.

The receiver grants ``window_bytes`` at the start, silently, and more as its reader consumes; the
sender stops pulling from its source while it has none. So a body of any length needs at most one window of memory
on each side, and a slow reader slows its source down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from common.errors import LinkDown
from common.link.driver import Link
from common.link.records import BODY, BODY_ABORT, BODY_CREDIT, BODY_END

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

    __slots__ = ("_chunks", "_ended", "_error", "_link", "_owed", "_request_id", "_waiter")

    def __init__(self, link: Link, request_id: int) -> None:
        self._link = link
        self._request_id = request_id
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._owed = 0
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, chunk: bytes) -> None:
        """The next piece has come."""
        self._chunks.append(chunk)
        self._tell()

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._tell()

    def abort(self, error: BaseException) -> None:
        """The rest will never come: reading on raises *error*."""
        if not self._ended and self._error is None:
            self._error = error
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
            if self._link.is_open:
                self._link.urgent([BODY_CREDIT, self._request_id, self._owed])
            self._owed = 0
        return chunk

    def discard(self) -> None:
        """Nobody will read the rest: let the sender run to its end."""
        self._error = BodyError("the body was discarded")
        unread = sum(map(len, self._chunks)) + self._owed
        self._chunks.clear()
        if unread and not self._ended and self._link.is_open:
            self._link.urgent([BODY_CREDIT, self._request_id, unread])


class OutboundBody:
    """Sends a body from an async iterator.

    Args:
        source: gives ``bytes``; closed when the body ends early.
        window_bytes: the credit to start with.
    """

    __slots__ = ("_credit", "_link", "_request_id", "_source", "_waiter", "stopped")

    def __init__(
        self, link: Link, request_id: int, source: AsyncIterator[Any], window_bytes: int
    ) -> None:
        self._link = link
        self._request_id = request_id
        self._source = source
        self._credit = window_bytes
        self._waiter: asyncio.Future[None] | None = None
        self.stopped = False

    def credit(self, count: int) -> None:
        """The receiver has consumed *count* bytes more."""
        self._credit += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """The receiver wants no more, or is gone."""
        self.stopped = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self) -> None:
        """Send until the end of the source. Errors of the source end the body as aborted."""
        link, request_id = self._link, self._request_id
        try:
            async for piece in self._source:
                data = piece.encode() if isinstance(piece, str) else bytes(piece)
                for start in range(0, len(data), CHUNK_BYTES):
                    chunk = data[start : start + CHUNK_BYTES]
                    await self._room()
                    if self.stopped or not link.is_open:
                        return
                    self._credit -= len(chunk)
                    link.send([BODY, request_id, chunk], len(chunk))
        except Exception as error:
            if link.is_open and not self.stopped:
                link.send([BODY_ABORT, request_id, f"{type(error).__name__}: {error}"])
            raise
        else:
            if link.is_open and not self.stopped:
                link.send([BODY_END, request_id])
        finally:
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    async def _room(self) -> None:
        while self._credit <= 0 and not self.stopped:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


def link_lost(error: LinkDown | None = None) -> BodyError:
    """What a reader is told whose sender is gone."""
    return BodyError(f"the sender of the body is gone ({error or 'link down'})")
