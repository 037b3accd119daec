"""Two worlds for one scenario: everything in one event loop, and everything in real processes.

A scenario is ``async def test_…(world)`` under :func:`scenario`. It talks to the cluster through
``world.client`` (aiohttp) and does damage through ``world.crash_shard``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
import structlog
import uvloop

from local import virtual_time
from local.cluster import Cluster
from tests.running import ROOT, RunningCluster, limpet_up
from tests.scenarios.conftest import ProcessPool

ROOMS = ROOT / "tests" / "apps" / "rooms"
REFERENCE = ROOT / "examples" / "websocket_server"
PATIENCE_S = 20.0


class World(Protocol):
    """A cluster that runs one app.

    Attributes:
        client: ends at the cluster; paths are relative to it.
    """

    client: aiohttp.ClientSession

    async def crash_shard(self, index: int) -> None:
        """End a shard as kill -9 does; it comes back by itself."""

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event so far; ``exception`` is a traceback's text."""


class MemoryWorld:
    """Everything in this event loop."""

    def __init__(self, cluster: Cluster, log: list[Any]) -> None:
        self.client = cluster.client
        self._cluster = cluster
        self._log = log

    async def crash_shard(self, index: int) -> None:
        await self._cluster.crash_shard(index)
        await self._cluster.start_shard(index)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [dict(line) for line in self._log if line["event"] == event]
        for line in lines:
            if isinstance(error := line.pop("exc_info", None), BaseException):
                line["exception"] = "".join(traceback.format_exception(error))
        return lines


class ProcessWorld:
    """Real processes, TCP and Unix sockets."""

    def __init__(self, client: aiohttp.ClientSession, cluster: RunningCluster) -> None:
        self.client = client
        self._cluster = cluster

    async def crash_shard(self, index: int) -> None:
        os.kill(self._cluster.pids("shard")[index], signal.SIGKILL)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._cluster.output.splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == event]


async def eventually(
    question: Callable[[], Awaitable[Any]],
    answer: Any,
    patience_s: float = PATIENCE_S,
    every_s: float = 0.02,
) -> None:
    """Ask until the answer comes; fail with the last one."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience_s
    while (got := await question()) != answer:
        assert loop.time() < give_up_at, f"{got!r} is still not {answer!r}"
        await asyncio.sleep(every_s)


Scenario = Callable[[World], Awaitable[None]]


def scenario(app: Path = ROOMS, *, own: bool = False, **settings: Any) -> Callable[[Scenario], Any]:
    """Run a test in both worlds; *settings* are the cluster's (``shards=1``).

    Real processes are shared by scenarios, which therefore use rooms of their own; one that does
    damage asks for its *own*.
    """

    def decorate(test: Scenario) -> Any:
        async def in_memory() -> None:
            shards = settings.get("shards", 2)
            rest = {name: each for name, each in settings.items() if name != "shards"}
            with structlog.testing.capture_logs() as log:
                async with Cluster(app, shards=shards, settings=rest) as cluster:
                    async with asyncio.timeout(10 * PATIENCE_S):
                        await test(MemoryWorld(cluster, log))

        async def in_processes(cluster: RunningCluster) -> None:
            url = f"http://127.0.0.1:{cluster.port}"
            async with aiohttp.ClientSession(url) as client, asyncio.timeout(2 * PATIENCE_S):
                await test(ProcessWorld(client, cluster))

        @pytest.mark.parametrize(
            "world", ["memory", pytest.param("processes", marks=pytest.mark.processes)]
        )
        @wraps(test)
        def run(world: str, process_pool: ProcessPool) -> None:
            every = {"shards": 2, **settings}
            if world == "memory":
                virtual_time.run(in_memory())
            elif own:
                with limpet_up(app, **every) as cluster:
                    uvloop.run(in_processes(cluster))
            else:
                uvloop.run(in_processes(process_pool.cluster(app, every)))

        del run.__wrapped__
        return run

    return decorate
