"""Client ends that an app accepts itself: of its own objects, here or on another shard."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from common.ids import IdFactory
from common.link.driver import Link
from common.link.session import Hello
from local.cluster import Cluster
from tests.shard.kit import WINDOW_BYTES, Gateway
from tests.shard.outside_servers import TIMEOUT_S, until, write_app
from tests.shard.pair import pair, settle
from tests.shard.pair import until as turns_until
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

APP = """
import asyncio
from workers import DurableObject, Request, Response, WebSocketPair, WorkerEntrypoint

STATE = {"log": []}
UPGRADE = {"Upgrade": "websocket"}

class Echo(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        server.accept()
        server.addEventListener("message", lambda event: self.message(server, event.data))
        server.addEventListener("close", lambda event: STATE["log"].append(
            [event.code, event.reason, event.wasClean]))
        server.send("welcome")
        STATE["hold"] = self.hold = asyncio.Event()
        self.holding = False
        return Response(None, status=101, web_socket=client)

    def message(self, server, data):
        if data == "abort":
            self.ctx.abort("enough")
        if data == "close":
            server.close(4000, "asked")
        elif data == "flood":
            for number in range(30):
                server.send(bytes(1 << 20))
        elif data == "hold" or self.holding:
            self.holding = True
            return self.hold.wait()
        else:
            server.send(data)

class Talker(DurableObject):
    async def fetch(self, request):
        one, two = WebSocketPair()
        one.accept()
        two.accept()
        got = []
        done = asyncio.get_running_loop().create_future()
        two.addEventListener("message", lambda event: (got.append(event.data), two.send("reply")))
        one.addEventListener("message", lambda event: got.append("one: " + event.data))
        two.addEventListener("close", lambda event: got.append(event.code))
        one.addEventListener("close", lambda event: done.set_result(event.code))
        one.send("to myself")
        got.append("sent")
        one.close(4000, "done")
        got.append(await done)
        return Response.json(got)

class Reader(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        asyncio.create_task(self.read(server))
        return Response(None, status=101, web_socket=client)

    async def read(self, server):
        async for message in server:  # accepts it
            server.send("first: " + message)
            break
        async for message in server:  # goes on where the first loop stopped
            server.send(f"second: {len(message)}")
            await asyncio.sleep(0)
        STATE["log"].append("ended")
        async for message in server:
            STATE["log"].append(message)
        STATE["log"].append("still ended")

class Held(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws, message):
        ws.send("held: " + message)

    async def webSocketClose(self, ws, code, reason, was_clean):
        STATE["log"].append([code, reason, was_clean])

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path.startswith("held"):
            response = await self.env.HELD.getByName(path).fetch("http://x/", headers=UPGRADE)
            ws, got = response.web_socket, []
            ws.accept()
            ws.send("one")
            async for message in ws:
                got.append(message)
                ws.close(4000, "done")
            return Response.json(got)
        if path == "reader":
            return await self.env.READER.getByName("a").fetch(request)
        if path == "talk":
            return await self.env.TALKER.getByName("a").fetch(request)
        if path == "server":
            client, server = WebSocketPair()
            server.accept()
            server.addEventListener("message", lambda event: server.send("entry: " + event.data))
            return Response(None, status=101, web_socket=client)
        name = request.headers["x-name"]
        response = await self.env.ECHO.getByName(name).fetch("http://x/", headers=UPGRADE)
        if path == "pass":
            return response
        ws = response.web_socket
        STATE["ws"] = ws
        got = []
        if path == "sync":
            closed = asyncio.get_running_loop().create_future()
            ws.addEventListener("message", lambda event: got.append(
                event.data if isinstance(event.data, str) else len(event.data)))
            ws.addEventListener("close", lambda event: closed.set_result(
                [event.code, event.reason, event.wasClean]))
            ws.accept()
            got.append("accepted")
            for part in (await request.text()).split(","):
                ws.send(part)
            got.append("sent")
            got.append(await closed)
            return Response.json(got)
        if path == "lazy":
            closed = asyncio.get_running_loop().create_future()
            ws.addEventListener("message", lambda event: asyncio.Event().wait())
            ws.addEventListener("close", lambda event: closed.set_result(event.code))
            ws.accept()
            ws.send("flood")
            return Response(str(await closed))
        if path == "mine":
            ws.accept()
            ws.send("héllo")
            ws.send(bytes(1 << 20))
            async for message in ws:
                got.append(message if isinstance(message, str) else len(message))
                if len(got) == 3:
                    ws.close(3001, "bye")
            return Response.json(got)
        if path == "fill":
            ws.accept()
            ws.send("hold")
            sent = 0
            while ws.readyState == 1:
                ws.send(bytes(1 << 20))
                sent += 1
                await asyncio.sleep(0)
            return Response(f"{ws.readyState} {sent}")
"""


class Ends:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.state: dict[str, Any] = sys.modules["entry"].STATE

    async def get(self, path: str, data: str = "") -> Any:
        headers = {"x-name": self.name}
        async with asyncio.timeout(TIMEOUT_S):
            async with self.cluster.client.post(path, data=data, headers=headers) as response:
                text = await response.text()
                assert response.status == 200, text
                return json.loads(text) if text[0] in "[{" else text

    @property
    def open(self) -> int:
        return sum(
            len(shard.clients) + len(shard.sockets) for shard in self.cluster.shards.values()
        )


SETTINGS = {"socket_buffer_bytes": 1 << 16, "connection_buffer_bytes": 8 << 20}


@pytest.fixture(params=["this shard", "another shard"])
async def ends(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """The object's name is such that its home is the shard that runs the entry point, or not."""
    app = write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held")
    local = request.param == "this shard"
    async with Cluster(app, shards=1 if local else 2, settings=SETTINGS) as cluster:
        if local:
            yield Ends(cluster, "a")
            return
        factory: IdFactory = cluster.shards[0].namespaces["ECHO"].ids
        names = (str(number) for number in range(100))
        name = next(
            each for each in names if cluster.shards[0].home_of(factory.from_name(each)) == 1
        )
        for gateway in cluster.gateways.values():
            only_shard_0(gateway)
        yield Ends(cluster, name)


def only_shard_0(gateway: Any) -> None:
    """Let the gateway send new requests to shard 0 only."""
    router = gateway.router
    router.pick = lambda: router.relay(0)


async def test_messages_and_closes(ends: Ends) -> None:
    """Nothing is delivered from within the code that sends it."""
    got = await ends.get("/sync", "one,two,close")
    assert got[:2] == ["accepted", "sent"]
    assert got[2:] == ["welcome", "one", "two", [4000, "asked", True]]
    await until(lambda: not ends.open)
    assert ends.state["log"] == [[4000, "", True]]


async def test_large_and_binary_messages_and_a_close_of_ones_own(ends: Ends) -> None:
    assert await ends.get("/mine") == ["welcome", "héllo", 1 << 20]
    await until(lambda: not ends.open)
    assert ends.state["log"] == [[3001, "bye", True]]


async def test_a_reset_of_the_object_closes_the_client_end(ends: Ends) -> None:
    got = await ends.get("/sync", "abort")
    assert got[-1] == [1011, "Durable Object was reset", True]
    await until(lambda: not ends.open)


async def test_a_client_end_that_reads_too_slowly_is_given_up(ends: Ends) -> None:
    assert await ends.get("/lazy") == "1013"
    await until(lambda: not ends.open)


async def test_an_object_that_reads_too_slowly_is_bounded(ends: Ends) -> None:
    text = await ends.get("/fill")
    state, _, sent = text.partition(" ")
    assert state == "3"
    assert int(sent) < 40
    ends.state["hold"].set()
    await until(lambda: not ends.open)


async def test_it_can_be_passed_on_unaccepted(ends: Ends) -> None:
    client = ends.cluster.client
    async with client.ws_connect("/pass", headers={"x-name": ends.name}) as ws:
        assert await ws.receive_str() == "welcome"
        await ws.send_str("x")
        assert await ws.receive_str() == "x"
    await until(lambda: not ends.open)


async def test_the_death_of_the_objects_shard_ends_it(tmp_path: Path) -> None:
    app = write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held")
    async with Cluster(app, shards=2, settings={"stop_timeout_s": 0.1}) as cluster:
        for gateway in cluster.gateways.values():
            only_shard_0(gateway)
        factory: IdFactory = cluster.shards[0].namespaces["ECHO"].ids
        names = (str(number) for number in range(100))
        name = next(
            each for each in names if cluster.shards[0].home_of(factory.from_name(each)) == 1
        )
        ends = Ends(cluster, name)
        waiting = asyncio.create_task(ends.get("/sync", "one"))
        await until(lambda: len(cluster.shards[0].clients))
        await cluster.stop_shard(1)
        got = await waiting
        assert got[-1][0] == 1006
        assert not len(cluster.shards[0].clients)


async def test_an_object_talks_to_itself(tmp_path: Path) -> None:
    async with Cluster(
        write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held"), shards=1
    ) as cluster:
        got = await Ends(cluster, "a").get("/talk")
    assert got == ["sent", "to myself", 4000, "one: reply", 4000]


async def test_an_entry_point_can_be_a_server(tmp_path: Path) -> None:
    async with Cluster(
        write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held"), shards=1
    ) as cluster:
        async with cluster.client.ws_connect("/server") as ws:
            await ws.send_str("x")
            assert await ws.receive_str() == "entry: x"
            await ws.close(code=4000)
            assert ws.close_code == 4000
        await until(lambda: not len(cluster.shards[0].sockets))


async def test_an_object_reads_with_async_for(tmp_path: Path) -> None:
    """Far more comes than is buffered: nothing is lost, and nothing is out of order."""
    app = write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held")
    async with Cluster(app, shards=1, settings=SETTINGS) as cluster:
        async with cluster.client.ws_connect("/reader") as ws:
            await ws.send_str("one")
            assert await ws.receive_str() == "first: one"
            sizes = [1000 * number for number in range(1, 200)]
            for size in sizes:
                await ws.send_bytes(bytes(size))
            for size in sizes:
                assert await ws.receive_str() == f"second: {size}"
        log = sys.modules["entry"].STATE["log"]
        await until(lambda: len(log) == 2)
        assert log == ["ended", "still ended"]


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_held_server_end_does_not_know_the_difference(tmp_path: Path, shards: int) -> None:
    app = write_app(tmp_path, APP, "Echo", "Talker", "Reader", "Held")
    async with Cluster(app, shards=shards) as cluster:
        for number in range(8):  # on both shards
            assert await Ends(cluster, "").get(f"/held{number}") == ["held: one"]
        log = sys.modules["entry"].STATE["log"]
        await until(lambda: len(log) == 8)
        assert log == [[4000, "done", True]] * 8


LOG: list[Any] = []
GO: list[asyncio.Event] = []


class Counter(DurableObject):
    async def fetch(self, request: Any) -> Any:
        client, server = WebSocketPair()
        server.accept()
        server.addEventListener("close", lambda event: LOG.append((event.code, event.wasClean)))
        return Response(None, status=101, web_socket=client)


class Entry(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Any:
        name = request.headers["x-name"]
        response = await self.env.COUNTER.getByName(name).fetch(request)
        GO.append(asyncio.Event())
        await GO[-1].wait()
        return response


@pytest.mark.parametrize("home", [0, 1])
async def test_a_client_that_goes_before_the_101_is_told_to_the_object_at_once(home: int) -> None:
    """Wherever it lives: it does not wait for ATTACH_TIMEOUT_S."""
    LOG.clear()
    GO.clear()
    async with pair(Counter, entry=Entry) as two:
        gateway = Gateway()
        hello = Hello("gateway", 0, f"{0:016x}", WINDOW_BYTES, 64 << 20, {})
        await two.network.dial("shard-0", lambda: Link(hello, gateway, prompt_acks=False))
        await turns_until(lambda: gateway.is_up)
        headers = [["Upgrade", "websocket"], ["x-name", two.name_at(home, "COUNTER")]]
        answer = gateway.ask(headers=headers)
        await turns_until(lambda: bool(GO))
        gateway.cancel(answer)
        await settle()
        assert not LOG
        GO[0].set()
        await turns_until(lambda: LOG == [(1006, False)])
        assert not any(len(shard.sockets) + len(shard.clients) for shard in two.shards)
        assert not answer.heads
