"""Functions, RpcTargets, stubs and streams in calls (V2, V6, V7, V9, V10): on one shard, on two."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.shard.pair import Pair, pair, settle, until
from workers import (
    DurableObject,
    DurableObjectStub,
    JsException,
    ReadableStream,
    Request,
    Response,
    RpcStub,
    RpcTarget,
)

DISPOSED = r"^RPC stub used after being disposed\."


class Counter(RpcTarget):
    """Passed by reference."""

    def __init__(self, log: list[str]) -> None:
        self.value = 0
        self.log = log

    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    async def add_later(self, by: int) -> int:
        await asyncio.sleep(0)
        return self.add(by)

    def nested(self) -> Counter:
        return Counter(self.log)

    def fail(self) -> None:
        raise ValueError("in the target")

    def _hidden(self) -> str:
        return "reached"

    def dispose(self) -> None:
        self.log.append(f"disposed at {self.value}")


class Holder(DurableObject):
    """Gives and takes references."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env
        self.log: list[str] = []
        self.kept: Any = None
        self.counter = Counter(self.log)
        self.chunks: list[bytes] = []
        self.closed = False

    def make(self) -> Counter:
        return Counter(self.log)

    def same(self) -> Counter:
        return self.counter

    def function(self) -> Any:
        total = 0

        def add(by: int, *, times: int = 1) -> int:
            nonlocal total
            total += by * times
            return total

        return add

    async def call(self, function: Any, *args: Any) -> Any:
        return await function(*args)

    async def call_method(self, target: Any, name: str, *args: Any) -> Any:
        return await getattr(target, name)(*args)

    def keep(self, stub: Any) -> None:
        self.kept = stub

    def keep_dup(self, stub: Any) -> None:
        self.kept = stub.dup()

    def give_back(self, stub: Any) -> Any:
        return stub

    def give_kept(self) -> Any:
        return self.kept

    async def use(self, *args: Any) -> Any:
        return await self.kept(*args)

    def drop(self) -> None:
        self.kept.dispose()
        self.kept = None

    def container(self) -> dict[str, Any]:
        return {"add": self.function(), "counters": [self.make(), self.make()]}

    def read_log(self) -> list[str]:
        return self.log

    def abort(self) -> None:
        self.ctx.abort("enough")

    async def pass_on(self, name: str, function: Any, *args: Any) -> Any:
        return await self.env.HOLDER.getByName(name).call(function, *args)

    async def call_me_back(self, name: str) -> Any:
        return await self.env.HOLDER.getByName(name).call(lambda: str(self.ctx.id))

    # --- streams ---

    async def read(self, stream: ReadableStream) -> list[bytes]:
        return [chunk async for chunk in stream]

    async def read_one(self, stream: ReadableStream) -> Any:
        async for chunk in stream:
            return chunk
        return None

    def ignore(self, stream: ReadableStream) -> None:
        """Never reads it."""

    def stream(self, count: int, size: int) -> ReadableStream:
        async def produce() -> AsyncIterator[bytes]:
            try:
                for number in range(count):
                    chunk = bytes([number % 256]) * size
                    self.chunks.append(chunk)
                    yield chunk
            finally:
                self.closed = True

        return ReadableStream(produce())

    def failing_stream(self) -> ReadableStream:
        async def produce() -> AsyncIterator[bytes]:
            yield b"first"
            raise ValueError("no more")

        return ReadableStream(produce())

    async def upper(self, request: Request) -> Response:
        text = await request.text()
        return Response(text.upper(), status=201, headers={"X-Method": str(request.method)})

    def stub_of(self, name: str) -> Any:
        return self.env.HOLDER.getByName(name)

    async def name_of(self, stub: DurableObjectStub) -> Any:
        return [stub.name, await stub.read_log()]


@pytest.fixture
async def shards() -> AsyncIterator[Pair]:
    async with pair(Holder) as both:
        yield both


@pytest.fixture(params=[0, 1], ids=["local", "remote"])
def holder(request: pytest.FixtureRequest, shards: Pair) -> Any:
    return shards.stub("HOLDER", home=request.param)


async def released(shards: Pair) -> None:
    """Every table is empty again."""
    await until(lambda: gc.collect() >= 0 and not any(shards.references().values()), 200)


# --- what is returned ----------------------------------------------------------------------------


async def test_a_returned_function_keeps_its_state_where_it_was_made(
    shards: Pair, holder: Any
) -> None:
    add = await holder.function()
    assert isinstance(add, RpcStub)
    assert await add(2) == 2
    assert await add(3, times=2) == 8
    add.dispose()
    await released(shards)


async def test_methods_of_a_returned_target_can_be_called(shards: Pair, holder: Any) -> None:
    counter = await holder.make()
    assert await counter.add() == 1
    assert await counter.add_later(4) == 5
    assert await counter._hidden() == "reached"


async def test_instance_attributes_of_a_target_are_hidden(holder: Any) -> None:
    counter = await holder.make()
    for name in ("value", "log"):
        with pytest.raises(TypeError, match=f"^Method {name} does not exist"):
            await getattr(counter, name)()


async def test_targets_nest(shards: Pair, holder: Any) -> None:
    counter = await (await holder.make()).nested()
    assert await counter.add(7) == 7
    del counter
    await released(shards)


async def test_references_inside_containers(holder: Any) -> None:
    found = await holder.container()
    assert await found["add"](1) == 1
    assert [await each.add(2) for each in found["counters"]] == [2, 2]


async def test_errors_of_a_target_are_remote(holder: Any) -> None:
    counter = await holder.make()
    with pytest.raises(ValueError, match="in the target") as caught:
        await counter.fail()
    assert caught.value.remote is True  # type: ignore[attr-defined]


async def test_a_target_is_no_function_and_a_function_has_no_methods(holder: Any) -> None:
    counter, add = await holder.make(), await holder.function()
    with pytest.raises(TypeError, match="not a function"):
        await counter()
    with pytest.raises(TypeError, match=r"^Method foo does not exist"):
        await add.foo()


# --- disposal ------------------------------------------------------------------------------------


async def test_a_disposed_stub_is_of_no_use(holder: Any) -> None:
    add = await holder.function()
    add.dispose()
    add.dispose()
    with pytest.raises(JsException, match=DISPOSED):
        add(1)
    with pytest.raises(JsException, match=DISPOSED):
        add.dup()


async def test_disposal_runs_the_targets_dispose_once(shards: Pair, holder: Any) -> None:
    with await holder.make() as counter:
        await counter.add(3)
        second = counter.dup()
    await settle()
    assert await holder.read_log() == []
    assert await second.add() == 4
    second.dispose()
    await released(shards)
    assert await holder.read_log() == ["disposed at 4"]


async def test_a_target_that_was_given_twice_is_disposed_of_after_the_last(
    shards: Pair, holder: Any
) -> None:
    first, second = await holder.same(), await holder.same()
    first.dispose()
    await settle()
    assert await holder.read_log() == []
    second.dispose()
    await released(shards)
    assert await holder.read_log() == ["disposed at 0"]


async def test_a_collected_stub_is_disposed_of(shards: Pair, holder: Any) -> None:
    counter = await holder.make()
    assert shards.references()["exports"] == 1
    del counter
    await released(shards)
    assert await holder.read_log() == ["disposed at 0"]


async def test_a_stub_that_is_held_keeps_the_object_in_memory(shards: Pair, holder: Any) -> None:
    counter = await holder.make()
    activation = shards.activation(holder)
    assert activation.busy
    counter.dispose()
    await released(shards)
    await settle()
    assert not activation.busy


async def test_a_result_that_nobody_awaited_is_let_go(shards: Pair, holder: Any) -> None:
    holder.make()
    await settle()
    await released(shards)


# --- arguments -----------------------------------------------------------------------------------


async def test_a_function_argument_runs_at_the_caller(shards: Pair, holder: Any) -> None:
    seen = []

    async def later(value: int) -> int:
        await asyncio.sleep(0)
        seen.append(value)
        return value * 2

    assert await holder.call(later, 4) == 8
    assert await holder.call(lambda value: value + 1, 4) == 5
    assert seen == [4]
    await released(shards)


async def test_an_argument_stub_ends_with_the_call(shards: Pair, holder: Any) -> None:
    await holder.keep(lambda: 1)
    with pytest.raises(JsException, match=DISPOSED):
        await holder.use()
    await released(shards)


async def test_a_duplicate_outlives_the_call(shards: Pair, holder: Any) -> None:
    await holder.keep_dup(lambda value: value * 3)
    assert await holder.use(5) == 15
    await holder.drop()
    await released(shards)


async def test_a_target_as_argument(shards: Pair, holder: Any) -> None:
    log: list[str] = []
    counter = Counter(log)
    assert await holder.call_method(counter, "add", 5) == 5
    assert counter.value == 5
    await released(shards)
    assert log == ["disposed at 5"]


async def test_a_stub_that_is_given_back_still_reaches_its_target(
    shards: Pair, holder: Any
) -> None:
    again = await holder.give_back(lambda value: value + 1)
    assert await again(1) == 2
    again.dispose()
    await released(shards)


async def test_a_refused_argument_leaves_nothing_behind(shards: Pair, holder: Any) -> None:
    with pytest.raises(JsException):
        holder.call(lambda: 1, object())
    assert not any(shards.references().values())


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 1)])
async def test_a_function_is_passed_on_to_a_third_object(
    shards: Pair, first: int, second: int
) -> None:
    stub: Any = shards.stub("HOLDER", home=first, prefix="a")
    name = shards.name_at(second, "HOLDER", "b")
    assert await stub.pass_on(name, lambda value: value + 1, 1) == 2
    await released(shards)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 1)])
async def test_an_object_is_called_back_while_it_waits(
    shards: Pair, first: int, second: int
) -> None:
    stub: Any = shards.stub("HOLDER", home=first, prefix="a")
    name = shards.name_at(second, "HOLDER", "b")
    assert await stub.call_me_back(name) == str(stub.id)
    await released(shards)


async def test_an_object_calls_itself_back(shards: Pair, holder: Any) -> None:
    assert await holder.call_me_back(holder.name) == str(holder.id)


async def test_an_objects_stub_arrives_as_a_stub(shards: Pair, holder: Any) -> None:
    name = shards.name_at(0, "HOLDER", "other")
    other = await holder.stub_of(name)
    assert isinstance(other, DurableObjectStub)
    assert await other.read_log() == []
    assert await holder.name_of(other) == [name, []]


# --- ends that go away ---------------------------------------------------------------------------


async def test_a_reset_owner_ends_what_it_gave(shards: Pair, holder: Any) -> None:
    add = await holder.function()
    with pytest.raises(JsException, match="enough"):
        await holder.abort()
    with pytest.raises(JsException, match="enough") as caught:
        await add(1)
    assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]


async def test_a_cut_link_ends_what_it_carried(shards: Pair) -> None:
    holder: Any = shards.stub("HOLDER", home=1)
    add = await holder.function()
    await holder.keep_dup(lambda: 1)
    activation = shards.activation(holder)
    shards.cut(1)
    await until(lambda: not shards.shards[0].peers._ends)
    with pytest.raises(Exception, match=r"^Network connection lost\.") as caught:
        await add(1)
    assert caught.value.retryable is True  # type: ignore[attr-defined]
    await settle()
    assert not activation.busy
    assert not any(shards.references().values())


# --- streams -------------------------------------------------------------------------------------


async def drain(reader: Any) -> None:
    while not (await reader.read()).done:
        pass


async def chunks(count: int, size: int = 3) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


async def test_a_stream_as_argument(shards: Pair, holder: Any) -> None:
    assert await holder.read(ReadableStream(chunks(4))) == [bytes([n]) * 3 for n in range(4)]
    await released(shards)


async def test_a_stream_as_result(shards: Pair, holder: Any) -> None:
    stream = await holder.stream(5, 1000)
    assert b"".join([each async for each in stream]) == b"".join(
        [bytes([n]) * 1000 for n in range(5)]
    )
    await released(shards)


@pytest.mark.parametrize("home", [0, 1])
async def test_a_slow_reader_slows_the_producer_down(home: int) -> None:
    async with pair(Holder, body_window_bytes=64 * 1024) as shards:
        holder: Any = shards.stub("HOLDER", home=home)
        stream = await holder.stream(1000, 16 * 1024)
        reader = stream.getReader()
        assert (await reader.read()).value == bytes(16 * 1024)
        await settle(200)
        made = len(shards.instance(holder).chunks)
        assert 1 <= made <= 16
        await reader.cancel()
        await until(lambda: shards.instance(holder).closed)
        await released(shards)


async def test_a_stream_that_nobody_reads_costs_nothing(shards: Pair, holder: Any) -> None:
    started = False

    async def produce() -> AsyncIterator[bytes]:
        nonlocal started
        started = True
        yield b"x"

    stream = ReadableStream(produce())
    await holder.ignore(stream)
    del stream
    await released(shards)


async def test_a_stream_that_fails_fails_its_reader(shards: Pair, holder: Any) -> None:
    stream = await holder.failing_stream()
    reader = stream.getReader()
    assert (await reader.read()).value == b"first"
    with pytest.raises(OSError, match="ValueError: no more"):
        await reader.read()
    await released(shards)


async def test_a_stream_ends_with_its_owner(shards: Pair, holder: Any) -> None:
    stream = await holder.stream(1_000_000, 64 * 1024)
    reader = stream.getReader()
    await reader.read()
    with pytest.raises(JsException):
        await holder.abort()
    with pytest.raises(OSError, match=r"gone|ended"):
        await drain(reader)


async def test_request_and_response_are_passed_with_their_bodies(shards: Pair, holder: Any) -> None:
    response = await holder.upper(Request("http://x/", method="POST", body="text"))
    assert isinstance(response, Response)
    assert (response.status, response.headers["X-Method"]) == (201, "POST")
    assert await response.text() == "TEXT"
    streamed = Request("http://x/", method="POST", body=ReadableStream(chunks(3)))
    assert await (await holder.upper(streamed)).text() == "\0\0\0\x01\x01\x01\x02\x02\x02"
    await released(shards)
