"""The shard as a whole: records it refuses, figures it gives, and its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.link.records import ATTACH, BODY_CREDIT, CLOSE, CLOSED, PAUSE, RESPONSE
from local.virtual_time import on_virtual_time
from tests.shard.kit import solo, turns, until
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint


class Echo(DurableObject):
    def fetch(self, request: Any) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.addEventListener("message", lambda event: server.send(event.data))
        return Response(None, status=101, web_socket=client)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Default(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Any:
        return await self.env.ECHO.getByName("a").fetch(request)


@on_virtual_time
async def test_a_socket_reaches_its_gateway_through_the_entry_point() -> None:
    async with solo(Echo, entry=Default) as one:
        client = await one.gateway.upgrade("http://x/")
        client.send("hello")
        await until(lambda: client.received)
        assert client.received == ["hello"]


@on_virtual_time
async def test_a_socket_for_a_request_that_is_no_upgrade_is_refused() -> None:
    """F10; nothing of it stays."""
    async with solo(Echo, entry=Default) as one:
        for target in (None, one.target("ECHO")):
            answer = await one.gateway.request("http://x/", target=target)
            assert answer.heads == []
            assert (
                'did not contain the header "Upgrade: websocket"' in answer.failures[0]["message"]
            )
        assert len(one.shard.sockets) == 0


@pytest.mark.parametrize(
    "record",
    [
        [PAUSE, [1]],
        [CLOSE, 1, 1000, ""],
        [RESPONSE, 1, 200, "OK", [], 0, None, None],
    ],
)
def test_records_that_a_shard_is_not_sent_end_their_link_only(record: list[Any]) -> None:
    @on_virtual_time
    async def main() -> None:
        async with solo(Echo, entry=Default) as one:
            other = await one.connect(1)
            client = await other.upgrade("http://x/")
            one.gateway.link.send(record)
            await until(lambda: not one.gateway.is_up)
            client.send("unharmed")
            await until(lambda: client.received)

    main()


@on_virtual_time
async def test_records_about_what_is_over_are_ignored() -> None:
    async with solo(Echo, entry=Default) as one:
        gateway = one.gateway
        gateway.link.unicast(4711, "to nobody")
        gateway.link.unicast(4711, b"x" * 200_000)
        gateway.link.send([CLOSED, 4711, 1000, "", True])
        gateway.link.urgent([BODY_CREDIT, 4711, 10])
        gateway.link.send([ATTACH, 4711, 4712, 0])
        client = await gateway.upgrade("http://x/")
        client.send("hello")
        await until(lambda: client.received)
        assert gateway.is_up


@on_virtual_time
async def test_figures() -> None:
    async with solo(Echo, entry=Default) as one:
        client = await one.gateway.upgrade("http://x/")
        await turns()
        status = one.shard.status()
        figures = {name: status[name] for name in ("objects", "active_objects", "sockets", "links")}
        assert figures == {"objects": 1, "active_objects": 1, "sockets": 1, "links": 1}
        client.vanish()
        await asyncio.sleep(15)
        assert one.shard.status()["objects"] == 0
        assert one.shard.status()["sockets"] == 0


@on_virtual_time
async def test_stopping_leaves_nothing_under_way() -> None:
    """The test's own frame looks for tasks and timers that are left."""
    async with solo(Echo, entry=Default) as one:
        await one.gateway.upgrade("http://x/")
        call = one.stub("ECHO").wait(1000)
        await turns()
    with pytest.raises(Exception, match=r"evicted|leaves|stopp"):
        await call
    assert one.shard.status()["active_objects"] == 0
