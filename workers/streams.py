"""ReadableStream: bytes that come piece by piece, pulled by whoever reads.

Nothing is read ahead: the producer's next step runs when the consumer asks for it, so a slow reader
slows the producer down. https://developers.cloudflare.com/workers/runtime-apis/streams/
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final

from workers.events import Bytes
from workers.exceptions import BodyUsedError

MAX_TEE_BYTES: Final = 128 * 1024 * 1024
"""How far one half of a ``tee()`` may run ahead of the other."""


class ReadResult:
    """What a reader's ``read()`` gives.

    Attributes:
        value: the next piece (bytes that also answer as Pyodide's Uint8Array), ``None`` at the end.
        done: the stream has ended.
    """

    __slots__ = ("done", "value")

    def __init__(self, value: Bytes | None, done: bool) -> None:
        self.value = value
        self.done = done

    def __getitem__(self, key: str) -> bytes | bool | None:
        if key not in self.__slots__:
            raise KeyError(key)
        return self.done if key == "done" else self.value

    def __repr__(self) -> str:
        return f"ReadResult(value={self.value!r}, done={self.done})"


class ReadableStream:
    """A stream of bytes: ``async for chunk in stream``, or a reader's ``await reader.read()``.

    Args:
        source: an async iterable of bytes-like chunks.
        on_cancel: called once with the reason when the consumer gives up before the end.

    Source: https://developers.cloudflare.com/workers/runtime-apis/streams/readablestream/
    """

    __slots__ = ("_buffer", "_done", "_error", "_on_cancel", "_reader", "_source", "_used")

    def __init__(
        self,
        source: AsyncIterable[bytes | bytearray | memoryview],
        on_cancel: Callable[[object], object] | None = None,
    ) -> None:
        if not hasattr(source, "__aiter__"):
            raise TypeError(
                f"ReadableStream needs an async iterable of bytes, not {type(source).__name__}"
            )
        self._source: AsyncIterator[bytes | bytearray | memoryview] = source.__aiter__()
        self._on_cancel = on_cancel
        self._reader: ReadableStreamDefaultReader | None = None
        self._used = False
        self._done = False
        self._error: BaseException | None = None
        self._buffer = b""

    @classmethod
    def new(cls, source: Any = None, *_strategy: object) -> ReadableStream:
        """Make a stream as JavaScript's ``new ReadableStream({start, pull, cancel})`` does.

        Args:
            source: an async iterable, or a mapping or object with ``start(controller)``,
                ``pull(controller)`` and ``cancel(reason)``; each may be a coroutine function.
        """
        if hasattr(source, "__aiter__"):
            return cls(source)
        producer = _Producer(source)
        return cls(producer, producer.cancel)

    @classmethod
    def of(cls, data: bytes) -> ReadableStream:
        """Return a stream of one chunk; of none if ``data`` is empty."""
        return cls(_once(data))

    @property
    def locked(self) -> bool:
        """Whether a reader holds it."""
        return self._reader is not None

    @property
    def disturbed(self) -> bool:
        """Whether anything was read from it, or it was cancelled."""
        return self._used

    def __aiter__(self) -> AsyncIterator[Bytes]:
        """Iterate over the remaining chunks.

        Raises:
            BodyUsedError: a reader holds the stream.
        """
        return _AppChunks(self.chunks())

    def chunks(self) -> AsyncIterator[bytes]:
        """The same as plain ``bytes``, which nobody has to copy: for a host that sends them on.

        Raises:
            BodyUsedError: a reader holds the stream.
        """
        if self._reader is not None:
            raise BodyUsedError("The ReadableStream is locked to a reader.")
        return _Chunks(self)

    async def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes (all that is left when negative); ``b""`` at the end."""
        if size < 0:
            chunks = [self._take_buffer()]
            while (chunk := await self._pull()) is not None:
                chunks.append(chunk)
            return b"".join(chunks)
        if not self._buffer:
            self._buffer = await self._pull() or b""
        head, self._buffer = self._buffer[:size], self._buffer[size:]
        return head

    def getReader(self, options: object = None) -> ReadableStreamDefaultReader:
        """Lock the stream to a new reader.

        Raises:
            TypeError: another reader holds it.
        """
        if self._reader is not None:
            raise TypeError("This ReadableStream is currently locked to a reader.")
        self._reader = ReadableStreamDefaultReader(self)
        return self._reader

    async def cancel(self, reason: object = None) -> None:
        """Read no further: the producer is told ``reason`` and closed. No effect at the end."""
        self._used = True
        if self._done:
            return
        self._done = True
        if self._on_cancel is not None:
            result = self._on_cancel(reason)
            if isinstance(result, Awaitable):
                await result
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def tee(self) -> tuple[ReadableStream, ReadableStream]:
        """Split it in two streams with the same content; the original stays locked.

        What only one half has read is kept for the other, up to 128 MiB.

        Raises:
            TypeError: a reader holds the stream.
        """
        shared = _Tee(self.getReader())
        return ReadableStream(shared.half(0)), ReadableStream(shared.half(1))

    get_reader = getReader

    def _take_buffer(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    async def _pull(self) -> bytes | None:
        self._used = True
        if self._buffer:
            return self._take_buffer()
        if self._error is not None:
            raise self._error
        while not self._done:
            try:
                chunk = await self._source.__anext__()
            except StopAsyncIteration:
                self._done = True
                break
            except Exception as error:
                self._done = True
                self._error = error
                raise
            if type(chunk) is not bytes:
                chunk = _as_bytes(chunk)
            if chunk:
                return chunk
        return None

    def __repr__(self) -> str:
        return f"<ReadableStream {'locked' if self.locked else 'ended' if self._done else 'open'}>"


class _Chunks:
    __slots__ = ("_stream",)

    def __init__(self, stream: ReadableStream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._stream._pull()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Give up before the end: the producer is told, and closed."""
        await self._stream.cancel()


class _AppChunks:
    """Chunks for the app, which may ask them what it would ask a Uint8Array of Pyodide."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __aiter__(self) -> _AppChunks:
        return self

    async def __anext__(self) -> Bytes:
        return Bytes(await self._chunks.__anext__())

    async def aclose(self) -> None:
        """Give up before the end: the producer is told, and closed."""
        await self._chunks.aclose()


class ReadableStreamDefaultReader:
    """Reads a stream that is locked to it.

    Source: https://developers.cloudflare.com/workers/runtime-apis/streams/readablestreamdefaultreader/
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: ReadableStream) -> None:
        self._stream: ReadableStream | None = stream

    def _held(self) -> ReadableStream:
        if self._stream is None:
            raise TypeError("This ReadableStream reader has been released.")
        return self._stream

    async def read(self) -> ReadResult:
        """Return the next chunk.

        Raises:
            TypeError: the lock was released.
        """
        chunk = await self._held()._pull()
        return ReadResult(None if chunk is None else Bytes(chunk), chunk is None)

    async def cancel(self, reason: object = None) -> None:
        """See :meth:`ReadableStream.cancel`."""
        await self._held().cancel(reason)

    def releaseLock(self) -> None:
        """Let others read the stream; this reader is of no use any more."""
        if self._stream is not None:
            self._stream._reader = None
            self._stream = None

    release_lock = releaseLock


class _Producer:
    """The controller and the iterator behind ``ReadableStream.new({...})``."""

    def __init__(self, source: Any) -> None:
        def function(name: str) -> Callable[..., Any] | None:
            value = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
            return value if callable(value) else None

        self._start, self._pull, self._cancel = (
            function("start"),
            function("pull"),
            function("cancel"),
        )
        self._queue: deque[bytes] = deque()
        self._closed = False
        self._failure: BaseException | None = None

    @property
    def desiredSize(self) -> int:
        """How many more chunks the stream wants."""
        return 0 if self._closed else 1 - len(self._queue)

    def enqueue(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hand out a chunk."""
        if self._closed:
            raise TypeError("Unable to enqueue: the stream is closed.")
        self._queue.append(_as_bytes(chunk))

    def close(self) -> None:
        """End the stream after what is queued."""
        self._closed = True

    def error(self, reason: object = None) -> None:
        """Fail the stream."""
        self._failure = reason if isinstance(reason, BaseException) else Exception(str(reason))

    def cancel(self, reason: object) -> object:
        return self._cancel(reason) if self._cancel is not None else None

    def __aiter__(self) -> _Producer:
        return self

    async def __anext__(self) -> bytes:
        start, self._start = self._start, None
        if start is not None:
            await _settle(start(self))
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            if self._closed or self._pull is None:
                raise StopAsyncIteration
            await _settle(self._pull(self))
        return self._queue.popleft()


class _Tee:
    """Two halves of one stream; what one half has read alone waits in the other's queue."""

    def __init__(self, reader: ReadableStreamDefaultReader) -> None:
        self._reader = reader
        self._queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self._waiting_bytes = [0, 0]
        self._reading = asyncio.Lock()
        self._ended = False
        self._left = [False, False]

    async def half(self, index: int) -> AsyncIterator[bytes]:
        queue = self._queues[index]
        try:
            while True:
                while queue:
                    chunk = queue.popleft()
                    self._waiting_bytes[index] -= len(chunk)
                    yield chunk
                if self._ended:
                    return
                async with self._reading:
                    if not queue and not self._ended:
                        await self._read()
        finally:
            self._left[index] = True
            queue.clear()
            if all(self._left):
                await self._reader.cancel()

    async def _read(self) -> None:
        chunk = (await self._reader.read()).value
        if chunk is None:
            self._ended = True
            return
        for index, queue in enumerate(self._queues):
            if not self._left[index]:
                queue.append(chunk)
                self._waiting_bytes[index] += len(chunk)
        if max(self._waiting_bytes) > max(MAX_TEE_BYTES, len(chunk)):
            raise BufferError(
                f"tee(): one half is more than {MAX_TEE_BYTES} bytes ahead of the other"
            )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _settle(result: object) -> None:
    if isinstance(result, Awaitable):
        await result


def _as_bytes(chunk: object) -> bytes:
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise TypeError(
        f"a stream carries bytes, not {type(chunk).__name__}: encode each chunk, "
        "as in text.encode()"
    )
