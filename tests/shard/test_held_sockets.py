"""Hibernatable sockets, seen by clients and by the app, over a whole cluster in one event loop."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.cluster import Cluster
from tests.shard.outside_servers import write_app

TIMEOUT_S = 10

APP = """
import asyncio, json
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint
from workers import WebSocketRequestResponsePair as Pair

LIVES = {}

class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        name = ctx.id.name
        self.life = LIVES[name] = LIVES.get(name, 0) + 1
        self.log = []
        self.seen = {}
        self.gate = asyncio.Event()

    async def fetch(self, request):
        path = request.url.rsplit("/", 1)[-1]
        if path == "state":
            return Response(json.dumps({
                "life": self.life, "log": self.log,
                "sockets": [ws.deserializeAttachment() for ws in self.ctx.getWebSockets()]}))
        if path == "refused":
            client, server = WebSocketPair()
            self.ctx.acceptWebSocket(server)
            return Response("no", status=403)
        tags = request.headers.get("X-Tags")
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server, tags.split(",") if tags else [])
        server.serializeAttachment({"name": path})
        if path == "greeted":
            server.send("hello")
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws, message):
        if isinstance(message, bytes):
            ws.send(message)
            return
        command, _, rest = message.partition(" ")
        if command == "all":
            for each in self.ctx.getWebSockets():
                each.send(rest)
        elif command == "tag":
            tag, _, text = rest.partition(" ")
            for each in self.ctx.getWebSockets(tag):
                each.send(text)
        elif command == "tags":
            ws.send(json.dumps(self.ctx.getTags(ws)))
        elif command == "attach":
            ws.serializeAttachment(json.loads(rest))
        elif command == "attachment":
            ws.send(json.dumps(ws.deserializeAttachment()))
        elif command == "life":
            ws.send(str(self.life))
        elif command == "same":
            before = self.seen.setdefault("ws", ws)
            ws.send(str(before is ws and any(each is ws for each in self.ctx.getWebSockets())))
        elif command == "names":
            ws.send(json.dumps([each.deserializeAttachment()["name"]
                                for each in self.ctx.getWebSockets()]))
        elif command == "auto":
            self.ctx.setWebSocketAutoResponse(Pair(*rest.split(",")) if rest else None)
            ws.send("set")
        elif command == "answered":
            at = self.ctx.getWebSocketAutoResponseTimestamp(ws)
            ws.send("never" if at is None else at.isoformat())
        elif command == "close":
            ws.close(4001, "bye")
        elif command == "raise":
            raise ValueError("handler boom")
        elif command == "abort":
            self.ctx.abort("enough")
        elif command == "wait":
            await self.gate.wait()
            ws.send("waited")
        elif command == "open":
            self.gate.set()
        elif command == "timeout":
            self.ctx.setHibernatableWebSocketEventTimeout(int(rest))
        else:
            ws.send(f"echo {message}")

    async def webSocketClose(self, ws, code, reason, was_clean):
        listed = ws in self.ctx.getWebSockets()
        self.log.append([ws.deserializeAttachment()["name"], code, reason, was_clean,
                         ws.readyState, listed])
        if reason == "answer":
            ws.close(code, "answered")
        if reason == "later":
            await self.gate.wait()

    def webSocketError(self, ws, error):
        self.log.append(["error", str(error)])

class Quiet(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        kind, room = request.url.split("/")[3:5]
        namespace = self.env.QUIET if kind == "quiet" else self.env.ROOM
        return await namespace.getByName(room).fetch(request)
"""


@asynccontextmanager
async def cluster(folder: Path, **given: Any) -> AsyncIterator[Cluster]:
    app = write_app(folder, APP, "Room", "Quiet")
    settings = {
        "idle_timeout_s": 0.3,
        "link_reconnect_min_s": 0.005,
        "link_reconnect_max_s": 0.02,
        "data_dir": folder / "data",
        **given.pop("settings", {}),
    }
    async with asyncio.timeout(30), Cluster(app, settings=settings, **given) as running:
        yield running


class Member:
    """One client of a room."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, text: str) -> None:
        await self.ws.send_str(text)

    async def ask(self, text: str) -> str:
        await self.say(text)
        return await self.hear()

    async def hear(self) -> str:
        async with asyncio.timeout(TIMEOUT_S):
            message = await self.ws.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
        text: str = message.data
        return text

    async def closed(self) -> int | None:
        async with asyncio.timeout(TIMEOUT_S):
            message = await self.ws.receive()
        assert message.type in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSING,
        ), message
        return self.ws.close_code


async def join(running: Cluster, name: str, room: str = "r", tags: str = "") -> Member:
    headers = {"X-Tags": tags} if tags else {}
    ws = await running.client.ws_connect(f"/room/{room}/{name}", headers=headers, autoping=True)
    return Member(ws)


async def state(running: Cluster, room: str = "r") -> dict[str, Any]:
    response = await running.client.get(f"/room/{room}/state")
    got: dict[str, Any] = json.loads(await response.text())
    return got


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def slots(running: Cluster) -> list[Any]:
    return [
        s
        for shard in running.shards.values()
        for n in shard.namespaces.values()
        for s in n.slots.values()
    ]


async def asleep(running: Cluster) -> None:
    await until(lambda: slots(running) and all(s.activation is None for s in slots(running)))


async def test_messages_tags_and_broadcast_oldest_first(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a = await join(running, "a", tags="x,y,x")
        b = await join(running, "b", tags="y")
        assert await a.ask("hi") == "echo hi"
        assert json.loads(await a.ask("tags")) == ["x", "y"]
        assert json.loads(await b.ask("names")) == ["a", "b"]
        await a.say("all news")
        assert [await a.hear(), await b.hear()] == ["news", "news"]
        await a.say("tag x only")
        await a.say("tag y both")
        await a.say("tag z none")
        assert [await a.hear(), await a.hear(), await b.hear()] == ["only", "both", "both"]
        await a.ws.send_bytes(b"\x00\xff")
        assert (await a.ws.receive()).data == b"\x00\xff"
        assert await a.ask("same") == "True"


async def test_what_is_sent_before_the_101_arrives_first(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        member = await join(running, "greeted")
        assert await member.hear() == "hello"


async def test_an_idle_object_leaves_memory_and_the_next_frame_wakes_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a, b = await join(running, "a", tags="t"), await join(running, "b")
        await a.say('attach {"name": "A", "n": 1}')
        assert await b.ask("life") == "1"
        await asleep(running)
        assert await b.ask("life") == "2"
        assert json.loads(await a.ask("attachment")) == {"name": "A", "n": 1}
        assert json.loads(await a.ask("tags")) == ["t"]
        assert json.loads(await a.ask("names")) == ["A", "b"]
        assert await a.ask("same") == "True"
        await asleep(running)
        await b.ws.close(code=4321, message=b"good bye")
        got = await state(running)
        assert got["life"] == 3
        assert got["log"] == [["b", 4321, "good bye", True, 2, True]]
        assert got["sockets"] == [{"name": "A", "n": 1}]


@pytest.mark.parametrize(("reason", "code"), [("", 4000), ("answer", 4000)])
async def test_a_close_is_answered_by_the_handler_or_for_it(
    tmp_path: Path, reason: str, code: int
) -> None:
    async with cluster(tmp_path) as running:
        a = await join(running, "a")
        await a.ws.close(code=code, message=reason.encode())
        assert a.ws.close_code == code
        b = await join(running, "b")
        got = await state(running)
        assert got["log"] == [["a", 4000, reason, True, 2, True]]
        assert [each["name"] for each in got["sockets"]] == ["b"]
        assert await b.ask("life") == "1"


async def test_a_dropped_client_is_a_close_event(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a, b = await join(running, "a"), await join(running, "b")
        await b.ask("x")
        a.ws._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: sum(len(s.sockets) for s in running.shards.values()) == 1)
        lost = "WebSocket disconnected without sending Close frame."
        assert (await state(running))["log"] == [["a", 1006, lost, False, 3, True]]


async def test_a_server_close_keeps_the_socket_listed_until_the_client_answers(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        a = await join(running, "a")
        await a.say("close")
        assert await a.closed() == 4001
        await until(lambda: sum(len(s.sockets) for s in running.shards.values()) == 0)
        # aiohttp's client answers with a code of its own.
        assert (await state(running))["log"] == [["a", 1000, "", True, 3, True]]


async def test_a_handler_that_raises_is_logged_and_the_socket_stays(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a = await join(running, "a")
        await a.say("raise")
        assert await a.ask("life") == "1"


async def test_a_reset_closes_all_sockets(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a, b = await join(running, "a"), await join(running, "b")
        await a.say("abort")
        assert [await a.closed(), await b.closed()] == [1011, 1011]
        got = await state(running)
        assert (got["life"], got["sockets"], got["log"]) == (2, [], [])


async def test_an_automatic_response_does_not_wake_the_object(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a, b = await join(running, "a"), await join(running, "b")
        assert await a.ask("auto ping,pong") == "set"
        assert await a.ask("answered") == "never"
        assert [await a.ask("ping"), await b.ask("ping")] == ["pong", "pong"]
        assert await a.ask("ping ") == "echo ping "
        c = await join(running, "c")
        assert await c.ask("ping") == "pong"
        await asleep(running)
        assert await c.ask("ping") == "pong"
        assert all(s.activation is None for s in slots(running))
        await until(
            lambda: all(
                s.answered_ms
                for slot in slots(running)
                if slot.held
                for s in slot.held._all.values()
            )
        )
        assert (await a.ask("answered")).endswith("+00:00")
        assert await a.ask("life") == "2"
        assert await a.ask("auto ") == "set"
        assert await b.ask("ping") == "echo ping"


async def test_a_socket_that_was_accepted_and_not_returned_is_dropped(tmp_path: Path) -> None:
    async with cluster(tmp_path, settings={"idle_timeout_s": 60}) as running:
        await running.client.get("/room/r/refused")
        [slot] = slots(running)
        assert len(slot.held) == 1
        [held] = slot.held._all.values()
        held.lost()
        assert len(slot.held) == 0


async def test_a_class_without_handlers_ignores_messages_and_answers_a_close(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        ws = await running.client.ws_connect("/quiet/q/a")
        await ws.send_str("x")
        await ws.close(code=4000)
        assert ws.close_code == 4000


async def test_the_event_timeout_ends_a_handler(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        a = await join(running, "a")
        await a.say("timeout 20")
        await a.say("wait")
        assert await a.ask("life") == "1"
        await until(lambda: all(not s.activation.busy for s in slots(running) if s.activation))


async def test_a_crashed_shard_comes_back_and_nobody_notices(tmp_path: Path) -> None:
    async with cluster(tmp_path, shards=1) as running:
        a, b = await join(running, "a", tags="t"), await join(running, "b")
        await a.say('attach {"name": "A"}')
        assert await a.ask("auto ping,pong") == "set"
        assert await b.ask("ping") == "pong"
        await settled(running)
        await running.crash_shard(0)
        await a.say("all first")
        await a.say("all second")
        assert await a.ask("ping") == "pong"
        await b.ws.close(code=4000, message=b"gone meanwhile")
        await running.start_shard(0)
        assert [await a.hear(), await a.hear()] == ["first", "second"]
        assert json.loads(await a.ask("tags")) == ["t"]
        assert json.loads(await a.ask("names")) == ["A"]
        got = await state(running)
        assert got["log"] == [["b", 4000, "gone meanwhile", True, 2, True]]
        assert await a.ask("ping") == "pong"
        assert (await a.ask("answered")).endswith("+00:00")


@pytest.mark.parametrize("asleep", [True, False])
async def test_a_close_that_was_handled_is_forgotten_and_never_told_again(
    tmp_path: Path, asleep: bool
) -> None:
    async with cluster(tmp_path, shards=1) as running:
        a, b = await join(running, "a"), await join(running, "b")
        if asleep:
            await until(lambda: not running.shards[0].status()["active_objects"])
        else:
            await b.say("wait")
            await settled_but(running, 1)
        await a.ws.close(code=4000, message=b"bye")
        [gateway] = running.gateways.values()
        [relay] = gateway.router.relays.values()
        if not asleep:
            await b.say("open")
            assert await b.hear() == "waited"
        assert [entry[0] for entry in (await state(running))["log"]] == ["a"]
        await settled(running)
        await until(lambda: len(relay.holder.holding.holds) == 1)
        await running.crash_shard(0)
        await running.start_shard(0)
        assert (await state(running))["log"] == []
        assert (await state(running))["sockets"] == [{"name": "b"}]


async def settled(running: Cluster) -> None:
    """Until every frame has been acknowledged."""

    def done() -> bool:
        for gateway in running.gateways.values():
            for relay in gateway.router.relays.values():
                assert relay.session is not None
                acked_seq = relay.session.acked_seq
                sent_seqs = [c.forwarded_seq for c in relay.connections.values()]
                if relay.unsettled or max(sent_seqs, default=0) > acked_seq:
                    return False
        return True

    await until(done)


async def test_only_who_may_have_lost_something_is_closed(tmp_path: Path) -> None:
    async with cluster(tmp_path, shards=1) as running:
        a, b = await join(running, "a"), await join(running, "b")
        await a.ask("x")
        await b.say("wait")
        assert await a.ask("y") == "echo y"
        await settled_but(running, 1)
        await running.crash_shard(0)
        await running.start_shard(0)
        assert await b.closed() == 1012
        assert await a.ask("life") == "2"
        got = await state(running)
        assert [entry[:2] for entry in got["log"]] == [["b", 1006]]
        assert [each["name"] for each in got["sockets"]] == ["a"]


async def settled_but(running: Cluster, count: int) -> None:
    relays = [r for g in running.gateways.values() for r in g.router.relays.values()]
    await until(lambda: sum(len(r.unsettled) for r in relays) == count)


async def test_a_stopped_shard_finishes_its_handlers_and_loses_nobody(tmp_path: Path) -> None:
    async with cluster(tmp_path, shards=1) as running:
        a, b = await join(running, "a"), await join(running, "b")
        await a.say("wait")
        await settled_but(running, 1)
        stopping = asyncio.ensure_future(running.stop_shard(0))
        relay = running.gateways[0].router.relays[0]
        await until(lambda: not relay.is_up)
        for number in range(20):
            await b.say(f"all {number}")
        await a.say("all last")
        for slot in slots_of(running, stopping):
            slot.activation.instance.gate.set()
        assert await a.hear() == "waited"
        await stopping
        await running.start_shard(0)
        for member in (a, b):
            heard = [await member.hear() for _ in range(21)]
            assert sorted(heard) == sorted([str(n) for n in range(20)] + ["last"])
            heard.remove("last")
            assert heard == [str(n) for n in range(20)]
        assert await a.ask("life") == "2"


def slots_of(running: Cluster, _: Any) -> list[Any]:
    import gc

    from shard.slot import Slot

    return [
        each
        for each in gc.get_objects()
        if isinstance(each, Slot)
        and each.activation is not None
        and hasattr(each.activation.instance, "gate")
    ]


async def test_a_handler_that_overstays_the_drain_is_cut_and_its_client_closed(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, shards=1, settings={"drain_timeout_s": 0.1}) as running:
        a, b = await join(running, "a"), await join(running, "b")
        await a.say("wait")
        await settled_but(running, 1)
        await running.stop_shard(0)
        await running.start_shard(0)
        assert await a.closed() == 1012
        assert await b.ask("life") == "2"


async def test_a_shard_that_stays_away_costs_the_connection(tmp_path: Path) -> None:
    async with cluster(tmp_path, shards=1, settings={"hold_timeout_s": 0.3}) as running:
        a = await join(running, "a")
        await a.ask("x")
        await settled(running)
        await running.crash_shard(0)
        await a.say("waits")
        assert await a.closed() == 1013
        await running.start_shard(0)
        got = await state(running)
        assert [entry[:2] for entry in got["log"]] == [["a", 1006]]


async def test_two_gateways_share_a_room(tmp_path: Path) -> None:
    async with cluster(tmp_path, shards=1, gateways=2) as running:
        members = [await join(running, name) for name in "abcd"]
        relays = [g.router.relays[0] for g in running.gateways.values()]
        assert [len(r.connections) for r in relays] == [2, 2]
        assert await members[0].ask("auto ping,pong") == "set"
        assert [await m.ask("ping") for m in members] == ["pong"] * 4
        for crash in (False, True):
            await settled(running)
            await (running.crash_shard(0) if crash else running.stop_shard(0))
            await members[1].say("all again")
            await running.start_shard(0)
            assert [await m.hear() for m in members] == ["again"] * 4
            assert json.loads(await members[2].ask("names")) == ["a", "b", "c", "d"]
            assert [await m.ask("ping") for m in members] == ["pong"] * 4


@pytest.fixture(autouse=True)
def forget_the_app() -> Any:
    yield
    sys.modules.pop("entry", None)
