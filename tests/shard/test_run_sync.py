"""``run_sync``: synchronous code that waits, while everything else goes on."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from local.cluster import Cluster
from shard import stacks
from tests.shard.outside_servers import TIMEOUT_S, until, write_app

APP = """
import asyncio
from pyodide.ffi import run_sync
from workers import DurableObject, Response, WorkerEntrypoint

STATE = {"log": []}

async def sleep():
    await asyncio.sleep(0.001)
    assert asyncio.current_task() is not None
    return "slept"

async def fail():
    await asyncio.sleep(0)
    raise ValueError("in the awaitable")

class Room(DurableObject):
    def fetch(self, request):
        path = request.url.split("/")[-1]
        log = STATE["log"]
        if path == "twice":
            return Response(run_sync(sleep()) + " " + self.deeper())
        if path == "plain":
            return Response("plain")
        if path == "fail":
            try:
                run_sync(fail())
            except ValueError as error:
                return Response(str(error))
        if path == "raise":
            run_sync(sleep())
            raise KeyError("after waiting")
        if path == "wait":
            STATE["go"] = asyncio.Event()
            try:
                run_sync(STATE["go"].wait())
                log.append("went on")
            finally:
                log.append("cleaned up")
            return Response("waited")
        if path == "go":
            STATE["go"].set()
            return Response("gone")
        if path == "abort":
            self.ctx.abort("enough")
        if path == "other":
            stub = self.env.ROOM.getByName("other")
            return run_sync(stub.fetch("http://x/twice"))
        if path == "coroutine":
            return self.coroutine()
        if path == "rpc":
            return Response(run_sync(self.env.ROOM.getByName("other").method(20)))
        if path == "section":
            async def section():
                log.append("section")
            run_sync(self.ctx.blockConcurrencyWhile(section))
            log.append("after")
            return Response("ok")

    def method(self, number):
        return run_sync(sleep()) + str(number)

    def deeper(self):
        return run_sync(sleep())

    async def coroutine(self):
        try:
            run_sync(asyncio.sleep(0))
        except RuntimeError as error:
            return Response(str(error))

class Default(WorkerEntrypoint):
    def fetch(self, request):
        if request.url.endswith("/entry"):
            return Response(run_sync(sleep()))
        return run_sync(self.env.ROOM.getByName("a").fetch(request))
"""

PLAIN_APP = """
from pyodide.ffi import create_proxy
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    def fetch(self, request):
        return Response("ok")
"""


class Synchronous:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.state: dict[str, Any] = sys.modules["entry"].STATE

    async def get(self, path: str) -> str:
        async with asyncio.timeout(TIMEOUT_S), self.cluster.client.get(path) as response:
            return await response.text()


@pytest.fixture
async def sync(tmp_path: Path) -> Any:
    async with Cluster(write_app(tmp_path, APP, "Room"), shards=1) as cluster:
        yield Synchronous(cluster)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/entry", "slept"),
        ("/plain", "plain"),
        ("/twice", "slept slept"),
        ("/fail", "in the awaitable"),
        ("/other", "slept slept"),
        ("/rpc", "slept20"),
    ],
)
async def test_it_waits(sync: Synchronous, path: str, answer: str) -> None:
    assert await sync.get(path) == answer


async def test_what_is_raised_after_waiting_is_the_handlers_error(sync: Synchronous) -> None:
    assert await sync.get("/raise") == "Internal Server Error"


async def test_other_events_go_on(sync: Synchronous) -> None:
    waiting = asyncio.create_task(sync.get("/wait"))
    await until(lambda: "go" in sync.state)
    assert await sync.get("/twice") == "slept slept"
    assert await sync.get("/go") == "gone"
    assert await waiting == "waited"
    assert sync.state["log"] == ["went on", "cleaned up"]


async def test_a_reset_unwinds_it(sync: Synchronous) -> None:
    waiting = asyncio.create_task(sync.get("/wait"))
    await until(lambda: "go" in sync.state)
    await sync.get("/abort")
    assert await waiting == "Internal Server Error"
    await until(lambda: sync.state["log"])
    assert sync.state["log"] == ["cleaned up"]


async def test_the_gate_holds(sync: Synchronous) -> None:
    assert await sync.get("/section") == "ok"
    assert sync.state["log"] == ["section", "after"]


async def test_a_coroutine_is_told_to_await(sync: Synchronous) -> None:
    assert "use await" in await sync.get("/coroutine")


async def test_many_at_once(sync: Synchronous) -> None:
    answers = await asyncio.gather(*(sync.get("/twice") for _ in range(200)))
    assert answers == ["slept slept"] * 200
    assert len(stacks._spare) <= stacks.MAX_SPARE


async def test_apps_that_do_not_speak_of_it_do_not_pay(tmp_path: Path) -> None:
    async with Cluster(write_app(tmp_path, PLAIN_APP), shards=1) as cluster:
        assert cluster.shards[0].enter_function is None


async def test_a_spare_stack_keeps_nothing() -> None:
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    assert stacks.call(lambda given: given, thing) is thing
    del thing
    gc.collect()
    assert seen() is None


async def test_outside_a_handler() -> None:
    with pytest.raises(RuntimeError, match="use await"):
        stacks.wait(None)
