"""What code of an object asks to be done later: timers, microtasks, ``waitUntil``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from local.cluster import Cluster
from shard.slot import INTERVAL_IDLE_S, Slot
from tests.shard.outside_servers import TIMEOUT_S, until, write_app

APP = """
import asyncio
from js import clearInterval, queueMicrotask, setInterval, setTimeout
from workers import DurableObject, Response, WorkerEntrypoint

STATE = {"log": []}

class Room(DurableObject):
    async def fetch(self, request):
        log = STATE["log"]
        path = request.url.split("/")[-1]
        if path == "timeout":
            setTimeout(lambda: log.append("fired"), 5)
        elif path == "async":
            async def later():
                await asyncio.sleep(0)
                log.append("async")
            setTimeout(later, 1)
        elif path == "far":
            setTimeout(lambda: log.append("never"), 3_600_000)
        elif path == "interval":
            self.interval = setInterval(self.tick, 1)
        elif path == "blocked":
            setTimeout(lambda: log.append("timer"), 1)
            await self.ctx.blockConcurrencyWhile(self.section)
        elif path == "raise":
            def fail():
                raise ValueError("in a timer")
            setTimeout(fail, 1)
        elif path == "micro":
            queueMicrotask(lambda: log.append("micro"))
            log.append("step")
            await asyncio.sleep(0.001)
        elif path == "wait":
            STATE["go"] = asyncio.Event()
            self.ctx.waitUntil(self.background())
            self.ctx.waitUntil(None)
        elif path == "wait-inside":
            async def section():
                self.ctx.waitUntil(self.inside())
                await STATE["inside"].wait()
            STATE["inside"] = asyncio.Event()
            await self.ctx.blockConcurrencyWhile(section)
        elif path == "abort":
            self.ctx.abort("enough")
        return Response("ok")

    def tick(self):
        STATE["log"].append("tick")
        if len(STATE["log"]) == 3:
            clearInterval(self.interval)

    async def inside(self):
        STATE["inside"].set()

    async def background(self):
        await STATE["go"].wait()
        raise ValueError("in the background")

    async def section(self):
        await asyncio.sleep(0.01)
        STATE["log"].append("section")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.url.endswith("/entry"):
            async def later():
                await asyncio.sleep(0)
                STATE["log"].append("entry")
            setTimeout(later, 1)
            return Response("ok")
        return await self.env.ROOM.getByName("lobby").fetch(request)
"""


class Timed:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._now = 1e9
        self.state: dict[str, Any] = sys.modules["entry"].STATE

    async def get(self, path: str) -> str:
        async with asyncio.timeout(TIMEOUT_S), self.cluster.client.get(path) as response:
            return await response.text()

    @property
    def log(self) -> list[str]:
        log: list[str] = self.state["log"]
        return log

    @property
    def slot(self) -> Slot:
        (slot,) = self.cluster.shards[0].namespaces["ROOM"].slots.values()
        return slot

    def idle(self, for_s: float) -> bool:
        """Whether the object leaves memory when nothing happens for that long."""
        slot = self.slot
        self._now += 1e6
        for at in (0.0, 0.5, 0.5 + for_s):
            slot.sweep(self._now + at, 10.0)
        return slot.activation is None


@pytest.fixture
async def timed(tmp_path: Path) -> Any:
    async with Cluster(write_app(tmp_path, APP, "Room"), shards=1) as cluster:
        yield Timed(cluster)


@pytest.mark.parametrize(
    ("path", "logged"), [("/timeout", "fired"), ("/async", "async"), ("/entry", "entry")]
)
async def test_a_timer_fires_once(timed: Timed, path: str, logged: str) -> None:
    await timed.get(path)
    await until(lambda: timed.log)
    assert timed.log == [logged]


async def test_an_interval_repeats_until_it_is_cleared(timed: Timed) -> None:
    await timed.get("/interval")
    await until(lambda: len(timed.log) == 3)
    activation = timed.slot.activation
    assert activation is not None
    assert not activation.intervals


async def test_a_timer_waits_for_the_gate(timed: Timed) -> None:
    await timed.get("/blocked")
    await until(lambda: len(timed.log) == 2)
    assert timed.log == ["section", "timer"]


async def test_what_a_timer_raises_is_logged_with_the_objects_name(timed: Timed) -> None:
    with capture_logs() as logs:
        await timed.get("/raise")
        await until(lambda: any(each["event"] == "timer.failed" for each in logs))
    (failed,) = [each for each in logs if each["event"] == "timer.failed"]
    assert failed["object"] == "Room('lobby')"


async def test_a_microtask_runs_after_the_step(timed: Timed) -> None:
    await timed.get("/micro")
    assert timed.log == ["step", "micro"]


async def test_a_pending_timeout_keeps_its_object(timed: Timed) -> None:
    await timed.get("/far")
    assert not timed.idle(1000)


async def test_an_interval_alone_keeps_its_object_for_a_while_only(timed: Timed) -> None:
    await timed.get("/interval")
    timed.log.extend(["so that", "it is", "never cleared"])
    assert not timed.idle(INTERVAL_IDLE_S - 1)
    assert timed.idle(INTERVAL_IDLE_S + 1)
    ticks = len(timed.log)
    await asyncio.sleep(0.01)
    assert len(timed.log) == ticks


async def test_a_reset_ends_the_timers(timed: Timed) -> None:
    await timed.get("/far")
    await timed.get("/interval")
    activation = timed.slot.activation
    assert activation is not None
    await timed.get("/abort")
    assert not activation.waiting_for
    assert not activation.intervals


async def test_wait_until_keeps_its_object_and_logs_failures(timed: Timed) -> None:
    await timed.get("/wait")
    assert not timed.idle(1000)
    with capture_logs() as logs:
        timed.state["go"].set()
        await until(lambda: logs)
    assert [(each["event"], each["object"]) for each in logs] == [
        ("wait_until.failed", "Room('lobby')")
    ]
    assert timed.idle(11)


async def test_wait_until_inside_a_section_runs_inside_it(timed: Timed) -> None:
    assert await timed.get("/wait-inside") == "ok"
