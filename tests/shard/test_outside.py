"""``fetch`` to the outside world, from entry points and objects, against real servers."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local.cluster import Cluster
from tests.shard.outside_servers import serve, serve_raw, until, write_app

APP = """
import asyncio, json
from workers import DurableObject, Request, Response, WorkerEntrypoint, fetch

LOG = []

class Room(DurableObject):
    async def fetch(self, request):
        url = request.headers["x-to"]
        if request.url.endswith("/reset"):
            LOG.append("started")
            try:
                await fetch(url)
            finally:
                LOG.append("ended")
        if request.url.endswith("/abort"):
            self.ctx.abort("enough")
        return await fetch(url)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        to = request.headers["x-to"]
        path = request.url.split("/", 3)[3]
        if path.startswith("room"):
            return await self.env.ROOM.getByName("a").fetch(request)
        if path == "proxy":
            return await fetch(Request.new(to, request))
        if path == "seen":
            options = json.loads(request.headers["x-options"])
            try:
                response = await fetch(to, **options)
                text = await response.text()
            except Exception as error:
                return Response.json({
                    "error": type(error).__name__, "text": str(error),
                    "retryable": getattr(error, "retryable", False),
                })
            return Response.json({
                "status": response.status, "text": text, "url": response.url,
                "redirected": response.redirected, "headers": dict(response.headers.items()),
            })
        if path == "timeout":
            try:
                async with asyncio.timeout(0.01):
                    await fetch(to)
            except TimeoutError:
                return Response("given up")
        if path == "failing-upload":
            async def body():
                yield b"one"
                raise ValueError("no more")
            try:
                await fetch(to, method="POST", body=body())
            except ValueError as error:
                return Response(str(error))
        if path == "head-only":
            response = await fetch(to)
            return Response("head")
"""


class Outside:
    """A cluster, and what its app sees of the outside world."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def seen(self, to: str, **options: Any) -> Any:
        import json

        headers = {"x-to": to, "x-options": json.dumps(options)}
        async with self.cluster.client.get("/seen", headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def get(self, path: str, to: str) -> tuple[int, str]:
        async with self.cluster.client.get(path, headers={"x-to": to}) as response:
            return response.status, await response.text()


@pytest.fixture
async def outside(tmp_path: Path) -> Any:
    app = write_app(tmp_path, APP, "Room")
    async with Cluster(app, shards=1, settings={"fetch_timeout_s": 5}) as cluster:
        yield Outside(cluster)


async def test_a_response_has_its_status_headers_url_and_body(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        body = f"{request.method} {request.path_qs} {(await request.read()).decode()}"
        return web.Response(text=body, status=201, headers={"X-A": "b"})

    async with serve(handler) as url:
        seen = await outside.seen(f"{url}/p%20q?x=%2F", method="POST", body="hello")
    assert seen["status"] == 201
    assert seen["text"] == "POST /p%20q?x=%2F hello"
    assert seen["headers"]["x-a"] == "b"
    assert seen["url"] == f"{url}/p%20q?x=%2F"
    assert seen["redirected"] is False


async def test_what_is_sent_is_what_the_app_says_and_little_else(outside: Outside) -> None:
    fields: dict[str, str] = {}

    async def handler(request: web.Request) -> web.Response:
        fields.update(request.headers)
        return web.Response()

    async with serve(handler) as url:
        await outside.seen(
            url,
            headers={
                "Accept-Encoding": "br;q=0.1, gzip, x-own",
                "Connection": "close, X-A",
                "Host": "elsewhere.test",
                "Transfer-Encoding": "chunked",
                "X-A": "b",
            },
        )
    assert fields.pop("Host") == url.removeprefix("http://")
    assert fields.pop("Accept-Encoding").endswith("gzip")
    assert fields == {"X-A": "b", "Accept": "*/*"}


async def test_a_compressed_body_is_decoded_and_its_fields_say_so(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        return web.Response(body=gzip.compress(b"plain text"), headers=headers)

    async with serve(handler) as url:
        seen = await outside.seen(url)
    assert seen["text"] == "plain text"
    assert "content-encoding" not in seen["headers"]
    assert "content-length" not in seen["headers"]


async def test_cookies_are_not_kept(outside: Outside) -> None:
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with serve(handler) as url:
        await outside.seen(url)
        await outside.seen(url)
    assert cookies == [None, None]


async def test_redirects_are_followed(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/end":
            return web.Response(text=f"{request.method}:{(await request.read()).decode()}")
        status = int(request.path[1:])
        return web.Response(status=status, headers={"Location": "/end"})

    async with serve(handler) as url:
        for status, outcome in ((301, "GET:"), (302, "GET:"), (303, "GET:"), (307, "POST:b")):
            seen = await outside.seen(f"{url}/{status}", method="POST", body="b")
            assert (seen["text"], seen["redirected"]) == (outcome, True), status
            assert seen["url"] == f"{url}/end"


async def test_redirects_can_be_left_alone_or_refused(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/x"})

    async with serve(handler) as url:
        manual = await outside.seen(url, redirect="manual")
        assert (manual["status"], manual["headers"]["location"]) == (302, "/x")
        refused = await outside.seen(url, redirect="error")
        assert refused["error"] == "TypeError"
        endless = await outside.seen(url)
        assert "Too many redirects" in endless["text"]


async def test_secrets_do_not_follow_a_redirect_to_another_origin(outside: Outside) -> None:
    seen: list[str | None] = []

    async def second(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response()

    async with serve(second) as other:

        async def first(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": other})

        async with serve(first) as url:
            await outside.seen(url, headers={"Authorization": "secret"})
    assert seen == [None]


async def test_a_server_that_is_not_there(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    async with serve(handler) as url:
        pass
    seen = await outside.seen(url)
    assert seen["error"] == "ConnectionError"
    assert seen["text"].startswith("Network connection lost.")
    assert seen["retryable"] is True


async def test_a_server_that_breaks_off(outside: Outside) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    for handler in (half, nothing):
        async with serve_raw(handler) as url:
            seen = await outside.seen(url)
        assert (seen["error"], seen["retryable"]) == ("ConnectionError", True), seen


async def test_a_server_that_does_not_speak_http(outside: Outside) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.test ready\r\n\r\n")
        await writer.drain()

    async with serve_raw(handler) as url:
        seen = await outside.seen(url)
    assert (seen["error"], seen["retryable"]) == ("OSError", False)


async def test_other_schemes_are_refused(outside: Outside) -> None:
    assert (await outside.seen("ftp://127.0.0.1/x"))["error"] == "TypeError"


async def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    app = write_app(tmp_path, APP, "Room")
    settings = {"fetch_timeout_s": 0.1}
    async with Cluster(app, shards=1, settings=settings) as cluster, serve_raw(handler) as url:
        seen = await Outside(cluster).seen(url)
    assert seen["error"] == "TimeoutError"
    assert "FETCH_TIMEOUT_S" in seen["text"]


async def test_an_app_can_give_up_earlier(outside: Outside) -> None:
    """The connection ends with the request: nothing goes on behind the app's back."""
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with serve_raw(handler) as url:
        assert await outside.get("/timeout", url) == (200, "given up")
        await gone.wait()


async def test_a_proxy_streams_both_ways(outside: Outside) -> None:
    """The server sees the first piece before the client has sent the second."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece.upper())
        return response

    answered = asyncio.Event()

    async def body() -> Any:
        yield b"one "
        await answered.wait()
        yield b"two"

    async with (
        serve(handler) as url,
        outside.cluster.client.post("/proxy", data=body(), headers={"x-to": url}) as response,
    ):
        assert await response.content.readany() == b"ONE "
        answered.set()
        assert await response.read() == b"TWO"


async def test_a_slow_reader_slows_the_server_down(outside: Outside) -> None:
    """Far more is offered than all buffers on the way may hold."""
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(bytes(1 << 20))
            sent += 1
        return response

    client = outside.cluster.client
    async with (
        serve(handler) as url,
        client.get("/proxy", headers={"x-to": url}) as response,
    ):
        await response.content.readany()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 48
        size = sum([len(each) async for each in response.content.iter_any()])
        assert size > 60 << 20


async def test_the_error_of_an_upload_is_the_apps_own(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async with serve(handler) as url:
        assert await outside.get("/failing-upload", url) == (200, "no more")


async def test_an_unread_body_gives_its_connection_back(outside: Outside) -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        except ConnectionError:
            gone.set()
            raise

    async with serve(handler) as url:
        assert await outside.get("/head-only", url) == (200, "head")
        await gone.wait()


async def test_a_reset_ends_the_fetches_of_the_object(outside: Outside) -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        gone.set()

    async with serve_raw(handler) as url:
        waiting = asyncio.create_task(outside.get("/room/reset", url))
        await connected.wait()
        assert (await outside.get("/room/abort", url))[0] == 500
        assert (await waiting)[0] == 500
        await gone.wait()


async def test_objects_fetch_too(outside: Outside) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="from outside")

    async with serve(handler) as url:
        assert await outside.get("/room", url) == (200, "from outside")


async def test_nothing_is_left_after_the_shard_stops(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    before = len(asyncio.all_tasks())
    async with serve_raw(handler) as url:
        app = write_app(tmp_path, APP, "Room")
        settings = {"drain_timeout_s": 0.1, "stop_timeout_s": 0.5}
        async with Cluster(app, shards=1, settings=settings) as cluster:
            request = asyncio.create_task(Outside(cluster).get("/room", url))
            world = cluster.shards[0].outside_world
            await until(lambda: world._tasks)
        await asyncio.gather(request, return_exceptions=True)
        assert not world._tasks
    await until(lambda: len(asyncio.all_tasks()) <= before)
