"""What an object sends after a write waits until the write is durable (§3.4): answers and calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shard.storage.output_gate import OutputGate
from tests.shard.pair import Pair, pair, settle
from workers import DurableObject, ReadableStream, RemoteError, Request, Response


class Writer(DurableObject):
    """Its gate is held by the test, as a write would."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env
        self.seen: list[Any] = []

    def note(self, what: Any) -> int:
        self.seen.append(what)
        return len(self.seen)

    def fail(self) -> None:
        raise ValueError("after the write")

    async def tell(self, name: str, how: str) -> None:
        other = self.env.WRITER.getByName(name)
        if how == "fetch":
            await other.fetch("http://x/told")
        else:
            await other.note("told")

    async def use(self, function: Any) -> Any:
        return await function("told")

    async def fetch(self, request: Request) -> Response:
        self.seen.append(request.url)
        if request.url.endswith("stream"):
            return Response(self.pieces())
        if request.url.endswith("take"):
            assert request.body is not None
            self.seen += [bytes(piece) async for piece in request.body]
        return Response("")

    async def pieces(self, *, fails: bool = False) -> AsyncIterator[bytes]:
        """A write comes before the second piece."""
        yield b"before"
        host: Any = self.ctx._host
        gate = host._activation.outputs = OutputGate()
        gate.hold()
        self.seen.append(gate)
        if fails:
            raise ValueError("after the write")
        yield b"after"

    def stream(self) -> ReadableStream:
        return ReadableStream(self.pieces())

    def failing(self) -> ReadableStream:
        return ReadableStream(self.pieces(fails=True))

    def response(self) -> Response:
        return Response(self.pieces())

    async def give(self, name: str, how: str) -> None:
        other = self.env.WRITER.getByName(name)
        if how == "argument":
            await other.take(ReadableStream(self.pieces()))
        else:
            await other.fetch(Request("http://x/take", method="POST", body=self.pieces()))

    async def take(self, stream: Any) -> None:
        self.seen += [bytes(piece) async for piece in stream]


@pytest.fixture
async def shards() -> AsyncIterator[Pair]:
    async with pair(Writer) as both:
        yield both


@pytest.fixture(params=[0, 1], ids=["local", "remote"])
def writer(request: pytest.FixtureRequest, shards: Pair) -> Any:
    return shards.stub("WRITER", home=request.param)


async def held(shards: Pair, stub: Any) -> OutputGate:
    """Let the object have written something that is not durable."""
    await stub.note("first")
    gate = shards.activation(stub).outputs = OutputGate()
    gate.hold()
    return gate


def durable(gate: OutputGate) -> None:
    gate.settled(gate.end_run())


@pytest.mark.parametrize("how", ["result", "error", "response"])
async def test_answers_wait_for_the_write(shards: Pair, writer: Any, how: str) -> None:
    gate = await held(shards, writer)
    promise = {
        "result": lambda: writer.note(["second"]),
        "error": writer.fail,
        "response": lambda: writer.fetch("http://x/"),
    }[how]()
    await settle()
    assert not promise._awaitable.done
    durable(gate)
    if how == "error":
        with pytest.raises(ValueError, match="after the write"):
            await promise
    elif how == "result":
        assert await promise == 2
    else:
        assert (await promise).status == 200


async def test_answers_leave_in_the_order_they_were_made(shards: Pair, writer: Any) -> None:
    gate = await held(shards, writer)
    promises = [writer.note(number) for number in range(5)]
    await settle()
    durable(gate)
    assert [await promise for promise in promises] == [2, 3, 4, 5, 6]


async def test_a_lost_write_takes_the_answer_with_it_and_breaks_the_stub(
    shards: Pair, writer: Any
) -> None:
    gate = await held(shards, writer)
    promise = writer.note("lost")
    await settle()
    gate.fail(RemoteError("the disk is full"))
    with pytest.raises(RemoteError, match="the disk is full"):
        await promise
    with pytest.raises(RemoteError, match="the disk is full"):
        await writer.note("on the same stub")


@pytest.mark.parametrize("how", ["call", "fetch"])
@pytest.mark.parametrize("home", [0, 1])
async def test_calls_to_others_wait_for_the_write(
    shards: Pair, writer: Any, how: str, home: int
) -> None:
    gate = await held(shards, writer)
    other = shards.stub("WRITER", home=home, prefix="other")
    promise = writer.tell(other.name, how)
    await settle()
    assert shards.instance(other) is None
    durable(gate)
    await promise
    assert len(shards.instance(other).seen) == 1


async def test_calls_of_what_was_passed_wait_for_the_write(shards: Pair, writer: Any) -> None:
    gate = await held(shards, writer)
    seen: list[str] = []
    promise = writer.use(seen.append)
    await settle()
    assert seen == []
    durable(gate)
    await promise
    assert seen == ["told"]


async def read_into(stream: Any, pieces: list[bytes]) -> None:
    pieces.extend([bytes(piece) async for piece in Tap(stream, pieces)])


class Tap:
    """Notes what comes as it comes, and gives nothing on."""

    def __init__(self, stream: Any, pieces: list[bytes]) -> None:
        self._chunks = aiter(stream)
        self._pieces = pieces

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> bytes:
        while True:
            self._pieces.append(bytes(await anext(self._chunks)))


async def opened(writer: Any, how: str) -> Any:
    if how in ("stream", "failing"):
        return await getattr(writer, how)()
    response = await (writer.response() if how == "response" else writer.fetch("http://x/stream"))
    return response.body


@pytest.mark.parametrize("fate", ["durable", "lost"])
@pytest.mark.parametrize("how", ["stream", "response", "fetch"])
async def test_each_piece_of_a_stream_waits_for_the_write_before_it(
    shards: Pair, writer: Any, how: str, fate: str
) -> None:
    stream = await opened(writer, how)
    pieces: list[bytes] = []
    reader = asyncio.ensure_future(read_into(stream, pieces))
    await settle(100)
    assert pieces == [b"before"], "a piece left before what it may reveal was durable"
    gate = shards.instance(writer).seen[-1]
    if fate == "durable":
        durable(gate)
        await reader
        assert pieces == [b"before", b"after"]
    else:
        gate.fail(RemoteError("the disk is full"))
        with pytest.raises(Exception, match="the disk is full"):
            await reader
        assert pieces == [b"before"]


async def test_how_a_stream_fails_waits_for_the_write_before_it(shards: Pair, writer: Any) -> None:
    stream = await opened(writer, "failing")
    pieces: list[bytes] = []
    reader = asyncio.ensure_future(read_into(stream, pieces))
    await settle(100)
    assert not reader.done()
    durable(shards.instance(writer).seen[-1])
    with pytest.raises(Exception, match="after the write"):
        await reader


@pytest.mark.parametrize("how", ["argument", "request"])
@pytest.mark.parametrize("home", [0, 1])
async def test_each_piece_of_a_stream_that_is_passed_waits(
    shards: Pair, writer: Any, how: str, home: int
) -> None:
    other = shards.stub("WRITER", home=home, prefix="other")
    promise = writer.give(other.name, how)
    await settle(100)
    gate = shards.instance(writer).seen[-1]
    taken = shards.instance(other).seen
    assert b"after" not in taken
    durable(gate)
    await promise
    assert taken[-2:] == [b"before", b"after"]
