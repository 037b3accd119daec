"""Every kind of output of a whole shard: held after a write, gone if the commit fails (§3.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shard.storage.disk import Disk
from tests.shard.kit import Solo, solo, turns, until
from workers import DurableObject, Request, Response, WebSocketPair


class Room(DurableObject):
    """Writes, then sends; what it sends, its caller says."""

    async def fetch(self, request: Request) -> Response:
        if request.headers.get("upgrade"):
            client, server = WebSocketPair()
            if request.url.endswith("held"):
                self.ctx.acceptWebSocket(server)
            else:
                server.accept()
                server.addEventListener("message", lambda e: self.webSocketMessage(server, e.data))
            return Response(None, status=101, web_socket=client)
        if request.url.endswith("stream"):
            return Response(self.body())
        self.ctx.storage.kv.put("n", 1)
        return Response("written")

    async def body(self) -> AsyncIterator[bytes]:
        yield b"before "
        self.ctx.storage.kv.put("n", 1)
        yield b"after"

    def webSocketMessage(self, ws: Any, message: str) -> None:
        ws.send("before")
        if message != "read":
            self.ctx.storage.kv.put("n", message)
        ws.send("after")
        if message == "close":
            ws.close(4000, "bye")

    def put(self) -> int:
        self.ctx.storage.kv.put("n", 1)
        return 1

    def put_unconfirmed(self) -> int:
        self.ctx.storage.put("n", 1, allowUnconfirmed=True)
        return 1

    def seen(self) -> Any:
        return self.ctx.storage.kv.get("n")

    async def tell(self, name: str) -> None:
        self.ctx.storage.kv.put("n", 1)
        await self.env.ROOM.getByName(name).put()


class Gatekeeper:
    """Keeps the jobs of the disk until the test lets them run."""

    def __init__(self, one: Solo) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.one = one
        syncer: Any = one.shard.storage.syncer
        self.submit = syncer._submit
        syncer._submit = self.jobs.append

    async def let_go(self) -> None:
        await turns()
        while self.jobs:
            self.jobs.pop(0)()
            await turns()

    def fail(self) -> None:
        class Broken(Disk):
            def sync_data(self, fd: int, path: str) -> None:
                raise OSError(5, "Input/output error")

        for database, _ in self.one.shard.storage._open.values():
            database.durable_log()._disk = Broken()


@asynccontextmanager
async def room(folder: Path) -> AsyncIterator[tuple[Solo, Gatekeeper]]:
    async with solo(Room, data_dir=folder / "data", sync_threads=0) as one:
        keeper = Gatekeeper(one)
        syncer: Any = one.shard.storage.syncer
        try:
            yield one, keeper
        finally:
            syncer._submit = keeper.submit
            for job in keeper.jobs:
                keeper.submit(job)
            await turns()


async def ask(one: Solo, url: str, **options: Any) -> Any:
    target = one.target("ROOM")
    return one.gateway.ask(url, target=target, **options)


@pytest.mark.parametrize("how", ["regular", "held"])
@pytest.mark.parametrize("fate", ["durable", "lost"])
async def test_frames_and_closes(tmp_path: Path, how: str, fate: str) -> None:
    async with room(tmp_path) as (one, keeper):
        client = await one.gateway.upgrade(f"http://x/{how}", target=one.target("ROOM"))
        client.send("read")
        await until(lambda: client.received)
        assert client.received == ["before", "after"]
        client.received.clear()
        client.send("write")
        client.send("close")
        await turns(50)
        assert (client.received, client.closes) == (["before"], []), "told before it was durable"
        if fate == "durable":
            await keeper.let_go()
            assert client.received == ["before", "after", "before", "after"]
            assert client.closes[0][0] == 4000
        else:
            keeper.fail()
            await keeper.let_go()
            assert client.received == ["before"]
            assert client.closes[0][0] == 1011
            assert one.slot("ROOM").activation is None


@pytest.mark.parametrize("fate", ["durable", "lost"])
async def test_responses(tmp_path: Path, fate: str) -> None:
    async with room(tmp_path) as (one, keeper):
        answer = await ask(one, "http://x/")
        await turns(50)
        assert not answer.is_there
        if fate == "lost":
            keeper.fail()
        await keeper.let_go()
        assert bool(answer.failures) == (fate == "lost")
        if fate == "durable":
            assert answer.body == b"written"


async def test_chunks_of_a_body(tmp_path: Path) -> None:
    async with room(tmp_path) as (one, keeper):
        answer = await ask(one, "http://x/stream")
        await until(lambda: answer.pieces)
        await turns(50)
        assert answer.body == b"before "
        await keeper.let_go()
        await until(lambda: answer.ended)
        assert answer.body == b"before after"


@pytest.mark.parametrize("fate", ["durable", "lost"])
async def test_calls_to_other_objects(tmp_path: Path, fate: str) -> None:
    async with room(tmp_path) as (one, keeper):
        call = asyncio.ensure_future(one.stub("ROOM").tell("other"))
        await turns(50)
        assert not one.lives("ROOM", "other")
        if fate == "durable":
            await keeper.let_go()
            await call
        else:
            keeper.fail()
            await keeper.let_go()
            with pytest.raises(Exception, match="the disk failed"):
                await call
            assert not one.lives("ROOM", "other")


async def test_an_object_with_an_unfinished_commit_stays_in_memory(tmp_path: Path) -> None:
    async with room(tmp_path) as (one, keeper):
        call = asyncio.ensure_future(one.stub("ROOM").put())
        await turns(50)
        activation = one.activation("ROOM")
        assert activation.busy
        await keeper.let_go()
        assert await call == 1
        assert not activation.busy


class Quick(Room):
    """A class that does not wait for the disk."""

    durability = "normal"


class Odd(Room):
    durability = "sometimes"


@pytest.mark.parametrize("everywhere", ["full", "normal"])
async def test_each_class_says_what_its_commits_wait_for(tmp_path: Path, everywhere: str) -> None:
    class Strict(Room):
        durability = "full"

    settings: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "sync_threads": 0,
        "durability": everywhere,
    }
    async with solo(Room, Quick, Strict, Odd, **settings) as one:
        keeper = Gatekeeper(one)
        calls = {
            name: asyncio.ensure_future(one.stub(name).put())
            for name in ("ROOM", "QUICK", "STRICT")
        }
        await turns(50)
        told = {name for name, call in calls.items() if call.done()}
        assert told == {"QUICK"} | ({"ROOM"} if everywhere == "normal" else set())
        await keeper.let_go()
        assert [await call for call in calls.values()] == [1, 1, 1]
        with pytest.raises(Exception, match=r'Odd\.durability must be "full" or "normal"'):
            await one.stub("ODD").put()
        syncer: Any = one.shard.storage.syncer
        syncer._submit = keeper.submit


async def test_an_unconfirmed_write_holds_nothing_and_its_loss_resets_the_object(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as (one, keeper):
        assert await one.stub("ROOM").put_unconfirmed() == 1
        first = one.activation("ROOM")
        keeper.fail()
        await keeper.let_go()
        assert first.dead
        assert one.slot("ROOM").activation is None
        assert await one.stub("ROOM").seen() is None
