"""ReadableStream: pulled, never pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from workers import streams
from workers.exceptions import BodyUsedError
from workers.streams import ReadableStream


class Source:
    """An async iterator that remembers what was asked of it."""

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)
        self.pulled = 0
        self.closed = False

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        if not self.parts:
            raise StopAsyncIteration
        self.pulled += 1
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part

    async def aclose(self) -> None:
        self.closed = True


async def test_nothing_is_read_ahead() -> None:
    source = Source(b"a", b"b")
    stream = ReadableStream(source)
    assert source.pulled == 0
    iterator = aiter(stream)
    assert await anext(iterator) == b"a"
    assert source.pulled == 1
    assert stream.disturbed


async def test_chunks_become_bytes_and_empty_ones_are_skipped() -> None:
    stream = ReadableStream(Source(bytearray(b"a"), b"", memoryview(b"b")))
    assert [chunk async for chunk in stream] == [b"a", b"b"]


async def test_text_chunks_are_refused() -> None:
    with pytest.raises(TypeError, match="a stream carries bytes, not str"):
        await ReadableStream(Source("text")).read()


def test_other_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="async iterable of bytes, not list"):
        ReadableStream([b"x"])  # type: ignore[arg-type]


async def test_read_by_size() -> None:
    stream = ReadableStream(Source(b"abcd", b"ef"))
    assert await stream.read(3) == b"abc"
    assert await stream.read(3) == b"d"
    assert await stream.read() == b"ef"
    assert await stream.read(1) == b""


async def test_a_reader_locks_the_stream() -> None:
    stream = ReadableStream(Source(b"a"))
    reader = stream.getReader()
    assert stream.locked
    with pytest.raises(TypeError, match="locked"):
        stream.get_reader()
    with pytest.raises(BodyUsedError):
        aiter(stream)
    result = await reader.read()
    assert (result.value, result.done, result["done"]) == (b"a", False, False)
    assert (await reader.read()).done
    reader.releaseLock()
    assert not stream.locked
    with pytest.raises(TypeError, match="released"):
        await reader.read()


async def test_cancel_tells_the_producer_once() -> None:
    reasons: list[object] = []
    source = Source(b"a", b"b")
    stream = ReadableStream(source, reasons.append)
    await stream.read(1)
    await stream.cancel("enough")
    await stream.cancel("again")
    assert reasons == ["enough"]
    assert source.closed
    assert await stream.read() == b""


async def test_a_failure_of_the_source_reaches_every_read() -> None:
    stream = ReadableStream(Source(b"a", ValueError("cut")))
    assert await stream.read(1) == b"a"
    for _ in range(2):
        with pytest.raises(ValueError, match="cut"):
            await stream.read(1)


async def test_tee_gives_both_halves_everything() -> None:
    source = Source(b"a", b"b")
    first, second = ReadableStream(source).tee()
    assert await first.read(1) == b"a"
    assert await second.read() == b"ab"
    assert await first.read() == b"b"
    assert source.pulled == 2


async def test_both_halves_may_be_read_at_the_same_time() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for part in (b"a", b"b"):
            await gate.wait()
            yield part

    first, second = ReadableStream(slow()).tee()
    readers = asyncio.gather(first.read(), second.read())
    await asyncio.sleep(0)
    gate.set()
    assert list(await readers) == [b"ab", b"ab"]


async def test_a_half_that_is_given_up_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_TEE_BYTES", 3)
    source = Source(b"ab", b"cd", b"ef")
    first, second = ReadableStream(source).tee()
    assert await second.read(1) == b"a"
    await second.cancel()
    assert await first.read(4) == b"ab"
    assert await first.read(4) == b"cd"
    await first.cancel()
    assert source.closed


async def test_a_half_that_runs_too_far_ahead_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_TEE_BYTES", 3)
    first, _ = ReadableStream(Source(b"ab", b"cd")).tee()
    assert await first.read(2) == b"ab"
    with pytest.raises(BufferError, match="more than 3 bytes ahead"):
        await first.read(2)


async def test_new_takes_an_underlying_source() -> None:
    log: list[object] = []

    async def pull(controller: Any) -> None:
        log.append("pull")
        controller.enqueue(b"b")
        controller.close()

    stream = ReadableStream.new(
        {"start": lambda controller: controller.enqueue(b"a"), "pull": pull, "cancel": log.append}
    )
    assert log == []
    assert await stream.read() == b"ab"
    assert log == ["pull"]
    failing = ReadableStream.new({"start": lambda controller: controller.error("broken")})
    with pytest.raises(Exception, match="broken"):
        await failing.read()


async def test_of() -> None:
    assert await ReadableStream.of(b"x").read() == b"x"
    assert [chunk async for chunk in ReadableStream.of(b"")] == []


async def test_a_generator_is_a_source() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3):
            yield str(number).encode()

    assert await ReadableStream(numbers()).read() == b"012"


async def test_chunks_answer_as_arrays_of_pyodide_do() -> None:
    """Programs written for Cloudflare ask each chunk for ``to_py()`` or ``to_bytes()``."""
    async for chunk in ReadableStream(Source(bytearray(b"ab"))):
        assert (chunk.to_bytes(), chunk.to_py(), chunk.byteLength) == (b"ab", memoryview(b"ab"), 2)
    result = await ReadableStream(Source(b"cd")).getReader().read()
    assert result.value is not None
    assert result.value.to_py() == memoryview(b"cd")


async def test_a_host_gets_the_chunks_without_a_copy() -> None:
    piece = b"as it came"
    assert await anext(ReadableStream(Source(piece)).chunks()) is piece


async def test_a_stream_that_is_locked_gives_its_chunks_to_its_reader_alone() -> None:
    stream = ReadableStream(Source(b"a"))
    stream.getReader()
    with pytest.raises(BodyUsedError):
        stream.chunks()
    with pytest.raises(BodyUsedError):
        aiter(stream)
