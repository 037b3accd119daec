"""The stateless entry point: a new instance a request, requests that do not see each other."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from local.virtual_time import on_virtual_time
from tests.shard.kit import Answer, Solo, solo, turns, until
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Seen:
    instances: list[Any] = []  # noqa: RUF012 - of all requests
    log: list[Any] = []  # noqa: RUF012


@pytest.fixture(autouse=True)
def fresh() -> None:
    Seen.instances = []
    Seen.log = []


class Room(DurableObject):
    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "waited"


class Default(WorkerEntrypoint):
    def fetch(self, request: Any) -> Any:
        Seen.instances.append(self)
        return getattr(self, request.url.rpartition("/")[2])(request)

    def plain(self, request: Any) -> Response:
        return Response("plain")

    async def coroutine(self, request: Any) -> Response:
        return Response("coroutine")

    def future(self, request: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_result, Response("future"))
        return future

    async def waits(self, request: Any) -> Response:
        return Response(await self.env.ROOM.getByName("a").wait(2))

    def raises(self, request: Any) -> None:
        raise ValueError("plain")

    async def raises_later(self, request: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    def cancels(self, request: Any) -> None:
        raise asyncio.CancelledError

    async def cancels_itself(self, request: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def wrong(self, request: Any) -> str:
        return "no response"

    def sets(self, request: Any) -> Response:
        seen = variable.get()
        variable.set("set")
        return Response(seen)

    async def sets_in_a_coroutine(self, request: Any) -> Response:
        seen = variable.get()
        variable.set("set")
        return Response(seen)

    async def waits_until(self, request: Any) -> Response:
        async def behind() -> None:
            await asyncio.sleep(5)
            Seen.log.append("behind")

        self.ctx.waitUntil(behind())
        return Response("answered")

    def socket(self, request: Any) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.send("hello")

        def listener(event: Any) -> Any:
            Seen.log.append(event.data)
            server.send(event.data)
            if event.data == "raise":
                raise ValueError("in a listener")

        async def later(event: Any) -> None:
            await asyncio.sleep(0)
            server.send(event.data + " later")

        server.addEventListener("message", listener)
        server.addEventListener("message", later)
        server.addEventListener("close", lambda event: Seen.log.append((event.code, event.reason)))
        return Response(None, status=101, web_socket=client)


async def get(one: Solo, what: str) -> Answer:
    return await one.gateway.request(f"http://x/{what}")


@on_virtual_time
async def test_plain_functions_coroutines_and_futures() -> None:
    async with solo(entry=Default) as one:
        for what in ("plain", "coroutine"):
            assert (await get(one, what)).body == what.encode()
        answer = one.gateway.ask("http://x/future")
        await asyncio.sleep(2)
        assert answer.body == b"future"
        assert one.is_empty()


@on_virtual_time
async def test_each_request_has_an_instance_of_its_own() -> None:
    async with solo(entry=Default) as one:
        for _ in range(3):
            await get(one, "plain")
        assert len({id(each) for each in Seen.instances}) == 3


@pytest.mark.parametrize("what", ["sets", "sets_in_a_coroutine"])
def test_what_one_request_sets_the_next_does_not_see(what: str) -> None:
    @on_virtual_time
    async def main() -> None:
        async with solo(entry=Default) as one:
            for _ in range(3):
                assert (await get(one, what)).body == b"unset"

    main()


@on_virtual_time
async def test_requests_do_not_wait_for_each_other() -> None:
    async with solo(Room, entry=Default) as one:
        waiting = one.gateway.ask("http://x/waits")
        await turns()
        assert (await get(one, "coroutine")).body == b"coroutine"
        assert not waiting.is_there
        await asyncio.sleep(3)
        assert waiting.body == b"waited"


@pytest.mark.parametrize(
    "what", ["raises", "raises_later", "cancels", "cancels_itself", "wrong", "no_such_method"]
)
def test_a_request_that_goes_wrong_is_answered_and_harms_no_other(what: str) -> None:
    """F11."""

    @on_virtual_time
    async def main() -> None:
        async with solo(entry=Default) as one:
            answer = await get(one, what)
            assert answer.heads == []
            assert [each["status"] for each in answer.failures] == [500]
            assert (await get(one, "coroutine")).body == b"coroutine"
            assert one.is_empty()

    main()


@on_virtual_time
async def test_an_app_without_an_entry_point_says_so() -> None:
    async with solo(Room) as one:
        answer = await get(one, "")
        assert "class Default(WorkerEntrypoint)" in answer.failures[0]["message"]


@on_virtual_time
async def test_wait_until_goes_on_behind_the_answer() -> None:
    """L5."""
    async with solo(entry=Default) as one:
        assert (await get(one, "waits_until")).body == b"answered"
        assert Seen.log == []
        await asyncio.sleep(6)
        assert Seen.log == ["behind"]


@on_virtual_time
async def test_what_is_under_way_when_the_shard_stops_is_ended() -> None:
    async with solo(Room, entry=Default) as one:
        one.gateway.ask("http://x/waits")
        await turns()


@on_virtual_time
async def test_the_entry_point_may_keep_a_socket_itself() -> None:
    async with solo(entry=Default) as one:
        client = await one.gateway.upgrade("http://x/socket")
        for message in ("one", "two", "three"):
            client.send(message)
        await until(lambda: len(client.received) == 7)
        assert [each for each in client.received if "later" not in str(each)] == [
            "hello",
            "one",
            "two",
            "three",
        ]
        assert Seen.log == ["one", "two", "three"]
        client.close(3000, "bye")
        await turns()
        assert Seen.log[3:] == [(3000, "bye")]
        assert client.closes == [(3000, "")]
        assert one.is_empty()


@on_virtual_time
async def test_a_listener_of_the_entry_point_that_raises_ends_its_connection() -> None:
    async with solo(entry=Default) as one:
        client = await one.gateway.upgrade("http://x/socket")
        client.send("raise")
        await turns()
        assert [code for code, _ in client.closes] == [1011]
        client.close(1011)
        await turns()
        assert one.is_empty()
