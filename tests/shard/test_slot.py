"""The lives of an object (specification §3.1): construction, idleness, reset, and who waits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import Any

import pytest

from common.errors import Overloaded
from local.virtual_time import on_virtual_time
from shard.host import SWEEP_INTERVAL_S
from shard.slot import EVENT_OVERHEAD_BYTES, Pending
from tests.shard.kit import solo, turns, until
from workers import DurableObject, Response, WebSocketPair

IDLE_S = 10.0
LATEST_S = IDLE_S + 2 * SWEEP_INTERVAL_S
"""When an object that became idle is gone at the latest."""


class Life(DurableObject):
    made = 0
    log: list[Any] = []  # noqa: RUF012 - of all lives

    def __init__(self, ctx: Any, env: Any) -> None:
        type(self).made += 1
        self.ctx = ctx
        self.env = env
        self.number = self.made
        self.events: list[Any] = []

    def life(self) -> int:
        return self.number

    def note(self, what: Any) -> list[Any]:
        self.events.append(what)
        return self.events

    def put(self, what: Any) -> None:
        self.events.append(what)

    async def wait(self, seconds: float) -> int:
        try:
            await asyncio.sleep(seconds)
            self.log.append("went on")
        finally:
            self.log.append("cleaned up")
        return self.number

    def go_on_behind(self, seconds: float) -> int:
        self.task: Any = asyncio.create_task(self.wait(seconds))
        return self.number

    def wait_until(self, seconds: float) -> int:
        self.ctx.waitUntil(self.wait(seconds))
        return self.number

    def wait_until_failing(self) -> None:
        async def fail() -> None:
            raise ValueError("behind")

        self.ctx.waitUntil(fail())
        self.ctx.waitUntil("not awaitable")

    def fetch(self, request: Any) -> Response:
        client, server = WebSocketPair()
        server.accept()
        self.server = server
        return Response(None, status=101, web_socket=client)

    def stream(self, seconds: float) -> Any:
        return None

    def fail(self) -> None:
        raise ValueError("handler")

    def abort(self, reason: Any = None) -> None:
        try:
            self.ctx.abort(reason)
        except Exception:
            self.log.append("caught")
        finally:
            self.log.append("finally")
        self.log.append("went on")

    async def abort_later(self) -> str:
        await asyncio.sleep(0)
        self.ctx.abort("later")
        return "unreachable"

    async def abort_in_a_task(self) -> None:
        async def task() -> None:
            self.ctx.abort("in a task")

        self.task = asyncio.create_task(task())
        await asyncio.sleep(100)

    def abort_and_return(self) -> str:
        with contextlib.suppress(BaseException):
            self.ctx.abort("swallowed")
        return "as if nothing had happened"


@pytest.fixture(autouse=True)
def fresh() -> None:
    Life.log = []
    for each in (Life, SelfCaller, Gathering, Picky, Aborting):
        each.made = 0


class Picky(DurableObject):
    """Cannot be constructed the first two times."""

    made = 0

    def __init__(self, ctx: Any, env: Any) -> None:
        type(self).made += 1
        if self.made < 3:
            raise ValueError(f"attempt {self.made}")

    def life(self) -> int:
        return self.made


class Aborting(DurableObject):
    made = 0

    def __init__(self, ctx: Any, env: Any) -> None:
        type(self).made += 1
        ctx.abort("in the constructor")

    def life(self) -> int:
        return self.made


class SelfCaller(Life):
    """Its constructor calls itself."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.promise = env.SELFCALLER.getByName(ctx.id.name).note("from the constructor")


# --- construction ---------------------------------------------------------------------------------


@on_virtual_time
async def test_the_constructor_runs_once_a_life_on_the_first_event() -> None:
    """L1, I10: a stub alone constructs nothing."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        assert Life.made == 0
        assert [await stub.life() for _ in range(3)] == [1, 1, 1]


@on_virtual_time
async def test_a_constructor_that_raises_ends_that_life_and_the_next_event_tries_again() -> None:
    """L3."""
    async with solo(Picky) as one:
        for attempt in (1, 2):
            with pytest.raises(ValueError, match=f"attempt {attempt}") as caught:
                await one.stub("PICKY").life()
            assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
            assert not one.lives("PICKY")
        assert await one.stub("PICKY").life() == 3


@on_virtual_time
async def test_abort_in_the_constructor() -> None:
    async with solo(Aborting) as one:
        with pytest.raises(Exception, match="in the constructor") as caught:
            await one.stub("ABORTING").life()
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert one.gateway.is_up, "the link is none of its business"


@on_virtual_time
async def test_what_the_constructor_calls_comes_after_the_event_it_was_run_for() -> None:
    async with solo(SelfCaller) as one:
        stub = one.stub("SELFCALLER")
        await stub.note("first event")
        assert (await stub.note("second"))[:2] == ["first event", "from the constructor"]


# --- idleness -------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_idle_object_leaves_memory_after_10_s_not_earlier() -> None:
    """L10; E3: the stub goes on working."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        await stub.life()
        await asyncio.sleep(IDLE_S - 0.1)
        assert one.lives("LIFE")
        await asyncio.sleep(2 * SWEEP_INTERVAL_S + 0.2)
        assert not one.lives("LIFE")
        assert not one.shard.namespaces["LIFE"].slots, "nothing is kept of it"
        assert await stub.life() == 2


@on_virtual_time
async def test_each_event_starts_the_idle_time_anew() -> None:
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        for _ in range(10):
            assert await stub.life() == 1
            await asyncio.sleep(IDLE_S - 0.5)


@pytest.mark.parametrize("how", ["wait", "go_on_behind", "wait_until"])
def test_work_under_way_keeps_it_in_memory(how: str) -> None:
    """L5, L12: a handler, a task it has started, ``waitUntil``; 20 s, then 10 s idle."""

    @on_virtual_time
    async def main() -> None:
        async with solo(Life) as one:
            call = getattr(one.stub("LIFE"), how)(20)
            await asyncio.sleep(20 + IDLE_S - 0.5)
            assert one.lives("LIFE")
            await asyncio.sleep(LATEST_S)
            assert not one.lives("LIFE")
            await call
            assert Life.log == ["went on", "cleaned up"]

    main()


@on_virtual_time
async def test_wait_until_accepts_anything_and_only_logs_a_failure() -> None:
    """L5, L6."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        await stub.wait_until_failing()
        await turns()
        assert await stub.life() == 1


@on_virtual_time
async def test_an_open_regular_socket_keeps_it_in_memory() -> None:
    """L14."""
    async with solo(Life) as one:
        client = await one.gateway.upgrade(target=one.target("LIFE"))
        await asyncio.sleep(100)
        assert one.lives("LIFE")
        client.vanish()
        await asyncio.sleep(LATEST_S + 1)
        assert not one.lives("LIFE")


@on_virtual_time
async def test_a_block_that_runs_keeps_it_in_memory() -> None:
    class Blocked(Life):
        def block(self) -> None:
            self.ctx.blockConcurrencyWhile(lambda: asyncio.sleep(25))

    async with solo(Blocked) as one:
        await one.stub("BLOCKED").block()
        await asyncio.sleep(24)
        assert one.lives("BLOCKED")
        await asyncio.sleep(1 + LATEST_S)
        assert not one.lives("BLOCKED")


@on_virtual_time
async def test_an_evicted_instance_is_let_go() -> None:
    async with solo(Life) as one:
        await one.stub("LIFE").wait(0)
        reference = weakref.ref(one.instance("LIFE"))
        await asyncio.sleep(LATEST_S + 1)
        gc.collect()
        assert reference() is None


# --- reset ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_abort_stops_the_code_at_once() -> None:
    """L7, Limpet: ``except Exception`` does not catch it; ``finally`` runs, nothing after it."""
    async with solo(Life) as one:
        with pytest.raises(Exception, match="why") as caught:
            await one.stub("LIFE").abort("why")
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert Life.log == ["finally"]
        assert await one.stub("LIFE").life() == 2


@pytest.mark.parametrize("how", ["abort_later", "abort_in_a_task", "abort_and_return"])
def test_abort_from_anywhere_fails_the_call(how: str) -> None:
    @on_virtual_time
    async def main() -> None:
        async with solo(Life) as one:
            with pytest.raises(Exception, match=r"later|in a task|swallowed") as caught:
                await getattr(one.stub("LIFE"), how)()
            assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
            await turns()
            assert await one.stub("LIFE").life() == 2

    main()


@on_virtual_time
async def test_whoever_began_a_plain_function_that_aborts_is_told_the_reason() -> None:
    async with solo(Life) as one:
        told: list[Any] = []
        slot = one.slot("LIFE")
        for how in ("abort", "abort_and_return"):
            slot.call(
                lambda instance, how=how: (getattr(instance, how), ()),  # type: ignore[misc]
                lambda value, error: told.append((value, str(error))),
            )
        assert told == [
            (None, "Application called abort() to reset Durable Object."),
            (None, "swallowed"),
        ]


@on_virtual_time
async def test_abort_fails_every_call_and_no_suspended_handler_goes_on() -> None:
    """L7."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        waiting = [stub.wait(5) for _ in range(3)]
        await turns()
        with pytest.raises(Exception, match="why"):
            await one.stub("LIFE").abort("why")
        for call in waiting:
            with pytest.raises(Exception, match="why"):
                await call
        await asyncio.sleep(10)
        assert Life.log == ["finally"] + ["cleaned up"] * 3


@on_virtual_time
async def test_a_reset_breaks_the_stubs_it_failed_and_a_new_one_works_at_once() -> None:
    """E2."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        with pytest.raises(Exception, match="why"):
            await stub.abort("why")
        for _ in range(2):
            with pytest.raises(Exception, match="why"):
                await stub.life()
        assert await one.stub("LIFE").life() == 2


@on_virtual_time
async def test_a_handlers_exception_is_no_reset() -> None:
    """E4, L6."""
    async with solo(Life) as one:
        stub = one.stub("LIFE")
        with pytest.raises(ValueError, match="handler"):
            await stub.fail()
        assert await stub.life() == 1


@on_virtual_time
async def test_a_reset_closes_regular_sockets_with_1011_and_the_old_code_can_send_no_more() -> None:
    """L7, W12 as decided: a Close frame, not a bare TCP end; no close event in the object."""

    class Sender(Life):
        def fetch(self, request: Any) -> Response:
            response = super().fetch(request)
            self.server.addEventListener("close", lambda event: self.log.append("close event"))
            return response

        async def send_afterwards(self) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                self.server.send("from finally")
                self.server.close(1000, "from finally")
                self.log.append(self.server.readyState)

    async with solo(Sender) as one:
        client = await one.gateway.upgrade(target=one.target("SENDER"))
        stub = one.stub("SENDER")
        calling = stub.send_afterwards()
        await turns()
        with pytest.raises(Exception, match="why"):
            await one.stub("SENDER").abort("why")
        with pytest.raises(Exception, match="why"):
            await calling
        await turns()
        assert client.closes == [(1011, "Durable Object was reset")]
        assert client.received == []
        assert Life.log == ["finally", 3]
        client.close(1011)
        await turns()
        assert one.is_empty()


@on_virtual_time
async def test_events_that_wait_fail_with_the_reason_of_the_reset() -> None:
    class Blocked(Life):
        async def block(self) -> None:
            async def callback() -> None:
                await asyncio.sleep(1)
                raise ValueError("reset")

            await self.ctx.blockConcurrencyWhile(callback)

    async with solo(Blocked) as one:
        stub = one.stub("BLOCKED")
        blocking = stub.block()
        await turns()
        waiting = [one.stub("BLOCKED").note(number) for number in range(3)]
        for call in [blocking, *waiting]:
            with pytest.raises(ValueError, match="reset") as caught:
                await call
            assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]


# --- waiting --------------------------------------------------------------------------------------


class Gathering(Life):
    def block(self, seconds: float) -> None:
        self.ctx.blockConcurrencyWhile(lambda: asyncio.sleep(seconds))


@on_virtual_time
async def test_events_start_in_the_order_in_which_they_came() -> None:
    async with solo(Gathering) as one:
        stub = one.stub("GATHERING")
        await stub.block(1)
        calls = [stub.note(number) for number in range(50)]
        await asyncio.gather(*calls)
        assert (await stub.note("last"))[:50] == list(range(50))


@on_virtual_time
async def test_what_waits_is_bounded_in_bytes() -> None:
    """G6, §2.4: beyond the bound a call fails as overloaded, at once."""
    async with solo(Gathering, max_pending_bytes=10 * EVENT_OVERHEAD_BYTES) as one:
        stub = one.stub("GATHERING")
        await stub.block(1)
        calls = [stub.note(number) for number in range(11)]
        with pytest.raises(Exception, match="Durable Object is overloaded") as caught:
            await calls[10]
        assert caught.value.overloaded is True  # type: ignore[attr-defined]
        await asyncio.gather(*calls[:10])
        assert await stub.note("after") == [*range(10), "after"]
        slot = one.slot("GATHERING")
        assert slot.pending_bytes == 0


@on_virtual_time
async def test_one_event_may_be_larger_than_the_bound_and_one_of_no_size_is_never_refused() -> None:
    async with solo(Gathering, max_pending_bytes=100) as one:
        await one.stub("GATHERING").block(1)
        slot = one.slot("GATHERING")
        log: list[Any] = []

        def event(name: str, size: int) -> Pending:
            return Pending(size, lambda activation: log.append(name), log.append)

        for name, size in (("large", 1000), ("refused", 10), ("close", 0)):
            slot.deliver(event(name, size))
        (error,) = log
        assert isinstance(error, Overloaded)
        await asyncio.sleep(2)
        assert log[1:] == ["large", "close"]


@on_virtual_time
async def test_an_event_that_cannot_even_start_does_not_hold_up_the_next() -> None:
    """Such as a request to an object without fetch()."""
    async with solo(Gathering) as one:
        await one.stub("GATHERING").block(1)
        slot = one.slot("GATHERING")
        told: list[Any] = []

        def impossible(instance: Any) -> Any:
            raise TypeError("no such method")

        for _ in range(2):
            slot.call(impossible, lambda value, error: told.append(type(error)))
        slot.call(lambda instance: (instance.life, ()), lambda value, error: told.append(value))
        await asyncio.sleep(2)
        assert told == [TypeError, TypeError, 1]


@on_virtual_time
async def test_an_object_with_10_000_events_does_not_starve_another() -> None:
    async with solo(Gathering, max_pending_bytes=100_000_000) as one:
        busy, other = one.stub("GATHERING", "busy"), one.stub("GATHERING", "other")
        await other.life()
        await busy.block(1)
        calls = [busy.put(number) for number in range(10_000)]
        await asyncio.sleep(1)
        events = one.instance("GATHERING", "busy").events
        await until(lambda: events)
        for _ in range(10):
            await one.gateway.request("http://x/", target=one.target("GATHERING", "other"))
        assert len(events) < 5_000
        await calls[-1]
        assert events == list(range(10_000))


@on_virtual_time
async def test_stopping_the_shard_fails_what_waits() -> None:
    async with solo(Gathering) as one:
        stub = one.stub("GATHERING")
        await stub.block(20)
        waiting = stub.note("waiting")
        running = one.stub("GATHERING", "other").wait(20)
        await turns()
    for call in (waiting, running):
        with pytest.raises(Exception, match=r"leaves this shard|evicted"):
            await call
