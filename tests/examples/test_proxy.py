"""The proxy example over real processes, before an upstream server of this test's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.running import ROOT, RunningCluster, free_port, limpet_up

pytestmark = pytest.mark.processes

PIECE = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def upstream_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(
    upstream_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningCluster]:
    app = tmp_path_factory.mktemp("proxy") / "app"
    shutil.copytree(ROOT / "examples/proxy", app)
    project = app / "wrangler.jsonc"
    text, changed = re.subn(r":8000\b", f":{upstream_port}/base", project.read_text())
    assert changed == 1
    project.write_text(text)
    with limpet_up(app, shards=2, fetch_timeout_s=1) as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: RunningCluster) -> AsyncIterator[aiohttp.ClientSession]:
    url = f"http://127.0.0.1:{cluster.port}"
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(url, cookie_jar=jar) as client, asyncio.timeout(30):
        yield client


@asynccontextmanager
async def upstream(port: int, handler: Callable[[web.Request], Any]) -> AsyncIterator[None]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_a_request_arrives_as_it_was_sent(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    """Method, path, query, headers, body; and whom the client asked."""

    async def tell(request: web.Request) -> web.Response:
        told = {
            "line": f"{request.method} {request.raw_path}",
            "colour": request.headers.get("X-Colour"),
            "asked": request.headers.get("X-Forwarded-Host"),
            "by": request.headers.get("X-Forwarded-Proto"),
            "body": await request.text(),
        }
        return web.json_response(told)

    async with upstream(upstream_port, tell):
        for method, body in (("GET", ""), ("POST", "a body"), ("DELETE", "")):
            async with client.request(
                method,
                "/path/to?a=b&c=%20d",
                data=body or None,
                headers={"X-Colour": "blue", "X-Forwarded-Host": "forged"},
            ) as response:
                assert json.loads(await response.text()) == {
                    "line": f"{method} /base/path/to?a=b&c=%20d",
                    "colour": "blue",
                    "asked": f"127.0.0.1:{response.url.port}",
                    "by": "http",
                    "body": body,
                }


async def test_an_answer_arrives_as_it_was_given(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    """Status, reason, each cookie; redirects are the client's; HEAD and 304 have no body."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/base/away":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        if request.path == "/base/same":
            return web.Response(status=304, headers={"ETag": '"1"'})
        response = web.Response(status=418, reason="Teapot", text="short and stout")
        response.headers.add("Set-Cookie", "a=1")
        response.headers.add("Set-Cookie", "b=2")
        return response

    async with upstream(upstream_port, answer):
        async with client.get("/tea") as response:
            assert (response.status, response.reason) == (418, "Teapot")
            assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert await response.text() == "short and stout"
        async with client.head("/tea") as response:
            assert response.headers["Content-Length"] == str(len("short and stout"))
        async with client.get("/away", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/elsewhere")
        async with client.get("/same") as response:
            assert (response.status, response.headers["ETag"]) == (304, '"1"')


async def test_both_bodies_stream_at_once(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    """Each line comes back before the next one is sent."""

    async def mirror(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for line in request.content:
            await response.write(line.upper())
        return response

    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def talk() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"line %d\n" % number
            assert await heard.get() == b"LINE %d\n" % number

    async with (
        upstream(upstream_port, mirror),
        client.post("/mirror", data=talk()) as response,
    ):
        async for line in response.content:
            heard.put_nowait(line)


async def test_large_bodies_arrive_whole(client: aiohttp.ClientSession, upstream_port: int) -> None:
    count = 512  # pieces of 64 KiB

    async def digest(request: web.Request) -> web.StreamResponse:
        hashed = hashlib.sha256()
        async for chunk in request.content.iter_any():
            hashed.update(chunk)
        response = web.StreamResponse(headers={"X-Digest": hashed.hexdigest()})
        await response.prepare(request)
        for _ in range(count):
            await response.write(PIECE)
        return response

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE

    expected = hashlib.sha256(PIECE * count).hexdigest()
    async with upstream(upstream_port, digest), client.put("/big", data=pieces()) as response:
        assert response.headers["X-Digest"] == expected
        assert hashlib.sha256(await response.read()).hexdigest() == expected


async def test_a_websocket_passes_through(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    """With its subprotocol, text and bytes, and the close code of either side."""
    closed: asyncio.Queue[int | None] = asyncio.Queue()

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("chat",))
        await ws.prepare(request)
        async for message in ws:
            if message.data == "leave":
                await ws.close(code=4001, message=b"as you wish")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data + "!")
            else:
                await ws.send_bytes(message.data)
        closed.put_nowait(ws.close_code)
        return ws

    async with upstream(upstream_port, echo):
        async with client.ws_connect("/socket", protocols=("other", "chat")) as ws:
            assert ws.protocol == "chat"
            await ws.send_str("héllo")
            assert await ws.receive_str() == "héllo!"
            await ws.send_bytes(PIECE)
            assert await ws.receive_bytes() == PIECE
            await ws.close(code=4002)
        assert await closed.get() == 4002
        async with client.ws_connect("/socket") as ws:
            await ws.send_str("leave")
            message = await ws.receive()
            assert (message.data, message.extra) == (4001, "as you wish")


async def test_an_upstream_that_refuses_an_upgrade_is_plain_http(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text="members only")

    async with upstream(upstream_port, refuse):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/socket")
    assert refused.value.status == 403


async def test_an_upstream_that_is_not_there_is_a_502(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as response:
        assert response.status == 502
        assert await response.text() == "The upstream server cannot be reached.\n"


async def test_an_upstream_that_says_nothing_is_a_504(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    done = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await done.wait()
        return web.Response()

    async with upstream(upstream_port, hang):
        async with client.get("/") as response:
            assert response.status == 504
        done.set()


async def test_a_client_that_leaves_ends_the_answer_for_the_upstream(
    client: aiohttp.ClientSession, upstream_port: int
) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(PIECE)
        finally:
            ended.set()

    async with upstream(upstream_port, endless):
        async with client.get("/") as response:
            await response.content.readexactly(len(PIECE))
        await ended.wait()
