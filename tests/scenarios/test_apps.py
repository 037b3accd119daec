"""Apps as one would deploy them on Cloudflare, run as they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from tests.running import ROOT
from tests.scenarios.worlds import World, eventually, scenario
from tests.shard.outside_servers import serve

APPS = ROOT / "tests" / "apps"


async def get(world: World, path: str) -> tuple[int, str]:
    async with world.client.get(path) as response:
        return response.status, await response.text()


async def told(ws: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await ws.receive_str())


# --- lists by RPC, kept in storage


@scenario(APPS / "lists")
async def test_lists_are_kept_by_name(world: World) -> None:
    """Storage gives a list that can be appended to, and a call returns a list of the caller's."""
    assert await get(world, "/?list=groceries") == (200, "(end)")
    assert await get(world, "/add?list=groceries&line=milk") == (201, "1 lines")
    assert await get(world, "/add?list=groceries&line=brot%20%C3%BC") == (201, "2 lines")
    assert await get(world, "/add?list=books&line=ulysses") == (201, "1 lines")
    assert await get(world, "/?list=groceries") == (200, "milk\nbrot ü\n(end)")
    assert await get(world, "/?list=books") == (200, "ulysses\n(end)")
    assert (await get(world, "/"))[0] == 400
    assert (await get(world, "/elsewhere?list=a"))[0] == 404


@scenario(APPS / "lists", own=True)
async def test_what_was_answered_survives_a_crash(world: World) -> None:
    """An answer leaves when the writes before it are on disk, although nobody awaited them."""
    for number in range(8):
        assert (await get(world, f"/add?list=l{number}&line=kept"))[0] == 201
    await world.crash_shard(0)
    await world.crash_shard(1)
    for number in range(8):
        await eventually(lambda path=f"/?list=l{number}": get(world, path), (200, "kept\n(end)"))  # type: ignore[misc]


@scenario(APPS / "lists")
async def test_additions_at_once_are_all_kept(world: World) -> None:
    """A storage call lets nobody else in: reading, appending and writing back loses nothing."""
    answers = await asyncio.gather(
        *(get(world, f"/add?list=busy&line={number}") for number in range(40))
    )
    assert {text for _, text in answers} == {f"{count} lines" for count in range(1, 41)}


# --- a counter by fetch


@scenario(APPS / "counter")
async def test_a_counter_counts_requests_that_come_at_once(world: World) -> None:
    await asyncio.gather(*(get(world, "/increment?name=hits") for _ in range(30)))
    assert await get(world, "/decrement?name=hits") == (200, "hits: 29")
    assert await get(world, "/?name=hits") == (200, "hits: 29")
    assert await get(world, "/?name=other") == (200, "other: 0")
    assert await get(world, "/nowhere?name=hits") == (404, "hits: ?")


# --- a stream consumer with an outgoing WebSocket


class Stream:
    """The server that the consumer follows."""

    def __init__(self) -> None:
        self.wanted: list[Any] = []
        self.followers: list[web.WebSocketResponse] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        follower = web.WebSocketResponse()
        await follower.prepare(request)
        self.wanted.append(json.loads(await follower.receive_str()))
        self.followers.append(follower)
        async for _ in follower:
            pass
        return follower

    async def send(self, *kinds: str) -> None:
        for kind in kinds:
            await self.followers[-1].send_str(json.dumps({"kind": kind}))


async def status(world: World, *keys: str) -> list[Any]:
    _, text = await get(world, "/status")
    return [json.loads(text)[key] for key in keys]


async def follow(world: World, url: str) -> None:
    assert (await get(world, f"/follow?url={url.replace('http', 'ws', 1)}/events"))[0] == 202


@scenario(APPS / "consumer", own=True)
async def test_a_consumer_follows_a_stream_and_keeps_what_it_learns(world: World) -> None:
    """An outgoing socket's listeners are the object's own code: proxies of methods, sync or not."""
    stream = Stream()
    async with serve(stream.handle) as url:
        await follow(world, url)
        await eventually(lambda: status(world, "opened"), [True])
        await stream.send("like", "post", "like", "like")
        await eventually(lambda: status(world, "likes"), [3])
        assert stream.wanted == [{"wanted": "likes"}]
        await stream.followers[0].close(code=4001, message=b"moving")
        await eventually(
            lambda: status(world, "opened", "closed", "retry"), [False, "4001 moving", True]
        )


@scenario(APPS / "consumer", own=True)
async def test_a_listener_that_aborts_ends_the_objects_life(world: World) -> None:
    """``ctx.abort()`` in a listener: the socket ends, what was stored stays, a new life begins."""
    stream = Stream()
    async with serve(stream.handle) as url:
        await follow(world, url)
        await eventually(lambda: status(world, "opened"), [True])
        await stream.send("like")
        await eventually(lambda: status(world, "likes"), [1])
        await stream.send("poison")
        await eventually(lambda: status(world, "opened", "likes"), [False, 1])
        await follow(world, url)
        await eventually(lambda: status(world, "opened"), [True])


@scenario(APPS / "consumer", own=True)
async def test_a_stream_that_cannot_be_reached_is_an_error_and_a_close(world: World) -> None:
    """``error``, then ``close`` with 1006: the last word that is stored is that of the close."""
    async with serve(Stream().handle) as url:
        pass
    await follow(world, url)
    await eventually(lambda: status(world, "opened", "retry"), [False, True])
    (closed,) = await status(world, "closed")
    assert closed.startswith("1006 ")


@scenario(APPS / "consumer", own=True)
async def test_the_alarm_connects_again(world: World) -> None:
    """``alarm(self)`` without an argument rings once, when it was set for."""
    stream = Stream()
    async with serve(stream.handle) as url:
        await follow(world, url)
        await eventually(lambda: status(world, "opened"), [True])
        await stream.followers[0].close()

        async def followers() -> int:
            return len(stream.followers)

        await eventually(followers, 2)
        await eventually(lambda: status(world, "opened", "retry"), [True, False])


# --- a chat room of hibernatable sockets


async def room(world: World, name: str) -> Any:
    return json.loads((await get(world, f"/room/{name}"))[1])


@scenario(APPS / "chat")
async def test_a_page_that_lies_next_to_the_module_is_served(world: World) -> None:
    async with world.client.get("/") as response:
        assert response.headers["Content-Type"] == "text/html;charset=utf-8"
        assert "Grüße aus dem Chat." in await response.text()


@scenario(APPS / "chat")
async def test_a_chat_room_tells_all_who_are_there(world: World) -> None:
    """What is sent before the 101 waits for it; sockets carry what was attached to them."""
    ann = await world.client.ws_connect("/room/tea?nick=ann")
    assert await told(ann) == {"past": [], "here": 1}
    await ann.send_str("hello?")
    assert await told(ann) == {"from": "ann", "text": "hello?"}
    bob = await world.client.ws_connect("/room/tea?nick=bob")
    assert await told(bob) == {"past": [["ann", "hello?"]], "here": 2}
    assert await told(ann) == {"joined": "bob"}
    await bob.send_str("hëllo!")
    for member in (ann, bob):
        assert await told(member) == {"from": "bob", "text": "hëllo!"}
    # A room is one object: another room hears nothing of it.
    assert (await room(world, "tea"))["here"] == 2
    assert (await room(world, "coffee"))["here"] == 0
    await bob.close()
    await ann.close()


@scenario(APPS / "chat")
async def test_a_binary_message_answers_to_what_an_array_buffer_answers(world: World) -> None:
    async with world.client.ws_connect("/room/binary?nick=ann") as ann:
        await told(ann)
        await ann.send_bytes(b"\x01\x02\x03")
        assert await told(ann) == {"bytes": 3, "sum": 6}


@scenario(APPS / "chat")
async def test_members_who_leave_are_told_of_once(world: World) -> None:
    """``webSocketClose`` gets the client's code and echoes it; 1005 and 1006 do not trouble it."""
    ann = await world.client.ws_connect("/room/door?nick=ann")
    await told(ann)
    for number, code in enumerate((1000, 3001, 4999)):
        async with world.client.ws_connect(f"/room/door?nick=b{number}") as bob:
            await told(bob)
            assert await told(ann) == {"joined": f"b{number}"}
            await bob.close(code=code, message=b"bye")
            assert bob.close_code == code
        assert await told(ann) == {"left": f"b{number}", "code": code}
    bob = await world.client.ws_connect("/room/door?nick=lost")
    await told(bob)
    assert await told(ann) == {"joined": "lost"}
    bob._writer.transport.abort()  # a cut cable
    assert await told(ann) == {"left": "lost", "code": 1006}
    assert (await room(world, "door"))["here"] == 1
    await ann.close()


@scenario(APPS / "chat", idle_timeout_s=0.1)
async def test_a_room_that_sleeps_keeps_its_members(world: World) -> None:
    """Hibernation: the object leaves memory, its sockets stay, and know who they were."""

    async def lives_again() -> bool:
        now = await room(world, "bed")
        assert now["here"] == 1
        return bool(now["lives"] > 2)

    async with world.client.ws_connect("/room/bed?nick=ann") as ann:
        await told(ann)
        # To ask is to wake it: so seldom that it can fall asleep in between.
        await eventually(lives_again, True, every_s=2.5)
        await ann.send_str("I am awake")
        assert await told(ann) == {"from": "ann", "text": "I am awake"}


# --- the programs by which the SDK tests itself


CHECKS = ("fetch", "calls", "mixin", "blocking", "sync", "alarm", "env", "errors")


@scenario(APPS / "sdk_objects")
async def test_the_sdk_keeps_its_promises_about_objects(world: World) -> None:
    answers = {check: await get(world, f"/{check}") for check in CHECKS}
    failures = [line["exception"] for line in world.logged("entry.handler_failed")]
    assert answers == dict.fromkeys(CHECKS, (200, "ok")), "\n".join(failures)


@scenario(APPS / "sdk_sockets")
async def test_the_sdk_keeps_its_promises_about_sockets(world: World) -> None:
    """A request is passed on to the object as it came, and so is the object's answer."""
    async with world.client.get("/") as response:
        assert (response.status, response.reason) == (426, "Upgrade First")
        assert await response.text() == "Expected Upgrade: websocket"
    async with world.client.ws_connect("/") as ws:
        assert await ws.receive_str() == "welcome"
        await ws.send_str("hello")
        assert await ws.receive_str() == "echo: hello"
        await ws.send_bytes(b"\x00\xff")
        assert await ws.receive_bytes() == b"\x00\xff"
        await ws.close(code=4002, message=b"done")
        assert ws.close_code == 4002


@scenario(APPS / "sdk_sockets")
async def test_the_echo_ends_with_the_clients_own_code(world: World) -> None:
    async with world.client.ws_connect("/", autoclose=False) as ws:
        await ws.receive_str()
        await ws._writer.close(4003, b"why not")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4003, "why not")
