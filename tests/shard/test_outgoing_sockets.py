"""WebSockets that an app opens to servers elsewhere: ``WebSocket.new`` and ``fetch``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from local.cluster import Cluster
from tests.shard.outside_servers import serve, serve_raw, until, write_app

APP = """
import asyncio, json
from workers import DurableObject, Request, Response, WebSocket, WorkerEntrypoint, fetch

STATE = {}

class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.log = []
        STATE["rooms"] = STATE.get("rooms", 0) + 1

    async def fetch(self, request):
        url = request.headers["x-to"]
        path = request.url.split("/")[-1]
        if path == "open":
            self.ws = ws = WebSocket.new(url, json.loads(request.headers["x-protocols"]))
            STATE["ws"], STATE["log"] = ws, self.log
            ws.addEventListener("open", lambda event: self.log.append("open " + ws.protocol))
            ws.addEventListener("message", self.message)
            ws.addEventListener("error", lambda event: self.log.append("error"))
            ws.addEventListener("close", self.closed)
            return Response(str(ws.readyState))
        if path == "log":
            return Response.json([*self.log, self.ws.readyState])
        if path == "say":
            self.ws.send(await request.text())
            return Response("said")
        if path == "bye":
            self.ws.close(3001, "bye")
            return Response("closed")
        if path == "abort":
            self.ctx.abort("enough")
        if path == "slow":
            self.held = asyncio.Event()
            STATE["held"] = self.held
            self.ws = ws = WebSocket.new(url)
            async def wait(event):
                await self.held.wait()
            ws.addEventListener("message", wait)
            return Response("slow")
        if path == "flood":
            closed = asyncio.get_running_loop().create_future()
            self.ws.addEventListener("close", lambda event: closed.set_result(event))
            while self.ws.readyState == 1:
                self.ws.send(bytes(1 << 20))
            event = await closed
            return Response(f"{event.code} {event.wasClean}")
        if path == "fetch":
            response = await fetch(url, headers={"Upgrade": "websocket"})
            if response.web_socket is None:
                return Response(f"{response.status} {await response.text()}")
            self.ws = ws = response.web_socket
            try:
                ws.send("early")
            except TypeError:
                pass
            await asyncio.sleep(0.01)
            ws.addEventListener("message", self.message)
            ws.addEventListener("close", self.closed)
            ws.accept()
            ws.send("hello")
            return Response(f"{response.status} {response.headers['x-server']}")

    def message(self, event):
        self.log.append(event.data if isinstance(event.data, str) else list(event.data))
        if event.data == "raise":
            raise ValueError("no")

    def closed(self, event):
        self.log.append([event.code, event.reason, event.wasClean])

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path.startswith("room"):
            return await self.env.ROOM.getByName("a").fetch(request)
        to = request.headers["x-to"]
        if path == "proxy":
            return await fetch(Request.new(to, request))
        if path == "iterate":
            ws = WebSocket.new(to)
            messages = [message async for message in ws]
            return Response.json(messages)
        if path == "early":
            ws = WebSocket.new(to)
            errors = []
            try:
                ws.send("early")
            except Exception as error:
                errors.append(f"{error.name}")
            ws.accept()
            done = asyncio.get_running_loop().create_future()
            ws.addEventListener("error", lambda event: errors.append("error"))
            ws.addEventListener("close", lambda event: done.set_result(event.code))
            ws.close()
            errors.append(ws.readyState)
            errors.append(await done)
            errors.append(ws.readyState)
            return Response.json(errors)
        if path == "invalid":
            refused = []
            for url, protocols in (
                ("/relative", None), ("ftp://x/", None), ("ws://x/#f", None),
                ("ws://x/", "a b"), ("ws://x/", ["a", "a"]),
            ):
                try:
                    WebSocket.new(url, protocols)
                except SyntaxError as error:
                    refused.append(str(error))
            return Response.json(refused)
"""


class Outgoing:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def get(self, path: str, to: str = "", protocols: str = "[]", **options: Any) -> str:
        headers = {"x-to": to, "x-protocols": protocols}
        async with self.cluster.client.post(path, headers=headers, **options) as response:
            return await response.text()

    async def log(self) -> Any:
        import json

        return json.loads(await self.get("/room/log"))

    async def logged(self, *expected: Any) -> None:
        """Wait until the object's log is that, and its socket's ready state."""
        for _ in range(2000):
            log = await self.log()
            if len(log) >= len(expected):
                break
            await asyncio.sleep(0.001)
        assert log == list(expected)

    @property
    def open(self) -> int:
        return sum(len(shard.outside_world) for shard in self.cluster.shards.values())


@pytest.fixture
async def outgoing(tmp_path: Path) -> Any:
    settings = {"close_timeout_s": 0.2, "idle_timeout_s": 0.1, "socket_buffer_bytes": 1 << 16}
    async with Cluster(write_app(tmp_path, APP, "Room"), shards=1, settings=settings) as cluster:
        yield Outgoing(cluster)


async def echo(request: web.Request) -> web.StreamResponse:
    ws = web.WebSocketResponse(protocols=("chat",), autoclose=False)
    ws.headers["X-Server"] = "echo"
    await ws.prepare(request)
    await ws.send_str("welcome")
    async for message in ws:
        if message.data == "close":
            await ws.close(code=4000, message=b"asked")
        elif message.type is aiohttp.WSMsgType.BINARY:
            await ws.send_bytes(message.data)
        else:
            await ws.send_str(message.data)
    await ws.close(code=ws.close_code or 1000)
    return ws


async def test_it_opens_carries_messages_and_closes(outgoing: Outgoing) -> None:
    async with serve(echo) as url:
        assert await outgoing.get("/room/open", url, '["other", "chat"]') == "0"
        await outgoing.logged("open chat", "welcome", 1)
        await outgoing.get("/room/say", data="hé")
        await outgoing.logged("open chat", "welcome", "hé", 1)
        await outgoing.get("/room/bye")
        await outgoing.logged("open chat", "welcome", "hé", [3001, "", True], 3)
    assert outgoing.open == 0


async def test_a_close_of_the_server_is_answered_with_its_code(outgoing: Outgoing) -> None:
    codes: list[int | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close(code=4000, message=b"asked")
        codes.append(ws.close_code)
        return ws

    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", [4000, "asked", True], 3)
        await until(lambda: codes == [4000])
    assert outgoing.open == 0


async def test_a_server_that_vanishes(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return ws

    text = "WebSocket disconnected without sending Close frame."
    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", [1006, text, False], 3)
    assert outgoing.open == 0


async def test_a_server_that_never_answers_a_close(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(autoclose=False)
        await ws.prepare(request)
        await asyncio.sleep(10)
        return ws

    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", 1)
        await outgoing.get("/room/bye")
        await outgoing.logged("open ", [1006, "the closing handshake took too long", False], 3)
        assert outgoing.open == 0


async def test_what_is_no_websocket_frame_fails_the_connection(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert request.transport is not None
        request.transport.write(b"\xff\x00")
        await ws.receive()
        codes.append(ws.close_code)
        return ws

    codes: list[int | None] = []
    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await until(lambda: codes)
        log = await outgoing.log()
    assert codes == [1002]
    assert log[:2] == ["open ", "error"]
    assert log[2][0] == 1006
    assert log[3] == 3


async def test_a_server_that_refuses(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text="not you")

    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await until(lambda: not outgoing.open)
        log = await outgoing.log()
        assert log[0] == "error"
        assert "403" in log[1][1]
        assert log[2] == 3
        assert await outgoing.get("/room/fetch", url) == "403 not you"


async def test_a_handshake_that_is_wrong_is_refused(outgoing: Outgoing) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: nonsense\r\n\r\n"
        )
        await reader.read()

    async with serve_raw(handler) as url:
        await outgoing.get("/room/open", url)
        await until(lambda: not outgoing.open)
        assert (await outgoing.log())[0] == "error"


async def test_before_it_is_open(outgoing: Outgoing) -> None:
    async with serve(echo) as url:
        text = await outgoing.get("/early", url)
    assert text == '["InvalidStateError", 2, "error", 1006, 3]'
    assert outgoing.open == 0


async def test_arguments_are_checked(outgoing: Outgoing) -> None:
    assert (await outgoing.get("/invalid")).count("WebSocket Constructor") == 5


async def test_fetch_gives_a_socket_that_waits_for_accept(outgoing: Outgoing) -> None:
    """What came before accept() is delivered, in order."""
    async with serve(echo) as url:
        assert await outgoing.get("/room/fetch", url) == "101 echo"
        await outgoing.logged("welcome", "hello", 1)
        await outgoing.get("/room/say", data="close")
        await outgoing.logged("welcome", "hello", [4000, "asked", True], 3)


async def test_a_listener_that_raises_ends_its_connection_only(outgoing: Outgoing) -> None:
    async with serve(echo) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", "welcome", 1)
        await outgoing.get("/room/say", data="raise")
        await outgoing.logged("open ", "welcome", "raise", "error", [1011, "", True], 3)


async def test_it_keeps_its_object_in_memory(outgoing: Outgoing) -> None:
    async with serve(echo) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", "welcome", 1)
        slots = next(iter(outgoing.cluster.shards[0].namespaces.values())).slots
        slot = next(iter(slots.values()))
        assert slot.activation is not None
        assert slot.activation.busy
        await outgoing.get("/room/bye")
        await until(lambda: not outgoing.open)
        assert not slot.activation.busy


async def test_a_reset_closes_it(outgoing: Outgoing) -> None:
    codes: list[int | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive()
        codes.append(ws.close_code)
        return ws

    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", 1)
        await outgoing.get("/room/abort")
        await until(lambda: codes)
    assert codes == [1001]
    assert outgoing.open == 0


async def test_a_slow_object_slows_the_server_down(outgoing: Outgoing) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        for _ in range(1000):
            await ws.send_bytes(bytes(1 << 16))
            sent += 1
        return ws

    async with serve(handler) as url:
        await outgoing.get("/room/slow", url)
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 500
        import sys

        sys.modules["entry"].STATE["held"].set()
        await until(lambda: sent == 1000)


async def test_a_slow_server_is_given_up(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        await asyncio.sleep(10)
        return ws

    async with serve(handler) as url:
        await outgoing.get("/room/open", url)
        await outgoing.logged("open ", 1)
        assert await outgoing.get("/room/flood") == "1013 False"
        assert outgoing.open == 0


async def test_async_for_ends_with_the_socket(outgoing: Outgoing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        for number in range(100):
            await ws.send_str(f"{number}")
        await ws.close()
        return ws

    async with serve(handler) as url:
        import json

        messages = json.loads(await outgoing.get("/iterate", url))
    assert messages == [str(number) for number in range(100)]


async def test_a_proxy_hands_the_upgrade_on(outgoing: Outgoing) -> None:
    """`return await fetch(request)`: frames and Close pass both ways, untouched by the app."""
    async with serve(echo) as url:
        client = outgoing.cluster.client
        async with client.ws_connect("/proxy", headers={"x-to": url}, protocols=("chat",)) as ws:
            assert ws.protocol == "chat"
            assert await ws.receive_str() == "welcome"
            await ws.send_str("text")
            await ws.send_bytes(b"\0\1")
            assert await ws.receive_str() == "text"
            assert await ws.receive_bytes() == b"\0\1"
            await ws.send_str("close")
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4000)
            assert message.extra == "asked"
        async with client.ws_connect("/proxy", headers={"x-to": url}) as ws:
            assert await ws.receive_str() == "welcome"
            await ws.close(code=4001)
            assert ws.close_code == 4001
        await until(lambda: not outgoing.open)


async def test_a_proxy_tells_when_a_side_is_lost(outgoing: Outgoing) -> None:
    codes: list[int | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str("welcome")
        message = await ws.receive()
        if message.data == "vanish":
            assert request.transport is not None
            request.transport.abort()
        codes.append(ws.close_code)
        return ws

    async with serve(handler) as url:
        client = outgoing.cluster.client
        async with client.ws_connect("/proxy", headers={"x-to": url}) as ws:
            await ws.receive_str()
            await ws.send_str("vanish")
            assert (await ws.receive()).data == 1014
        ws = await client.ws_connect("/proxy", headers={"x-to": url})
        await ws.receive_str()
        assert ws._response.connection is not None
        transport = ws._response.connection.transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
        await until(lambda: 1001 in codes)
        await until(lambda: not outgoing.open)
