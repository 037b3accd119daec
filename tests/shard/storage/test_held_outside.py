"""What an object sends to the outside world waits for the write before it (§3.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local.cluster import Cluster
from tests.shard.outside_servers import serve, until, write_app

APP = """
from workers import DurableObject, Response, WebSocket, WorkerEntrypoint, fetch

class Room(DurableObject):
    async def fetch(self, request):
        to, how = request.headers["x-to"], request.url.rsplit("/", 1)[-1]
        kv = self.ctx.storage.kv
        if how == "head":
            kv.put("n", 1)
            await fetch(to, method="POST", body="after")
        elif how == "body":
            await fetch(to, method="POST", body=self.pieces())
        elif how == "opening":
            kv.put("n", 1)
            self.ws = WebSocket.new(to)
        elif how == "open":
            self.ws = WebSocket.new(to)
        elif how == "say":
            self.ws.send("before")
            kv.put("n", 1)
            self.ws.send("after")
            self.ws.close(4001, "bye")
        return Response("done")

    async def pieces(self):
        yield b"before"
        self.ctx.storage.kv.put("n", 1)
        yield b"after"

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.ROOM.getByName("a").fetch(request)
"""


class Outside:
    """A server that notes what reaches it, and the disk of the cluster that talks to it."""

    def __init__(self, cluster: Cluster, seen: list[Any]) -> None:
        self.seen = seen
        self.cluster = cluster
        self.url = ""
        self.jobs: list[Any] = []
        syncer: Any = cluster.shards[0].storage.syncer
        self._syncer = syncer
        self._submit = syncer._submit
        syncer._submit = self.jobs.append

    def ask(self, how: str) -> asyncio.Task[Any]:
        """Have the object do something."""

        async def request() -> str:
            async with self.cluster.client.get(f"/{how}", headers={"x-to": self.url}) as answer:
                return await answer.text()

        return asyncio.create_task(request())

    async def written(self) -> None:
        """Wait until the object's write waits for the disk, and whatever could leave has left."""
        await until(lambda: self.jobs)
        for _ in range(100):
            await asyncio.sleep(0)

    def durable(self) -> None:
        """Let the disk have it."""
        self._syncer._submit = self._submit
        for job in self.jobs:
            self._submit(job)
        self.jobs.clear()


@asynccontextmanager
async def outside(folder: Path) -> AsyncIterator[Outside]:
    seen: list[Any] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("upgrade"):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            seen.append("connected")
            async for message in ws:
                seen.append(message.data)
            seen.append(ws.close_code)
            return ws
        async for piece in request.content.iter_any():
            seen.append(piece.decode())
        return web.Response(text="")

    app = write_app(folder, APP, "Room")
    async with serve(handler) as url, Cluster(app, shards=1) as cluster:
        world = Outside(cluster, seen)
        world.url = url
        try:
            yield world
        finally:
            world.durable()


async def test_a_fetch(tmp_path: Path) -> None:
    async with outside(tmp_path) as world:
        asked = world.ask("head")
        await world.written()
        assert world.seen == []
        world.durable()
        assert await asked == "done"
        assert world.seen == ["after"]


async def test_a_piece_of_a_fetchs_body(tmp_path: Path) -> None:
    async with outside(tmp_path) as world:
        asked = world.ask("body")
        await world.written()
        await until(lambda: world.seen)
        assert world.seen == ["before"], "a piece left before what it may reveal was durable"
        world.durable()
        assert await asked == "done"
        assert world.seen == ["before", "after"]


async def test_the_opening_of_a_websocket(tmp_path: Path) -> None:
    async with outside(tmp_path) as world:
        asked = world.ask("opening")
        await world.written()
        assert world.seen == []
        world.durable()
        await until(lambda: world.seen == ["connected"])
        assert await asked == "done"


async def test_messages_and_the_close_of_a_websocket(tmp_path: Path) -> None:
    async with outside(tmp_path) as world:
        assert await world.ask("open") == "done"
        await until(lambda: world.seen == ["connected"])
        asked = world.ask("say")
        await world.written()
        await until(lambda: len(world.seen) > 1)
        assert world.seen == ["connected", "before"]
        world.durable()
        assert await asked == "done"
        await until(lambda: len(world.seen) == 4)
        assert world.seen == ["connected", "before", "after", 4001]


@pytest.mark.parametrize("how", ["head", "opening"])
async def test_what_is_lost_is_never_seen(tmp_path: Path, how: str) -> None:
    async with outside(tmp_path) as world:
        asked = world.ask(how)
        await world.written()
        for namespace in world.cluster.shards[0].namespaces.values():
            for slot in list(namespace.slots.values()):
                slot.reset(OSError("the disk failed"))
        world.durable()
        await asked
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.seen == []
