"""What tests may do with the objects of a cluster: the names of Cloudflare's test tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from local.cluster import Cluster
from local.virtual_time import on_virtual_time
from tests.running import ROOT
from workers import DurableObjectStub

APPS = ROOT / "tests" / "apps"


@asynccontextmanager
async def bells(**settings: Any) -> AsyncIterator[Cluster]:
    async with Cluster(APPS / "bells", settings=settings) as cluster:
        yield cluster


def bell(cluster: Cluster, name: str = "a") -> DurableObjectStub:
    stub: DurableObjectStub = cluster.env.BELLS.getByName(name)
    return stub


def later_ms(cluster: Cluster, seconds: float = 3600) -> int:
    return int((cluster.clock.wall_s() + seconds) * 1000)


def busy(seconds: float) -> Callable[[Any, Any], Awaitable[None]]:
    async def run(instance: Any, state: Any) -> None:
        await asyncio.sleep(seconds)

    return run


@on_virtual_time
async def test_an_alarm_is_run_now_whatever_its_time() -> None:
    async with bells() as cluster:
        for name in "abcd":  # on whichever shard they are
            stub = bell(cluster, name)
            assert not await cluster.run_durable_object_alarm(stub)
            due_ms = await stub.set(later_ms(cluster), 0)
            assert await cluster.run_durable_object_alarm(stub)
            rung = await stub.rung()
            assert [each[0] for each in rung["began"]] == [due_ms]
            assert (rung["ended"], rung["due"]) == (1, None)
            assert not await cluster.run_durable_object_alarm(stub)
        await asyncio.sleep(7200)
        assert [(await bell(cluster, name).rung())["ended"] for name in "abcd"] == [1] * 4


@on_virtual_time
async def test_an_alarm_rings_by_the_apps_own_clock() -> None:
    """`time.time()` goes with virtual time."""
    async with bells() as cluster:
        due_ms = await bell(cluster).set(later_ms(cluster), 0)
        await asyncio.sleep(3601)
        ((scheduled_ms, at_ms, _),) = (await bell(cluster).rung())["began"]
        assert scheduled_ms == due_ms
        assert due_ms <= at_ms < due_ms + 100


async def test_off_virtual_time_the_clock_is_the_machines() -> None:
    async with bells() as cluster:
        async with cluster.client.post("/set?names=a&at_ms=1") as response:
            assert response.status == 200
        while not (await bell(cluster).rung())["ended"]:  # noqa: ASYNC110 - a condition
            await asyncio.sleep(0.01)


@on_virtual_time
async def test_code_runs_inside_an_object() -> None:
    async with bells() as cluster:

        async def inside(instance: Any, state: Any) -> Any:
            state.storage.kv.put("ended", 7)
            await asyncio.sleep(1)
            return type(instance).__name__, state.id.name

        assert await cluster.run_in_durable_object(bell(cluster), inside) == ("Bell", "a")
        assert (await bell(cluster).rung())["ended"] == 7

        def fails(instance: Any, state: Any) -> None:
            raise ValueError("out of luck")

        with pytest.raises(ValueError, match="out of luck"):
            await cluster.run_in_durable_object(bell(cluster), fails)


@on_virtual_time
async def test_the_ids_of_what_is_stored_are_listed() -> None:
    async with bells() as cluster:
        namespace = cluster.env.BELLS
        assert cluster.list_durable_object_ids(namespace) == []
        for name in "abc":
            await bell(cluster, name).set(later_ms(cluster), 0)
        await asyncio.sleep(60)
        expected = sorted(str(namespace.idFromName(name)) for name in "abc")
        assert [str(each) for each in cluster.list_durable_object_ids(namespace)] == expected


@on_virtual_time
async def test_an_object_is_evicted_when_it_has_nothing_to_do() -> None:
    async with bells() as cluster:
        stub = bell(cluster)
        with pytest.raises(RuntimeError, match="it is not currently running"):
            await cluster.evict_durable_object(stub)
        await stub.set(later_ms(cluster), 0)
        first = await cluster.run_in_durable_object(stub, lambda instance, state: id(state.storage))
        await cluster.evict_durable_object(stub)
        with pytest.raises(RuntimeError, match="it is not currently running"):
            await cluster.evict_durable_object(stub)
        assert await cluster.run_in_durable_object(stub, lambda instance, state: state.id.name)
        assert first
        working = asyncio.ensure_future(cluster.run_in_durable_object(stub, busy(5)))
        await asyncio.sleep(0)
        await cluster.evict_durable_object(stub)
        assert working.done()
        stuck = asyncio.ensure_future(cluster.run_in_durable_object(stub, busy(50)))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError, match="it still has active references"):
            await cluster.evict_durable_object(stub)
        await stuck
        await cluster.evict_all_durable_objects()
        assert not any(shard.status()["active_objects"] for shard in cluster.shards.values())


@on_virtual_time
async def test_held_sockets_stay_open_or_are_closed() -> None:
    async with Cluster(APPS / "chat") as cluster:
        (binding,) = (name for name in dir(cluster.env) if name.isupper())
        async with cluster.client.ws_connect("/room/tea?nick=ann") as ann:
            await ann.receive()
            stub = getattr(cluster.env, binding).getByName("tea")
            await cluster.evict_durable_object(stub)
            await ann.send_str("still here?")
            assert json.loads(await ann.receive_str())["text"] == "still here?"
            await cluster.evict_durable_object(stub, {"webSockets": "close"})
            await ann.receive()
            assert ann.close_code == 1011


@on_virtual_time
async def test_alarms_survive_a_crash_and_a_restart(tmp_path: Path) -> None:
    """Of the shard, and of the whole cluster; while nothing runs they wait."""
    async with bells(data_dir=tmp_path) as cluster:
        names = [str(number) for number in range(20)]
        start_ms = later_ms(cluster, 60)
        for number, name in enumerate(names):
            await bell(cluster, name).set(start_ms + number * 1000, 3000 if number % 2 else 0)
        for crash in range(3):
            await asyncio.sleep(64.5 if not crash else 6)
            for index in (0, 1):
                await cluster.crash_shard(index)
                await cluster.start_shard(index)
        await asyncio.sleep(60)
        for number, name in enumerate(names):
            rung = await bell(cluster, name).rung()
            assert rung["ended"] >= 1, name
            assert {each[0] for each in rung["began"]} == {start_ms + number * 1000}
            assert all(at_ms >= due_ms for due_ms, at_ms, _ in rung["began"])
            assert {each[2] for each in rung["began"]} == {name}
            assert rung["due"] is None
        due_ms = await bell(cluster).set(later_ms(cluster, 60), 0)
    async with bells(data_dir=tmp_path) as cluster:
        cluster.clock.jump(due_ms / 1000 + 3600 - cluster.clock.wall_s())
        await asyncio.sleep(10)
        rung = await bell(cluster).rung()
        assert ([each[0] for each in rung["began"]], rung["ended"]) == ([due_ms], 1)


@on_virtual_time
async def test_a_shard_that_stops_waits_for_an_alarm_that_runs() -> None:
    """As for any handler; one that takes too long is cut, and runs again in its next home."""
    async with Cluster(APPS / "bells", shards=1, settings={"drain_timeout_s": 5}) as cluster:
        await bell(cluster, "short").set(later_ms(cluster, 1), 3_000)
        await bell(cluster, "long").set(later_ms(cluster, 1), 30_000)
        await bell(cluster, "next").set(later_ms(cluster, 3), 0)
        await asyncio.sleep(1.5)
        await cluster.stop_shard(0)
        await asyncio.sleep(10)
        await cluster.start_shard(0)
        await asyncio.sleep(60)
        reports = {name: await bell(cluster, name).rung() for name in ("short", "long", "next")}
        assert {name: len(each["began"]) for name, each in reports.items()} == {
            "short": 1,
            "long": 2,
            "next": 1,
        }
        assert [each["ended"] for each in reports.values()] == [1, 1, 1]
        ((due_ms, at_ms, _),) = reports["next"]["began"]
        assert at_ms > due_ms + 5_000, "it was begun while the shard was stopping"
