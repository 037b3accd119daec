"""``async for message in ws``: the messages of a socket as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workers.events import Bytes, CloseEvent, MessageEvent
    from workers.websocket import WebSocket

MAX_BUFFERED_BYTES: Final = 256 * 1024
"""What is kept for a slow loop; beyond it messages count as unhandled: their sender pauses."""


class MessageStream:
    """The messages of one socket, in order; ends when the socket closes.

    There is one for each socket: a loop that was left goes on where it stopped.
    """

    def __init__(self, socket: WebSocket, *, closed: bool) -> None:
        self._messages: deque[str | Bytes] = deque()
        self._buffered_bytes = 0
        self._closed = closed
        self._reader: asyncio.Future[None] | None = None
        self._held: deque[asyncio.Future[None]] = deque()
        socket.addEventListener("message", self._arrived)
        socket.addEventListener("close", self._ended)

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> str | Bytes:
        while not self._messages:
            if self._closed:
                raise StopAsyncIteration
            if self._reader is None or self._reader.cancelled():
                self._reader = asyncio.get_running_loop().create_future()
            # Shielded: several loops may read one socket, and one may be cancelled.
            await asyncio.shield(self._reader)
        message = self._messages.popleft()
        self._buffered_bytes -= len(message)
        if self._buffered_bytes <= MAX_BUFFERED_BYTES:
            self._let_go()
        return message

    def _arrived(self, event: MessageEvent) -> asyncio.Future[None] | None:
        self._messages.append(event.data)
        self._buffered_bytes += len(event.data)
        self._tell()
        if self._buffered_bytes <= MAX_BUFFERED_BYTES:
            return None
        # The host waits for what a listener returns: until then the message is not handled.
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(held)
        return held

    def _ended(self, event: CloseEvent) -> None:
        self._closed = True
        self._tell()
        self._let_go()

    def _let_go(self) -> None:
        while self._held:
            held = self._held.popleft()
            if not held.done():
                held.set_result(None)

    def _tell(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)
