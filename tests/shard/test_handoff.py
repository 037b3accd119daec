"""Hand-off in a cluster in one event loop: what clients and apps see while partitions move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.cluster import Cluster
from local.virtual_time import on_virtual_time
from tests.shard.outside_servers import write_app

APP = """
import asyncio, json
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

EVENTS = {}

class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.name = ctx.id.name
        EVENTS.setdefault(self.name, [])

    async def fetch(self, request):
        path = request.url.rsplit("/", 1)[-1]
        client, server = WebSocketPair()
        if path == "regular":
            server.accept()
            server.addEventListener("message", lambda event: server.send(event.data))
        else:
            self.ctx.acceptWebSocket(server, [path])
            server.serializeAttachment(path)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws, message):
        if message.startswith("sleep "):
            EVENTS[self.name].append("begun")
            await asyncio.sleep(float(message[6:]))
        if message.startswith("ask "):
            other = self.env.ROOM.getByName(message[4:])
            await asyncio.sleep(0.05)
            ws.send(await other.add(1))
            return
        for member in self.ctx.getWebSockets():
            member.send(f"{ws.deserializeAttachment()}: {message}")

    async def webSocketClose(self, ws, code, reason, clean):
        EVENTS[self.name].append(["close", ws.deserializeAttachment(), code])

    async def add(self, count):
        total = (await self.ctx.storage.get("total") or 0) + count
        await self.ctx.storage.put("total", total)
        return str(total)

    async def slow(self, seconds):
        await asyncio.sleep(seconds)
        return "done"

    async def alarm(self):
        EVENTS[self.name].append("alarm")
        for member in self.ctx.getWebSockets():
            member.send("rung")

    async def ring(self, at_ms):
        await self.ctx.storage.setAlarm(at_ms)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        _, _, _, room, what, *rest = request.url.split("/")
        stub = self.env.ROOM.getByName(room)
        match what:
            case "add":
                return Response(await stub.add(int(rest[0])))
            case "slow":
                return Response(await stub.slow(float(rest[0])))
            case "ring":
                await stub.ring(int(rest[0]))
                return Response("ok")
            case "events":
                return Response(json.dumps(EVENTS.get(room, [])))
        return await stub.fetch(request)
"""

ROOMS = [f"r{number}" for number in range(12)]


@asynccontextmanager
async def scaling(tmp_path: Path, **options: Any) -> AsyncIterator[Cluster]:
    app = write_app(tmp_path, APP, "Room")
    settings = {"sync_threads": 0, **options.pop("settings", {})}
    async with Cluster(app, settings=settings, **options) as cluster:
        yield cluster


async def text(cluster: Cluster, path: str) -> str:
    async with cluster.client.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def events(cluster: Cluster, room: str) -> list[Any]:
    found: list[Any] = json.loads(await text(cluster, f"/{room}/events"))
    return found


async def hear(ws: aiohttp.ClientWebSocketResponse) -> str:
    return await ws.receive_str(timeout=60)


def homes(cluster: Cluster) -> dict[int, int]:
    """How many partitions each shard has."""
    return {index: shard.status()["partitions"] for index, shard in cluster.shards.items()}


def home(cluster: Cluster, room: str) -> int | None:
    shard = cluster.shards[0]
    return shard.home_of(shard.namespaces["ROOM"].ids.from_name(room))


@on_virtual_time
async def test_everybody_stays_and_every_message_arrives_in_order(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=2, gateways=2) as cluster:
        rooms = {
            room: [await cluster.client.ws_connect(f"/{room}/{name}") for name in "abc"]
            for room in ROOMS
        }
        sent = 0
        for shards in (4, 1, 3, 2):
            change = asyncio.create_task(cluster.scale(shards))
            while not change.done():
                sent += 1
                for members in rooms.values():
                    await members[0].send_str(str(sent))
                await asyncio.sleep(0.001)
            await change
            assert sum(homes(cluster).values()) == 1024
            assert len(homes(cluster)) == shards
        for members in rooms.values():
            for member in members:
                heard = [await hear(member) for _ in range(sent)]
                assert heard == [f"a: {number}" for number in range(1, sent + 1)]


@on_virtual_time
async def test_regular_sockets_of_objects_that_move_are_closed_and_the_others_stay(
    tmp_path: Path,
) -> None:
    async with scaling(tmp_path, shards=2) as cluster:
        clients = {room: await cluster.client.ws_connect(f"/{room}/regular") for room in ROOMS}
        before = {room: home(cluster, room) for room in ROOMS}
        await cluster.scale(3)
        moved = {room for room in ROOMS if home(cluster, room) != before[room]}
        assert 0 < len(moved) < len(ROOMS)
        for room, client in clients.items():
            if room in moved:
                message = await client.receive(timeout=5)
                assert (message.data, message.extra) == (1012, "The Durable Object is restarting")
            else:
                await client.send_str("still here")
                assert await hear(client) == "still here"


@on_virtual_time
async def test_a_handler_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=1, settings={"drain_timeout_s": 30}) as cluster:
        clients = {room: await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS}
        for client in clients.values():
            await client.send_str("sleep 2")
            await client.send_str("next")
        await asyncio.sleep(0.1)
        await cluster.scale(2)
        for client in clients.values():
            assert [await hear(client), await hear(client)] == ["a: next", "a: sleep 2"]


@on_virtual_time
async def test_one_that_takes_too_long_is_cut_and_only_its_client_is_closed(
    tmp_path: Path,
) -> None:
    async with scaling(tmp_path, shards=1, settings={"drain_timeout_s": 1}) as cluster:
        clients = {
            room: [await cluster.client.ws_connect(f"/{room}/{name}") for name in "ab"]
            for room in ROOMS
        }
        for slow, _ in clients.values():
            await slow.send_str("sleep 1000")
        await asyncio.sleep(0.1)
        await cluster.scale(2)
        cut = [room for room in ROOMS if home(cluster, room) == 1]
        assert cut
        for room in cut:
            slow, other = clients[room]
            message = await slow.receive(timeout=5)
            assert (message.data, message.extra) == (1012, "The Durable Object is restarting")
            await other.send_str("hello")
            assert await hear(other) == "b: hello"
            # Its next life is told that a client is gone, whose message it may never have seen.
            assert await events(cluster, room) == ["begun", ["close", "a", 1006]]


@on_virtual_time
async def test_calls_wait_for_the_new_home_and_storage_comes_along(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=2) as cluster:
        expected = dict.fromkeys(ROOMS, 0)
        for shards in (4, 1, 2):
            change = asyncio.create_task(cluster.scale(shards))
            while not change.done():
                answers = await asyncio.gather(*(text(cluster, f"/{room}/add/1") for room in ROOMS))
                for room, answer in zip(ROOMS, answers, strict=True):
                    expected[room] += 1
                    assert int(answer) == expected[room]
                await asyncio.sleep(0.001)
            await change
        assert min(expected.values()) >= 3


@on_virtual_time
async def test_objects_of_the_leaving_shard_can_still_call_each_other(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=1, settings={"drain_timeout_s": 30}) as cluster:
        clients = [await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS]
        for room, client in zip(ROOMS, clients, strict=True):
            await client.send_str(f"ask {room}-other")
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await cluster.scale(2)
        assert loop.time() - began_at < 5, "nobody had to be cut"
        assert [await hear(client) for client in clients] == ["1"] * len(clients)


@on_virtual_time
async def test_alarms_move_too(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=1, settings={"ping_interval_s": 0}) as cluster:
        clients = [await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS]
        due_ms = int((cluster.clock.wall_s() + 60) * 1000)
        for room in ROOMS:
            await text(cluster, f"/{room}/ring/{due_ms}")
        await cluster.scale(3)
        assert len(homes(cluster)) == 3
        for room, client in zip(ROOMS, clients, strict=True):
            assert await hear(client) == "rung"
            assert await events(cluster, room) == ["alarm"]


@on_virtual_time
async def test_a_client_that_leaves_meanwhile_is_reported_once_at_the_new_home(
    tmp_path: Path,
) -> None:
    async with scaling(tmp_path, shards=1, settings={"drain_timeout_s": 30}) as cluster:
        clients = {room: await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS}
        # One each that keeps the object at work while the other waits.
        busy = [await cluster.client.ws_connect(f"/{room}/busy") for room in ROOMS]
        for client in busy:
            await client.send_str("sleep 1")
        await asyncio.sleep(0.1)
        change = asyncio.create_task(cluster.scale(2))
        await asyncio.sleep(0.2)
        for client in clients.values():
            await client.close(code=4001)
        await change
        await asyncio.sleep(1)
        for room in ROOMS:
            assert await events(cluster, room) == ["begun", ["close", "a", 4001]]


@on_virtual_time
@pytest.mark.parametrize("victim", [0, 1])
async def test_either_may_die_in_the_middle(tmp_path: Path, victim: int) -> None:
    """The giver's locks are free with it; the taker's come back with it. Nobody is closed."""
    async with scaling(tmp_path, shards=2, settings={"drain_timeout_s": 30}) as cluster:
        clients = {room: await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS}
        change = asyncio.create_task(cluster.scale(3))
        await asyncio.sleep(0.004)
        await cluster.crash_shard(victim if victim == 0 else 2)
        await asyncio.sleep(0.01)
        await cluster.start_shard(victim if victim == 0 else 2)
        await change
        assert sum(homes(cluster).values()) == 1024
        for client in clients.values():
            await client.send_str("hello")
            assert await hear(client) == "a: hello"


@on_virtual_time
async def test_a_gateway_that_is_not_there_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=1, gateways=2, settings={"adopt_timeout_s": 2}) as cluster:
        await cluster.gateways.pop(1).stop()
        client = await cluster.client.ws_connect("/r1/a")
        await cluster.scale(2)
        await client.send_str("hello")
        assert await hear(client) == "a: hello"
        assert await text(cluster, "/r2/add/1") == "1"


@on_virtual_time
async def test_what_is_on_its_way_when_patience_ends_is_not_lost_without_a_word(
    tmp_path: Path,
) -> None:
    """A gateway that answers too late may have sent frames that nobody will ever handle."""
    async with scaling(tmp_path, shards=1, settings={"drain_timeout_s": 1}) as cluster:
        clients = {room: await cluster.client.ws_connect(f"/{room}/a") for room in ROOMS}
        for client in clients.values():
            await client.send_str("before")
            assert await hear(client) == "a: before"
        ((_, shard),) = cluster.network.lines["shard-0"]
        shard.stall()
        for client in clients.values():
            await client.send_str("on its way")
        await asyncio.sleep(0.01)
        change = asyncio.create_task(cluster.scale(2))
        await asyncio.sleep(3)
        shard.resume()
        await change
        # Partitions go in batches: those that were let go meanwhile are told, the rest answer.
        seen = []
        for client in clients.values():
            message = await client.receive(timeout=10)
            seen.append((message.data, message.extra))
        told = (1012, "The Durable Object is restarting")
        assert set(seen) <= {told, ("a: on its way", "")}
        assert told in seen


@on_virtual_time
async def test_a_hand_off_that_fails_is_tried_again(tmp_path: Path) -> None:
    async with scaling(tmp_path, shards=1) as cluster:
        client = await cluster.client.ws_connect("/r1/a")
        storage = cluster.shards[0].storage
        let_go, failures = storage.let_go, [OSError(5, "the disk failed")]

        def fail_once(partitions: Any) -> None:
            if failures:
                raise failures.pop()
            let_go(partitions)

        storage.let_go = fail_once  # type: ignore[method-assign]
        await asyncio.wait_for(cluster.scale(2), 30)
        assert not failures
        assert sum(homes(cluster).values()) == 1024
        await client.send_str("hello")
        assert await hear(client) == "a: hello"
