"""What an object sends after a write waits until the write is durable (§3.4): answers and calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shard.storage.output_gate import OutputGate
from tests.shard.pair import Pair, pair, settle
from workers import DurableObject, RemoteError, Request, Response


class Writer(DurableObject):
    """Its gate is held by the test, as a write would."""

    def __init__(self, ctx: Any, env: Any) -> None:
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
        return Response("")


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
