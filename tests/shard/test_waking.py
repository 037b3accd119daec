"""Rules of :mod:`shard.waking`: objects that wake all at once stop nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

from local.virtual_time import on_virtual_time
from shard.lifecycle import State
from tests.shard.kit import Client, Solo, solo, turns, until
from workers import DurableObject, Response, WebSocketPair

COUNT = 200
WAKING_TAKES_S = 0.004
SLICE_S = 0.01


class Sleeper(DurableObject):
    woken: list[str] = []  # noqa: RUF012 - of all
    heard: list[tuple[str, str]] = []  # noqa: RUF012
    takes_s = 0.0

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        asyncio.get_running_loop()._now_s += self.takes_s  # type: ignore[attr-defined]
        self.woken.append(ctx.id.name)

    def fetch(self, request: Any) -> Response:
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    def webSocketMessage(self, ws: Any, message: str) -> None:
        self.heard.append((str(self.ctx.id.name), message))
        ws.send(message)

    def ask(self) -> str:
        return "at once"


async def asleep(one: Solo, count: int) -> dict[str, Client]:
    """So many objects with a client each, none of them in memory."""
    clients = {}
    for number in range(count):
        name = f"o{number}"
        clients[name] = await one.gateway.upgrade(target=one.target("SLEEPER", name))
    await asyncio.sleep(13)
    assert one.shard.status()["active_objects"] == 0
    Sleeper.woken.clear()
    Sleeper.heard.clear()
    return clients


def settled(one: Solo) -> bool:
    return len(Sleeper.heard) == 2 * COUNT and not one.gateway.may_have_lost()


@on_virtual_time
async def test_a_crowd_wakes_in_slices_in_order_and_those_awake_do_not_wait_for_it() -> None:
    Sleeper.takes_s = 0.0
    loop = asyncio.get_running_loop()
    async with solo(Sleeper, wake_slice_s=SLICE_S) as one:
        clients = await asleep(one, COUNT)
        await one.stub("SLEEPER", "awake").ask()
        Sleeper.woken.clear()
        Sleeper.takes_s = WAKING_TAKES_S
        for client in clients.values():
            client.send("1")
            client.send("2")
        await until(lambda: len(one.shard.wakes))
        assert one.slot("SLEEPER", f"o{COUNT - 1}").state is State.DUE
        assert {clients[f"o{COUNT - 1}"].connection} <= one.gateway.may_have_lost()
        longest_s = 0.0
        while not settled(one):
            asked_at = loop.time()
            assert await one.stub("SLEEPER", "awake").ask() == "at once"
            await asyncio.sleep(0)
            longest_s = max(longest_s, loop.time() - asked_at)
        # All at once would have been COUNT * WAKING_TAKES_S = 0.8 s.
        assert longest_s < 2 * (SLICE_S + WAKING_TAKES_S)
        assert list(dict.fromkeys(Sleeper.woken)) == list(clients)
        for name in clients:
            assert [text for each, text in Sleeper.heard if each == name] == ["1", "2"]
        assert len(Sleeper.woken) == COUNT


@on_virtual_time
async def test_who_wakes_alone_does_not_wait() -> None:
    Sleeper.takes_s = 1.0
    async with solo(Sleeper, wake_slice_s=SLICE_S) as one:
        promise = one.stub("SLEEPER").ask()
        assert one.lives("SLEEPER")
        assert await promise == "at once"


@on_virtual_time
async def test_without_a_slice_all_wake_where_their_events_arrive() -> None:
    Sleeper.takes_s = 1.0
    async with solo(Sleeper, wake_slice_s=0) as one:
        promises = [one.stub("SLEEPER", str(number)).ask() for number in range(20)]
        assert all(one.lives("SLEEPER", str(number)) for number in range(20))
        assert await asyncio.gather(*promises) == ["at once"] * 20


@on_virtual_time
async def test_a_shard_that_stops_wakes_those_that_wait_first() -> None:
    """Their events came before it said that it stops."""
    Sleeper.takes_s = 0.0
    async with solo(Sleeper, wake_slice_s=SLICE_S, drain_timeout_s=30) as one:
        clients = await asleep(one, COUNT)
        Sleeper.takes_s = WAKING_TAKES_S
        for client in clients.values():
            client.send("x")
        await until(lambda: len(one.shard.wakes))
        stopping = asyncio.ensure_future(one.shard.stop())
        await turns(5)
        assert "wait for their turn" in one.shard._unfinished()
        await one.cut()  # the gateway is gone, and what it has sent is not
        await stopping
        assert [name for name, _ in Sleeper.heard] == list(clients)
