"""Calls between objects (specification §2.2 to §2.4): on one shard and on two, the same rules."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.shard.pair import Pair, pair, settle, until
from workers import (
    DataCloneError,
    DurableObject,
    DurableObjectStub,
    JsException,
    RemoteError,
    Request,
    Response,
)


class Room(DurableObject):
    """What most tests call."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.env = env
        self.ctx = ctx
        self.seen: list[Any] = []
        self.gate = asyncio.Event()
        self.field = 5
        self.attribute = lambda: "attribute"

    def note(self, what: Any) -> int:
        self.seen.append(what)
        return len(self.seen)

    async def note_later(self, what: Any) -> int:
        await asyncio.sleep(0)
        return self.note(what)

    def echo(self, value: Any) -> Any:
        return value

    def arguments(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [len(args), kwargs]

    def nothing(self) -> None:
        """Returns None."""

    def _underscore(self) -> str:
        return "reached"

    @staticmethod
    def static() -> str:
        return "static"

    def alarm(self) -> None:
        """Only the runtime calls it."""

    def mutate(self, items: list[int]) -> list[int]:
        items.append(99)
        self.seen.append(items)
        return items

    def grow(self) -> list[int]:
        self.seen[0].append(100)
        return list(self.seen[0])

    async def wait(self) -> str:
        await self.gate.wait()
        return "opened"

    def open(self) -> None:
        self.gate.set()

    def generator(self) -> Any:
        return (each for each in range(3))

    def large(self, size: int) -> bytes:
        return b"x" * size

    async def fetch(self, request: Request) -> Response:
        self.seen.append(request.url)
        return Response(str(len(self.seen)))

    async def apply(self, function: Any, value: Any) -> Any:
        return await function(value)

    async def relay(self, *steps: list[str]) -> Any:
        """Call the object of the first step, which calls that of the next, and so on."""
        if not steps:
            return [str(self.ctx.id)]
        (binding, name), *rest = steps
        stub = getattr(self.env, binding).getByName(name)
        return [str(self.ctx.id), *await stub.relay(*rest)]

    def __dunder__(self) -> None:
        """Cannot be called."""


class Plain:
    """Has not been declared as a DurableObject."""

    def __init__(self, ctx: Any, env: Any) -> None:
        """Ignore both."""

    def hello(self) -> str:
        return "hello"


@pytest.fixture
async def shards() -> AsyncIterator[Pair]:
    async with pair(Room, Plain) as both:
        yield both


@pytest.fixture(params=[0, 1], ids=["local", "remote"])
def room(request: pytest.FixtureRequest, shards: Pair) -> DurableObjectStub:
    """A room in the hands of shard 0, which lives there, or on shard 1."""
    return shards.stub("ROOM", home=request.param)


# --- what can be called (2.2) --------------------------------------------------------------------


async def test_sync_and_async_methods_give_their_results(room: Any) -> None:
    assert await room.note("a") == 1
    assert await room.note_later("b") == 2
    assert await room.nothing() is None


async def test_positional_and_keyword_arguments_arrive(room: Any) -> None:
    assert await room.arguments() == [0, {}]
    assert await room.arguments(1, None, x=2, y=[3]) == [2, {"x": 2, "y": [3]}]


async def test_any_callable_attribute_can_be_called(room: Any) -> None:
    assert await room._underscore() == "reached"
    assert await room.static() == "static"
    assert await room.attribute() == "attribute"


@pytest.mark.parametrize("name", ["absent", "field"])
async def test_what_is_no_method_does_not_exist(room: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^Method {name} does not exist") as caught:
        await getattr(room, name)()
    assert caught.value.remote is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["alarm", "webSocketMessage", "webSocketClose", "dup"])
async def test_reserved_methods_are_refused(room: Any, name: str) -> None:
    expected = rf"^'{name}' is a reserved method and cannot be called over RPC\."
    with pytest.raises(TypeError, match=expected):
        await getattr(room, name)()


async def test_dunder_names_never_leave_the_stub(room: Any) -> None:
    with pytest.raises(AttributeError):
        room.__dunder__  # noqa: B018


@pytest.mark.parametrize("home", [0, 1])
async def test_a_class_that_is_no_durable_object_has_no_rpc(shards: Pair, home: int) -> None:
    plain = shards.stub("PLAIN", home=home)
    with pytest.raises(TypeError, match=r"^The receiving Durable Object does not support RPC"):
        await plain.hello()


# --- values (2.3) --------------------------------------------------------------------------------

WHEN = dt.datetime(2026, 11, 23, 12, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**53 + 1,
        2**200,
        1.0,
        "text é \U0001f600",
        "",
        b"bytes",
        [1, [2, [3]]],
        {"a": {"b": 1}, "c": None},
        {1: 2},
        {1, 2},
        frozenset({"x"}),
        WHEN,
    ],
    ids=repr,
)
async def test_values_arrive_as_they_were(room: Any, value: Any) -> None:
    result = await room.echo(value)
    assert result == value
    assert type(result) is type(value) or isinstance(result, dict)


async def test_not_a_number_stays_one(room: Any) -> None:
    assert math.isnan(await room.echo(math.nan))


async def test_a_tuple_arrives_as_a_list(room: Any) -> None:
    assert await room.echo((1, (2,))) == [1, [2]]


async def test_caller_and_callee_never_share_a_mutable_value(room: Any) -> None:
    mine = [1]
    theirs = await room.mutate(mine)
    assert (mine, theirs) == ([1], [1, 99])
    theirs.append(5)
    mine.append(6)
    assert await room.grow() == [1, 99, 100]


async def test_arguments_are_read_before_the_call_returns(room: Any) -> None:
    mine = [1]
    promise = room.echo(mine)
    mine.append(2)
    assert await promise == [1]


class Unknown:
    """No class that can be sent."""


async def test_what_cannot_be_sent_is_refused_at_the_caller_before_it_leaves(room: Any) -> None:
    expected = (
        '^Could not serialize object of type "Unknown". This type does not support serialization.'
    )
    with pytest.raises(DataCloneError, match=expected) as caught:
        room.note(Unknown())
    assert not hasattr(caught.value, "remote")
    assert await room.note("first") == 1


async def test_a_result_that_cannot_be_sent_is_a_remote_error(room: Any) -> None:
    with pytest.raises(DataCloneError, match='"generator"') as caught:
        await room.generator()
    assert caught.value.remote is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("home", [0, 1])
async def test_arguments_and_results_are_limited(home: int) -> None:
    expected = (
        "^Serialized RPC arguments or return values are limited to 1MiB, "
        r"but the size of this value was: \d+ bytes."
    )
    async with pair(Room, max_rpc_bytes=1 << 20) as shards:
        room: Any = shards.stub("ROOM", home=home)
        assert len(await room.large(1_000_000)) == 1_000_000
        with pytest.raises(JsException, match=expected):
            room.echo(b"x" * (1 << 20))
        with pytest.raises(JsException, match=expected) as caught:
            await room.large(1 << 20)
        assert caught.value.remote is True  # type: ignore[attr-defined]


async def test_a_mebibyte_each_way(room: Any) -> None:
    value = bytes(range(256)) * 4096
    assert await room.echo(value) == value


# --- order (E6 to E10) ---------------------------------------------------------------------------


async def test_calls_and_fetches_on_one_stub_arrive_in_call_order(shards: Pair, room: Any) -> None:
    promises = []
    for number in range(20):
        if number % 3 == 0:
            promises.append(room.fetch(f"http://x/{number}"))
        else:
            promises.append(room.note(number))
    for promise in promises:
        await promise
    expected = [f"http://x/{n}" if n % 3 == 0 else n for n in range(20)]
    assert shards.instance(room).seen == expected


class Slow(DurableObject):
    """Holds all events back while its constructor's callback runs."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.seen: list[str] = []

        async def prepare() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.seen.append("ready")

        ctx.blockConcurrencyWhile(prepare)

    def note(self, what: str) -> list[str]:
        self.seen.append(what)
        return self.seen

    async def fetch(self, request: Request) -> Response:
        self.seen.append("fetch")
        return Response("")


@pytest.mark.parametrize("home", [0, 1])
async def test_order_holds_while_the_constructor_blocks(home: int) -> None:
    async with pair(Slow) as shards:
        slow = shards.stub("SLOW", home=home)
        first, second, third = slow.note("1"), slow.fetch("http://x/"), slow.note("3")
        assert await first == ["ready", "1"]
        await second
        assert await third == ["ready", "1", "fetch", "3"]


async def test_a_call_leaves_without_being_awaited(shards: Pair, room: Any) -> None:
    room.note("dropped")
    await until(lambda: (shards.instance(room) is not None) and bool(shards.instance(room).seen))
    assert shards.instance(room).seen == ["dropped"]


async def test_calls_overlap_while_a_method_waits_outside(room: Any) -> None:
    waiting = room.wait()
    await room.open()
    assert await waiting == "opened"


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 1)])
async def test_calling_back_and_forth_does_not_deadlock(
    shards: Pair, first: int, second: int
) -> None:
    a = ["ROOM", shards.name_at(first, "ROOM", "a")]
    b = ["ROOM", shards.name_at(second, "ROOM", "b")]
    stub: Any = shards.stub("ROOM", home=0)
    ids = await stub.relay(a, b, a, b, a)
    assert ids[1] == ids[3] == ids[5]
    assert ids[2] == ids[4]


@pytest.mark.parametrize("home", [0, 1])
async def test_an_object_may_call_itself(shards: Pair, home: int) -> None:
    me = ["ROOM", shards.name_at(home, "ROOM")]
    stub: Any = shards.stub("ROOM", home=home)
    assert len(set(await stub.relay(me, me))) == 1


async def test_a_long_chain_of_objects_does_not_exhaust_the_stack(shards: Pair) -> None:
    chain = [["ROOM", shards.name_at(0, "ROOM", f"{number}-")] for number in range(400)]
    stub: Any = shards.stub("ROOM", home=0)
    assert len(await stub.relay(*chain)) == 401


# --- errors (2.4) --------------------------------------------------------------------------------


class Refusal(Exception):  # noqa: N818 - an app names its errors as it likes
    """An app's own error, whose constructor must not run at the caller."""

    made = 0

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code
        Refusal.made += 1


class Faulty(DurableObject):
    """Fails in every way."""

    lives = 0

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.calls = 0
        Faulty.lives += 1

    def refuse(self) -> None:
        error = Refusal("no", 7)
        error.detail = {"why": [1, 2]}  # type: ignore[attr-defined]
        raise error from ValueError("because")

    async def refuse_later(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("k")

    def local_class(self) -> None:
        class Hidden(Exception):  # noqa: N818
            """Exists only here."""

        raise Hidden("from within")

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def abort(self, reason: str | None = None) -> None:
        self.ctx.abort(reason)

    async def forever(self) -> None:
        await asyncio.Event().wait()

    def cancelled(self) -> None:
        raise asyncio.CancelledError

    def fail_block(self) -> None:
        async def fail() -> None:
            for _ in range(50):  # until the test's next call has arrived
                await asyncio.sleep(0)
            raise ValueError("in the block")

        self.ctx.blockConcurrencyWhile(fail)


class Broken(DurableObject):
    """Cannot be constructed at first."""

    attempts = 0

    def __init__(self, ctx: Any, env: Any) -> None:
        Broken.attempts += 1
        if Broken.attempts <= 2:
            raise ValueError("not yet")

    def hello(self) -> str:
        return "hello"


@pytest.fixture(params=[0, 1], ids=["local", "remote"])
async def faulty(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Pair, Any]]:
    Faulty.lives = Broken.attempts = Refusal.made = 0
    async with pair(Faulty, Broken) as shards:
        yield shards, shards.stub("FAULTY", home=request.param)


async def test_an_exception_keeps_class_arguments_attributes_and_cause(
    faulty: tuple[Pair, Any],
) -> None:
    _, stub = faulty
    with pytest.raises(Refusal) as caught:
        await stub.refuse()
    error: Any = caught.value
    assert error.args == ("no", 7)
    assert error.code == 7
    assert error.detail == {"why": [1, 2]}
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "because"
    assert Refusal.made == 1, "no constructor runs at the caller"


async def test_the_remote_traceback_is_a_note(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    with pytest.raises(Refusal) as caught:
        await stub.refuse()
    note = "\n".join(caught.value.__notes__)
    assert "in refuse" in note
    assert "activation.py" not in note


async def test_an_exception_is_logged_where_it_was_raised(faulty: tuple[Pair, Any]) -> None:
    """Once, with object, event and traceback: the caller may well keep it to itself."""
    _, stub = faulty
    with capture_logs() as logs:
        with pytest.raises(Refusal) as caught:
            await stub.refuse()
        assert await stub.count() == 1
    (line,) = [each for each in logs if each["event"] == "object.handler_failed"]
    assert line["object"].startswith("Faulty(")
    assert line["on"] == "refuse"
    assert line["exc_info"].args == caught.value.args


async def test_flags_of_an_exception(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    with pytest.raises(KeyError) as caught:
        await stub.refuse_later()
    error: Any = caught.value
    assert error.args == ("k",)
    assert error.remote is True
    assert error.durableObjectId == str(stub.id)
    for flag in ("retryable", "overloaded", "durableObjectReset"):
        assert not hasattr(error, flag)


async def test_an_exception_is_no_reset(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    assert await stub.count() == 1
    with pytest.raises(Refusal):
        await stub.refuse()
    assert await stub.count() == 2


async def test_a_class_that_is_unknown_arrives_as_remote_error(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    with pytest.raises(RemoteError, match=r"^from within") as caught:
        await stub.local_class()
    assert caught.value.name == "Hidden"


async def test_a_cancellation_there_is_no_cancellation_here(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    with pytest.raises(RemoteError) as caught:
        await stub.cancelled()
    assert caught.value.name == "CancelledError"


@pytest.mark.parametrize("reason", [None, "enough"])
async def test_abort_fails_every_call_in_flight_and_breaks_the_stub_for_ever(
    faulty: tuple[Pair, Any], reason: str | None
) -> None:
    shards, stub = faulty
    expected = reason or "Application called abort() to reset Durable Object."
    waiting, abort, behind = stub.forever(), stub.abort(reason), stub.count()
    for promise in (waiting, abort, behind):
        with pytest.raises(JsException, match=f"^{expected}".replace("()", r"\(\)")) as caught:
            await promise
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert not hasattr(caught.value, "remote")
    for call in (stub.count, lambda: stub.fetch("http://x/")):
        with pytest.raises(JsException, match=expected.replace("()", r"\(\)")):
            await call()
    home = shards.shards[0].home_of(stub.id.raw)
    assert home is not None
    again = shards.stub("FAULTY", home=home)
    assert await again.count() == 1
    assert Faulty.lives == 2


async def test_a_failed_block_resets_the_object(faulty: tuple[Pair, Any]) -> None:
    _, stub = faulty
    first, second = stub.fail_block(), stub.count()
    await first
    with pytest.raises(ValueError, match="in the block") as caught:
        await second
    assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]


async def test_a_constructor_that_raises_runs_again_for_each_call(
    faulty: tuple[Pair, Any],
) -> None:
    shards, stub = faulty
    home = shards.shards[0].home_of(stub.id.raw)
    assert home is not None
    broken = shards.stub("BROKEN", home=home)
    for _ in range(2):
        with pytest.raises(ValueError, match="not yet") as caught:
            await broken.hello()
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert not hasattr(caught.value, "remote")
    assert await broken.hello() == "hello"
    assert Broken.attempts == 3


async def test_eviction_does_not_break_a_stub(faulty: tuple[Pair, Any]) -> None:
    shards, stub = faulty
    await stub.count()
    shards.activation(stub).slot.evict()
    assert await stub.count() == 1
    assert Faulty.lives == 2


class Middle(DurableObject):
    """Passes on what the next object answers."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.env = env

    async def ask(self, name: str, method: str) -> Any:
        return await getattr(self.env.FAULTY.getByName(name), method)()


@pytest.mark.parametrize("home", [0, 1])
async def test_an_error_that_is_passed_on_breaks_no_stub_but_its_own(home: int) -> None:
    async with pair(Middle, Faulty) as shards:
        middle: Any = shards.stub("MIDDLE", home=home)
        name = shards.name_at(1, "FAULTY")
        with pytest.raises(JsException) as caught:
            await middle.ask(name, "abort")
        error: Any = caught.value
        assert error.remote is True
        assert error.durableObjectReset is True
        assert await middle.ask(name, "count") == 1


# --- a shard that goes away ----------------------------------------------------------------------


async def test_calls_under_way_fail_once_and_retryable_when_the_shard_dies(shards: Pair) -> None:
    room: Any = shards.stub("ROOM", home=1)
    await room.note("up")
    promises = [room.wait() for _ in range(3)]
    await settle()
    shards.cut(1)
    for promise in promises:
        with pytest.raises(Exception, match=r"^Network connection lost\.") as caught:
            await promise
        assert caught.value.retryable is True  # type: ignore[attr-defined]
        assert not hasattr(caught.value, "remote")
        assert not hasattr(caught.value, "durableObjectReset")


async def test_calls_wait_for_a_shard_that_is_away_with_their_arguments_as_they_were(
    shards: Pair,
) -> None:
    room: Any = shards.stub("ROOM", home=1)
    await room.note("up")
    shards.cut(1)
    await until(lambda: shards.shards[0].peers.end(1) is None)
    mine = ["first"]
    promises = [room.note(mine), room.fetch("http://x/"), room.apply(lambda value: value + 1, 1)]
    mine.append("too late")
    with pytest.raises(DataCloneError):
        room.note(Unknown())
    assert [await promises[0], (await promises[1]).status, await promises[2]] == [2, 200, 2]
    assert shards.instance(room).seen == ["up", ["first"], "http://x/"]


async def test_calls_fail_retryable_when_the_shard_stays_away() -> None:
    async with pair(Room, hold_timeout_s=0.0) as shards:
        room: Any = shards.stub("ROOM", home=1)
        shards.cut(1)
        await until(lambda: shards.shards[0].peers.end(1) is None)
        with pytest.raises(Exception, match="cannot be reached") as caught:
            await room.note("lost")
        assert caught.value.retryable is True  # type: ignore[attr-defined]
        await until(lambda: shards.shards[0].peers.end(1) is not None, turns=10_000_000)
        assert await room.note("back") == 1


async def test_an_overloaded_object_says_so() -> None:
    class Jam(DurableObject):
        """Never lets an event in."""

        def __init__(self, ctx: Any, env: Any) -> None:
            ctx.blockConcurrencyWhile(asyncio.Event().wait)

        def take(self, data: bytes) -> None:
            """Never runs."""

    async with pair(Jam, max_pending_bytes=64 * 1024) as shards:
        jam: Any = shards.stub("JAM", home=0)
        data = b"x" * 30_000
        waiting = [jam.take([data]) for _ in range(2)]
        with pytest.raises(Exception, match=r"^Durable Object is overloaded") as caught:
            await jam.take([data])
        assert caught.value.overloaded is True  # type: ignore[attr-defined]
        assert not getattr(caught.value, "retryable", False)
        assert len(waiting) == 2
