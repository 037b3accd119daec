"""HTTP as an app's clients see it: headers, statuses, bodies without end, clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientSession

from tests.running import ROOT
from tests.scenarios.conftest import ProcessPool
from tests.scenarios.worlds import World, eventually, scenario

APPS = ROOT / "tests" / "apps"
PIECE = bytes(range(256)) * 256
MIB = 1 << 20


# --- headers and statuses


@scenario(APPS / "answers")
async def test_each_cookie_is_a_field_of_its_own(world: World) -> None:
    """``Set-Cookie`` cannot be joined (RFC 9110 §5.3): each reaches the client by itself."""
    async with world.client.get("/a/cookies") as response:
        assert response.headers.getall("Set-Cookie") == [
            "a=1, 2; Path=/",
            "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
        ]
        assert ", ".join(response.headers.getall("X-Several")) == "1, 2"


@scenario(APPS / "answers")
async def test_the_answer_to_a_head_has_the_length_but_no_body(world: World) -> None:
    """RFC 9110 §9.3.2; and the connection is in order afterwards."""
    for _ in range(2):
        async with world.client.head("/a/method") as response:
            assert response.headers["X-Method"] == "HEAD"
            assert response.headers["Content-Length"] == str(len("HEAD it is"))
            assert await response.read() == b""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        async with world.client.request(method, "/a/method") as response:
            assert await response.text() == f"{method} it is"


@scenario(APPS / "answers")
async def test_answers_without_a_body_have_none(world: World) -> None:
    """A 204 has no Content-Length either (RFC 9110 §8.6)."""
    async with world.client.get("/a/empty") as response:
        assert (response.status, await response.read()) == (204, b"")
        assert response.headers["X-Empty"] == "yes"
        assert "Content-Length" not in response.headers
        assert "Transfer-Encoding" not in response.headers
    async with world.client.get("/a/unchanged", headers={"If-None-Match": '"v1"'}) as response:
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["ETag"] == '"v1"'
    async with world.client.get("/a/unchanged") as response:
        assert (response.status, await response.text()) == (200, "version 1")


@scenario(APPS / "answers")
async def test_the_reason_phrase_is_the_apps_own(world: World) -> None:
    async with world.client.get("/a/reason") as response:
        assert (response.status, response.reason) == (418, "A Teapot Indeed")


@scenario(APPS / "answers")
async def test_a_redirect_is_the_clients_to_follow(world: World) -> None:
    """Neither the gateway nor a stub that got the client's own request follows it."""
    async with world.client.get("/a/away", allow_redirects=False) as response:
        assert response.status == 307
        assert response.headers["Location"] == "https://elsewhere.example/path?a=b"
    async with world.client.get("/a/home") as response:
        assert [each.status for each in response.history] == [302]
        assert (response.url.path, await response.text()) == ("/a/method", "GET it is")


@scenario(APPS / "answers")
async def test_the_101_carries_the_apps_subprotocol_and_headers(world: World) -> None:
    async with world.client.ws_connect("/a/socket", protocols=("one", "two")) as ws:
        assert ws.protocol == "two"
        assert ws._response.headers["X-Site"] == "here"
        assert ws._response.headers["Set-Cookie"] == "s=1"
        assert await ws.receive_str() == "offered ['one', 'two']"


# --- clients that leave


@scenario(APPS / "answers")
async def test_a_client_that_leaves_does_not_end_the_handler(world: World) -> None:
    """The object's handler runs to its end, and what it writes is kept."""

    async def story() -> object:
        async with world.client.get("/left/story") as response:
            return json.loads(await response.text())

    leaving = asyncio.create_task(world.client.get("/left/slow"))
    await eventually(story, ["began", None])
    leaving.cancel()
    assert isinstance((await asyncio.gather(leaving, return_exceptions=True))[0], BaseException)
    async with world.client.get("/left/release") as response:
        assert response.status == 200
    await eventually(story, ["began", "went on", "ended", True])


# --- bodies without end


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE


def hashed(count: int) -> str:
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(PIECE)
    return digest.hexdigest()


@scenario(APPS / "streams")
async def test_a_generator_is_a_body(world: World) -> None:
    """The client gets each piece of an async generator, by an object and by the entry point."""
    for side in ("entry", "object"):
        digest = hashlib.sha256()
        async with world.client.get(f"/{side}/download?chunks=48") as response:
            assert response.headers["Content-Type"] == "application/octet-stream"
            async for chunk in response.content.iter_any():
                digest.update(chunk)
        assert digest.hexdigest() == hashed(48)


@scenario(APPS / "streams")
async def test_an_upload_is_read_piece_by_piece(world: World) -> None:
    """With ``async for``, and with a reader whose chunks answer as Uint8Arrays do."""
    for path in ("/entry/upload", "/object/upload", "/entry/reader", "/object/reader"):
        async with world.client.post(path, data=pieces(48)) as response:
            assert (response.status, await response.text()) == (200, hashed(48)), path


@scenario(APPS / "streams")
async def test_a_body_may_come_back_while_it_is_still_going_in(world: World) -> None:
    """The response begins before the request has ended: a conversation in one exchange."""
    for side in ("entry", "object"):
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def talk(heard: asyncio.Queue[bytes] = heard) -> AsyncIterator[bytes]:
            for number in range(5):
                line = f"line {number}\n".encode()
                yield line
                assert await heard.get() == line

        async with world.client.post(f"/{side}/mirror", data=talk()) as response:
            async for line in response.content:
                heard.put_nowait(line)


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("side", ["entry", "object"])
def test_memory_stays_flat_under_a_large_body(process_pool: ProcessPool, side: str) -> None:
    """200 MiB in, then 200 MiB out: no process of the cluster grows by more than 64 MiB."""
    cluster = process_pool.cluster(APPS / "streams", {"shards": 2})
    count = 200 * MIB // len(PIECE)

    async def measure() -> tuple[str, int]:
        url = f"http://127.0.0.1:{cluster.port}"
        async with ClientSession(url) as client, asyncio.timeout(100):
            async with client.post(f"/{side}/upload", data=watched(pieces(count))) as response:
                digest = await response.text()
            received = 0
            async with client.get(f"/{side}/download?chunks={count}") as response:
                async for chunk in response.content.iter_chunked(MIB):
                    received += len(chunk)
                    look()
            return digest, received

    pids = cluster.pids("gateway") + cluster.pids("shard")
    assert len(pids) == 3
    before = {pid: resident_bytes(pid) for pid in pids}
    most = dict(before)

    def look() -> None:
        for pid in pids:
            most[pid] = max(most[pid], resident_bytes(pid))

    async def watched(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in source:
            look()
            yield piece

    digest, received = uvloop.run(measure())
    assert (digest, received) == (hashed(count), count * len(PIECE))
    assert max(most[pid] - before[pid] for pid in pids) < 64 * MIB
