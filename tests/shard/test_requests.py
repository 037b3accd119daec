"""Requests that come over a link: one answer each, bodies both ways (specification §2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from local.virtual_time import on_virtual_time
from tests.shard.kit import Answer, Solo, solo, turns, until
from workers import DurableObject, Response, WorkerEntrypoint

WINDOW = 64 * 1024


class Log:
    lines: list[str] = []  # noqa: RUF012 - one for all


@pytest.fixture(autouse=True)
def empty_log() -> None:
    Log.lines = []


async def endless() -> AsyncIterator[bytes]:
    try:
        for number in range(10_000_000):
            Log.lines[:] = [f"at {number}"]
            yield b"x" * 1000
    finally:
        Log.lines.append("closed")


async def stuck() -> AsyncIterator[bytes]:
    try:
        yield b"first"
        await asyncio.get_running_loop().create_future()
    finally:
        Log.lines.append("closed")


async def failing() -> AsyncIterator[bytes]:
    yield b"first"
    raise ValueError("midway")


class Web(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx

    async def fetch(self, request: Any) -> Any:
        what = request.url.rpartition("/")[2]
        return await getattr(self, what)(request)

    async def text(self, request: Any) -> Response:
        return Response("hello", headers={"x-a": "b"})

    async def nothing(self, request: Any) -> Response:
        return Response(None, status=204)

    async def none(self, request: Any) -> None: ...

    async def raises(self, request: Any) -> None:
        raise ValueError("in fetch")

    async def length(self, request: Any) -> Response:
        return Response(str(len(await request.bytes())))

    async def echo(self, request: Any) -> Response:
        return Response(request.body)

    async def ignore(self, request: Any) -> Response:
        return Response("not read")

    async def read_one(self, request: Any) -> Response:
        async for piece in request.body:
            return Response(piece)
        return Response("empty")

    async def read_all(self, request: Any) -> Response:
        try:
            async for _ in request.body:
                pass
        except OSError as error:
            Log.lines.append(str(error))
            raise
        return Response("read")

    async def endless(self, request: Any) -> Response:
        return Response(endless())

    async def stuck(self, request: Any) -> Response:
        return Response(stuck())

    async def failing(self, request: Any) -> Response:
        return Response(failing())

    async def slow(self, request: Any) -> Response:
        await asyncio.sleep(5)
        Log.lines.append("finished")
        return Response(endless())

    async def ticking(self, request: Any) -> Response:
        async def ticks() -> AsyncIterator[bytes]:
            for _ in range(30):
                await asyncio.sleep(1)
                yield b"tick"

        return Response(ticks())

    def abort(self) -> None:
        self.ctx.abort("aborted")

    def block(self, seconds: float) -> None:
        self.ctx.blockConcurrencyWhile(lambda: asyncio.sleep(seconds))


class Default(WorkerEntrypoint):
    """Passes everything on, so that bodies cross two owners."""

    async def fetch(self, request: Any) -> Any:
        return await self.env.WEB.getByName("a").fetch(request)


@pytest.fixture(params=["direct", "through the entry point"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(one: Solo, way: str, what: str, method: str = "GET", **options: Any) -> Answer:
    target = one.target("WEB") if way == "direct" else None
    return one.gateway.ask(f"http://x/{what}", method, target=target, **options)


async def answered(one: Solo, answer: Answer) -> Answer:
    await until(lambda: answer.is_there)
    return answer


def run(way: str, test: Any, **options: Any) -> None:
    """Run *test* on virtual time, and look whether something is left."""

    @on_virtual_time
    async def main() -> None:
        async with solo(Web, entry=Default, **{"body_window_bytes": WINDOW, **options}) as one:
            await test(one)
            await turns()
            assert one.is_empty()

    main()


def test_an_answer_in_one_piece(way: str) -> None:
    async def test(one: Solo) -> None:
        answer = await answered(one, ask(one, way, "text"))
        assert (answer.status, answer.body) == (200, b"hello")
        assert ["x-a", "b"] in [list(each) for each in answer.heads[0][4]]

    run(way, test)


def test_204_has_no_body(way: str) -> None:
    """F9."""

    async def test(one: Solo) -> None:
        answer = await answered(one, ask(one, way, "nothing"))
        assert (answer.status, answer.heads[0][5], answer.body) == (204, 0, b"")

    run(way, test)


@pytest.mark.parametrize("what", ["none", "raises", "no_such_method"])
def test_whatever_goes_wrong_is_one_failure(way: str, what: str) -> None:
    """F4, F5, F11."""

    async def test(one: Solo) -> None:
        answer = await answered(one, ask(one, way, what))
        await turns()
        assert answer.heads == []
        assert len(answer.failures) == 1
        assert answer.failures[0]["status"] == 500

    run(way, test)


def test_an_upload_arrives_piece_by_piece_under_credit(way: str) -> None:
    """F7."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "length", "POST", stream=True)
        sent = 0
        for _ in range(20):
            one.gateway.send_body(answer, b"x" * 10_000)
            sent += 10_000
            await turns()
            assert sent - answer.credited <= WINDOW
        one.gateway.end_body(answer)
        await answered(one, answer)
        assert answer.body == b"200000"

    run(way, test)


def test_an_upload_may_be_the_answer(way: str) -> None:
    async def test(one: Solo) -> None:
        answer = ask(one, way, "echo", "POST", stream=True)
        one.gateway.send_body(answer, b"one")
        await answered(one, answer)
        one.gateway.send_body(answer, b"two")
        one.gateway.end_body(answer)
        await until(lambda: answer.ended)
        assert answer.body == b"onetwo"

    run(way, test)


def test_an_upload_that_breaks_off_is_an_error_of_its_reader(way: str) -> None:
    async def test(one: Solo) -> None:
        answer = ask(one, way, "read_all", "POST", stream=True)
        one.gateway.send_body(answer, b"one")
        await turns()
        one.gateway.abort_body(answer, "the client broke off")
        await answered(one, answer)
        assert answer.failures
        assert Log.lines == ["the client broke off"]

    run(way, test)


@pytest.mark.parametrize("what", ["ignore", "read_one"])
def test_an_upload_that_is_not_read_ends_with_its_request(way: str, what: str) -> None:
    async def test(one: Solo) -> None:
        answer = ask(one, way, what, "POST", stream=True)
        one.gateway.send_body(answer, b"one")
        await answered(one, answer)
        assert answer.status == 200
        one.gateway.send_body(answer, b"two")
        one.gateway.cancel(answer)  # as gateways do when the answer is complete and the upload not

    run(way, test)


def test_a_slow_reader_slows_the_producer_down(way: str) -> None:
    async def test(one: Solo) -> None:
        answer = ask(one, way, "endless")
        for window in (WINDOW, WINDOW + 10_000):
            await turns(2000)
            assert len(answer.body) == window
            assert int(Log.lines[0].split()[1]) <= window // 1000 + 2
            one.gateway.credit_body(answer, 10_000)
        one.gateway.cancel(answer)
        await turns(200)
        assert Log.lines[-1] == "closed"

    run(way, test)


def test_a_client_that_goes_ends_a_producer_that_waits(way: str) -> None:
    async def test(one: Solo) -> None:
        answer = ask(one, way, "stuck")
        await until(lambda: answer.pieces)
        one.gateway.cancel(answer)
        await turns()
        assert Log.lines == ["closed"]

    run(way, test)


def test_a_producer_that_raises_breaks_the_answer_off(way: str) -> None:
    """F6: the status was 200 already."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "failing")
        await until(lambda: answer.aborted)
        assert answer.status == 200
        assert answer.body == b"first"
        assert "midway" in str(answer.aborted)
        assert not answer.ended

    run(way, test)


def test_abort_while_a_body_streams_breaks_it_off(way: str) -> None:
    """F8."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "stuck")
        await until(lambda: answer.pieces)
        with pytest.raises(Exception, match="aborted"):
            await one.stub("WEB").abort()
        await until(lambda: answer.aborted is not None)
        assert Log.lines == ["closed"]

    run(way, test)


def test_an_object_stays_in_memory_and_under_its_gate_while_its_answer_streams(way: str) -> None:
    """L10: a request is under way. G3: its producer does not run while a section does."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "ticking")
        await asyncio.sleep(15.5)
        assert one.lives("WEB")
        assert len(answer.pieces) == 15
        await one.stub("WEB").block(4)
        await asyncio.sleep(4)
        assert len(answer.pieces) <= 16
        await asyncio.sleep(20)
        assert answer.ended
        assert len(answer.pieces) == 30
        await asyncio.sleep(13)
        assert not one.lives("WEB")

    run(way, test)


def test_a_reader_that_pauses_does_not_let_the_producer_be_evicted(way: str) -> None:
    """L10: nothing of the object runs meanwhile, yet a request is under way."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "endless")
        await asyncio.sleep(30)
        assert one.lives("WEB")
        one.gateway.credit_body(answer, 5000)
        await turns(200)
        assert len(answer.body) == WINDOW + 5000
        one.gateway.cancel(answer)
        await asyncio.sleep(13)
        assert not one.lives("WEB")

    run(way, test)


def test_the_handler_runs_to_its_end_when_the_client_goes(way: str) -> None:
    """F12; its answer is dropped, the body's producer never begins or is closed."""

    async def test(one: Solo) -> None:
        answer = ask(one, way, "slow")
        await asyncio.sleep(1)
        one.gateway.cancel(answer)
        await asyncio.sleep(10)
        assert Log.lines == ["finished"]
        assert not answer.is_there

    run(way, test)


def test_a_link_that_goes_down_ends_what_came_over_it(way: str) -> None:
    async def test(one: Solo) -> None:
        streaming = ask(one, way, "stuck")
        uploading = ask(one, way, "read_all", "POST", stream=True)
        ask(one, way, "slow")
        await until(lambda: streaming.pieces)
        one.gateway.send_body(uploading, b"one")
        await turns()
        await one.cut()
        await asyncio.sleep(10)
        assert sorted(Log.lines)[0] == "closed"
        assert any("sender of the body is gone" in line for line in Log.lines)
        assert "finished" in Log.lines

    run(way, test)


def test_a_request_that_cannot_be_read_harms_no_other() -> None:
    @on_virtual_time
    async def main() -> None:
        async with solo(Web, entry=Default) as one:
            bad = one.gateway.ask(5, target=one.target("WEB"))  # type: ignore[arg-type]
            stranger = one.gateway.ask(target=["no-such-key", b"x" * 32, None, 1, 0])
            foreign = one.gateway.ask(target=[one.target("WEB")[0], b"x" * 32, None, 1, 0])
            stale = one.target("WEB")
            stale[3] = 2
            moved = one.gateway.ask(target=stale)
            good = await one.gateway.request("http://x/text", target=one.target("WEB"))
            assert good.body == b"hello"
            await turns()
            assert stranger.failures[0]["status"] == 503
            assert moved.failures[0]["status"] == 503
            assert foreign.failures
            assert bad.failures
            assert one.gateway.is_up
            assert one.is_empty()

    main()
