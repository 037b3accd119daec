"""The watch that names the line which blocks a shard."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from local.cluster import Cluster
from shard.lag import LagWatch, Stall
from tests.shard.outside_servers import TIMEOUT_S, until, write_app

APP = """
import asyncio, threading
from workers import DurableObject, Response, WorkerEntrypoint

SEEN = threading.Event()

def helper():
    SEEN.wait(10)  # the blocking line

class Room(DurableObject):
    def fetch(self, request):
        helper()
        return Response("sync")

class Later(DurableObject):
    async def fetch(self, request):
        await asyncio.sleep(0)
        helper()
        return Response("later")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/")[-1]
        if path == "entry":
            helper()
            return Response("entry")
        return await self.env[path.upper()].getByName("lobby").fetch(request)
"""


class Watched:
    """A cluster whose loop is watched, and what was reported."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.stalls: list[Stall] = []
        self.watch = LagWatch(0.05, folder, self._report)

    def _report(self, stall: Stall) -> None:
        self.stalls.append(stall)
        seen: threading.Event = sys.modules["entry"].SEEN
        seen.set()

    async def get(self, path: str) -> str:
        async with asyncio.timeout(TIMEOUT_S), self.cluster.client.get(path) as response:
            return await response.text()


@pytest.fixture
async def watched(tmp_path: Path) -> Any:
    app = write_app(tmp_path, APP, "Room", "Later")
    async with Cluster(app, shards=1) as cluster:
        watched = Watched(cluster, tmp_path)
        watched.watch.start()
        yield watched
        watched.watch.stop()


@pytest.mark.parametrize(
    ("path", "owner", "handler"),
    [
        ("/room", "Room('lobby')", "Room.fetch"),
        ("/later", "Later('lobby')", "Later.fetch"),
        ("/entry", "entry point", "Default.fetch"),
    ],
)
async def test_it_names_object_handler_and_line(
    watched: Watched, path: str, owner: str, handler: str
) -> None:
    await watched.get(path)
    stall = next(each for each in watched.stalls if each.handler)
    assert (stall.owner, stall.handler) == (owner, handler)
    number = APP.splitlines().index("    SEEN.wait(10)  # the blocking line") + 1
    assert stall.where == f"entry.py:{number}"
    assert stall.line == "SEEN.wait(10)  # the blocking line"
    assert stall.for_s >= 0.05
    await until(lambda: watched.watch.longest_s > 0)
    assert watched.watch.stalls == len(watched.stalls)


async def test_a_loop_that_turns_is_left_alone() -> None:
    stalls: list[Stall] = []
    watch = LagWatch(2.0, Path.cwd(), stalls.append)
    watch.start()
    beat = watch._beat_at
    await until(lambda: watch._beat_at > beat)
    watch.stop()
    assert stalls == []
