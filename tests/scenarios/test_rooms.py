"""What clients of an ordinary app see, whatever happens to the cluster behind them."""

from __future__ import annotations

import asyncio
import io

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.scenarios.worlds import REFERENCE, World, eventually, scenario


async def text_of(world: World, path: str) -> str:
    async with world.client.get(path) as response:
        return await response.text()


async def status_of(world: World, path: str) -> int:
    async with world.client.get(path) as response:
        return response.status


@scenario(REFERENCE)
async def test_the_reference_program_counts_connections(world: World) -> None:
    """Each client reads the number of those connected; it goes down when one leaves."""
    prefix = "[Durable Object] currentlyConnectedWebSockets: "
    async with world.client.ws_connect("/websocket") as first:
        async with world.client.ws_connect("/websocket") as second:
            await second.send_str("?")
            assert await second.receive_str() == prefix + "2"
        await first.send_str("?")
        assert await first.receive_str() == prefix + "1"


@scenario()
async def test_messages_of_one_connection_keep_their_order(world: World) -> None:
    """G4, for many connections to many rooms at once, with text and binary, small and large."""

    async def talk(room: int) -> None:
        async with world.client.ws_connect(f"/room-{room % 7}/echo", max_msg_size=0) as ws:
            sent: list[str | bytes] = []
            for number in range(40):
                text = f"{room}-{number} " + "é" * (number * room)
                sent.append(text if number % 3 else text.encode() * 20)
            for message in sent:
                await (ws.send_str(message) if type(message) is str else ws.send_bytes(message))  # type: ignore[arg-type]
            got = [(await ws.receive()).data for _ in sent]
            assert got == sent

    await asyncio.gather(*(talk(room) for room in range(30)))


@scenario()
async def test_a_message_of_a_megabyte_comes_back_whole(world: World) -> None:
    async with world.client.ws_connect("/big/echo", max_msg_size=0) as ws:
        for message in ("ü" * (1 << 19), "x" * 65536, "y" * 8192, "z" * 8191):
            await ws.send_str(message)
            assert await ws.receive_str() == message
        await ws.send_bytes(bytes(range(256)) * 4096)
        assert await ws.receive_bytes() == bytes(range(256)) * 4096


@scenario()
async def test_every_member_gets_every_message_in_the_same_order(world: World) -> None:
    """A broadcast is one order for all, whoever sends."""
    members = [await world.client.ws_connect("/hall/all") for _ in range(8)]
    for number in range(25):
        await members[number % 8].send_str(str(number))
        # All have it before the next one is sent: else the order between senders is open.
        seen = {(await member.receive_str()) for member in members}
        assert seen == {str(number)}
    for member in members:
        await member.close()
    await eventually(lambda: text_of(world, "/hall/members"), "0")


@scenario()
async def test_what_the_object_sends_in_one_turn_arrives_in_order(world: World) -> None:
    async with world.client.ws_connect("/burst/burst") as ws:
        await ws.send_str("2000")
        assert [await ws.receive_str() for _ in range(2000)] == [str(n) for n in range(2000)]


@scenario()
async def test_a_handler_that_suspends_keeps_the_order_of_starts(world: World) -> None:
    async with world.client.ws_connect("/slow/slow") as ws:
        for number in range(50):
            await ws.send_str(str(number))
        assert [await ws.receive_str() for _ in range(50)] == [str(n) for n in range(50)]


@scenario()
async def test_a_listener_that_raises_ends_only_its_own_connection(world: World) -> None:
    """websocket.md §9.8: Close 1011; the object and its other sockets go on."""
    async with (
        world.client.ws_connect("/mixed/raise") as bad,
        world.client.ws_connect("/mixed/echo") as good,
    ):
        await bad.send_str("boom")
        message = await bad.receive()
        assert (message.type, bad.close_code) == (WSMsgType.CLOSE, 1011)
        await good.send_str("still here")
        assert await good.receive_str() == "still here"
        await eventually(lambda: text_of(world, "/mixed/members"), "1")


@scenario()
async def test_the_object_closes_with_its_own_code(world: World) -> None:
    async with world.client.ws_connect("/closing/close") as ws:
        await ws.send_str("please")
        message = await ws.receive()
        assert (message.data, message.extra) == (4000, "as you wish")
    await eventually(lambda: text_of(world, "/closing/members"), "0")


@scenario()
async def test_an_object_that_refuses_an_upgrade_is_plain_http(world: World) -> None:
    """Nothing is upgraded too early: the answer reaches the client as it is."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.client.ws_connect("/x/refuse")
    assert refused.value.status == 403
    async with world.client.get("/x/refuse") as response:
        assert (response.status, response.headers["X-Room"]) == (403, "full")


@scenario()
async def test_a_handler_that_fails_is_a_500_and_harms_nothing(world: World) -> None:
    async with world.client.ws_connect("/y/echo") as ws:
        for path in ("/y/raise", "/y/none"):
            async with world.client.get(path) as response:
                assert response.status == 500
                assert await response.text() == "Internal Server Error"
        await ws.send_str("alive")
        assert await ws.receive_str() == "alive"


@scenario()
async def test_a_reset_closes_the_objects_sockets_with_1011(world: World) -> None:
    async with world.client.ws_connect("/z/echo") as ws:
        assert await status_of(world, "/z/abort") == 500
        message = await ws.receive()
        assert (message.data, message.extra) == (1011, "Durable Object was reset")
    assert await text_of(world, "/z/members") == "0"


@scenario()
async def test_a_request_that_hangs_holds_up_nobody_else(world: World) -> None:
    hanging = asyncio.create_task(text_of(world, "/w/hang"))
    assert await text_of(world, "/w/members") == "0"
    assert await text_of(world, "/w/release") == "ok"
    assert await hanging == "released"


@scenario()
async def test_a_body_goes_in_and_comes_out(world: World) -> None:
    for size in (0, 1, 65_536, 3_000_000):
        async with world.client.post("/b/body", data=io.BytesIO(b"a" * size)) as response:
            assert await response.read() == b"A" * size


@scenario(own=True)
async def test_a_crash_closes_regular_sockets_with_1012_and_the_shard_is_back(world: World) -> None:
    """A shard's death is told at once; what was in memory is gone; new clients are served."""
    sockets = [await world.client.ws_connect(f"/r{number}/echo") for number in range(12)]
    hanging = [asyncio.create_task(status_of(world, f"/r{number}/hang")) for number in range(12)]
    await eventually(lambda: text_of(world, "/r11/members"), "1")
    await world.crash_shard(0)
    await world.crash_shard(1)
    for socket in sockets:
        await socket.receive()
        assert socket.close_code == 1012
    assert {await task for task in hanging} == {503}
    await eventually(lambda: status_of(world, "/r0/members"), 200)
    for number in range(12):
        await eventually(lambda path=f"/r{number}/members": text_of(world, path), "0")  # type: ignore[misc]
