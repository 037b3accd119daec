"""A whole cluster inside one event loop: the test kit for apps, and for Limpet itself.

::

    from local.cluster import Cluster

    async def test_counter():
        async with Cluster("path/to/app") as cluster:
            response = await cluster.client.get("/counter/a")
            assert await response.text() == "1"

Everything is real but the sockets: gateways, shards, links, the app's own code. What normally runs
in processes of their own and talks over TCP and Unix sockets talks over memory here, so a test
needs no port and leaves nothing behind, and on :mod:`local.virtual_time` it waits for nothing.

:attr:`Cluster.client` is an aiohttp client whose connections end at the gateway: requests,
streaming bodies and WebSockets work as over a network.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from common.clock import Clock
from common.link.memory import MemoryNetwork, MemoryTransport, connect
from common.membership import LocalMembership
from common.metrics import Metrics
from common.ownership import MemoryOwnership, OwnershipTable
from common.settings import Settings
from common.wrangler import find_project
from gateway.server import Gateway
from local.objects import ClusterObjects
from local.virtual_time import VirtualTimeLoop
from shard.app import load_app
from shard.host import Shard

BASE_URL = "http://limpet.test"
SETTLE_LOOK_S = 0.001
"""How often to look whether a change of the shards is through."""


class LoopClock:
    """The event loop's own time, so that virtual time moves everything.

    Args:
        loop: whose.
        wall_s: what the wall clock shows now, in seconds since 1970.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wall_s: float = 1_800_000_000.0) -> None:
        self._loop = loop
        self._offset_s = wall_s - loop.time()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._offset_s += seconds

    def monotonic_s(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()

    def wall_s(self) -> float:
        """Seconds since 1970."""
        return self._loop.time() + self._offset_s


_generations = itertools.count(1)
"""Of all clusters of this process: one may begin in the DATA_DIR of another."""


class Cluster(ClusterObjects):
    """Gateways and shards that run one app; :mod:`local.objects` gives access to its objects.

    Args:
        app: the app's folder or wrangler file.
        shards, gateways: how many of each.
        settings: others by name (``idle_timeout_s=1``), see :mod:`common.settings`.
        seed: of all jitter.

    Attributes:
        client: an aiohttp client; paths are relative to the cluster. It takes gateways in turn.
        clock: of all its processes; on virtual time the app's ``time.time()`` goes by it, too.
        network: the lines between the processes, for faults.
        shards, gateways: what runs, by index; a killed shard is missing.
    """

    def __init__(
        self,
        app: str | Path,
        *,
        shards: int = 2,
        gateways: int = 1,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        # Objects' files: on disk, gone with the cluster unless the test says where. No threads wait
        # for them, because virtual time would not wait for threads.
        self._data = TemporaryDirectory(prefix="limpet-", ignore_cleanup_errors=True)
        overrides = {
            "shards": shards,
            "gateways": gateways,
            "app": Path(app),
            "data_dir": Path(self._data.name),
            "sync_threads": 0,
            **(settings or {}),
        }
        self.settings = Settings.load({}, overrides)
        self.network = MemoryNetwork()
        self.shards: dict[int, Shard] = {}
        self.gateways: dict[int, Gateway] = {}
        self._rng = random.Random(seed)  # noqa: S311 - reproducible jitter
        self._membership = LocalMembership(range(shards))
        self._owners = OwnershipTable(_generations)
        self._ownerships: dict[int, MemoryOwnership] = {}
        self._lines: list[MemoryTransport] = []
        self._next_gateway = 0
        self._real_time: tuple[Callable[[], float], Callable[[], int]] | None = None

    async def __aenter__(self) -> Cluster:
        self._loop = asyncio.get_running_loop()
        if isinstance(self._loop, VirtualTimeLoop):
            self.clock = LoopClock(self._loop)
            self._real_time = _replace_time(self.clock)
        else:
            self.clock = LoopClock(self._loop, time.time())
        try:
            self._app = load_app(find_project(self.settings.app))
        except BaseException:
            self._put_time_back()
            self._data.cleanup()
            raise
        for index in range(self.settings.shards):
            await self.start_shard(index)
        for index in range(self.settings.gateways):
            gateway = Gateway(
                self.settings,
                index,
                Metrics("gateway", index),
                transport=self.network,
                membership=self._membership,
                clock=self.clock,
                rng=self._rng,
            )
            self.gateways[index] = gateway
            gateway.run()
        for gateway in self.gateways.values():
            while gateway.router.shards_up < len(self.shards):  # noqa: ASYNC110 - one turn a dial
                await asyncio.sleep(0)
        self.client = aiohttp.ClientSession(
            base_url=BASE_URL, connector=_MemoryConnector(self), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        for gateway in self.gateways.values():
            await gateway.stop()
        for index in list(self.shards):
            await self.stop_shard(index)
        for line in self._lines:
            line.abort()
        await asyncio.sleep(0)
        self._loop.set_task_factory(None)
        self._put_time_back()
        self._data.cleanup()

    def _put_time_back(self) -> None:
        if self._real_time is not None:
            time.time, time.time_ns = self._real_time
            self._real_time = None

    async def start_shard(self, index: int) -> None:
        """Start a shard; the gateways find it by themselves."""
        ownership = self._ownerships[index] = MemoryOwnership(self._owners, f"shard {index}")
        shard = Shard(
            index,
            self._app,
            self.settings,
            self.network,
            self._membership,
            ownership,
            self.clock,
            self._rng,
        )
        self.shards[index] = shard
        await shard.start()

    async def stop_shard(self, index: int) -> None:
        """Stop a shard in good order."""
        await self.shards.pop(index).stop()
        self._release(index)

    async def scale(self, shards: int) -> None:
        """Have so many shards; returns when every partition is at home where it should be."""
        for index in range(shards):
            if index not in self.shards:
                await self.start_shard(index)
        self._membership.change(range(shards))
        while not all(  # noqa: ASYNC110 - hand-off takes many turns
            shard.hand_off.settled for shard in self.shards.values()
        ):
            await asyncio.sleep(SETTLE_LOOK_S)
        for index in [each for each in self.shards if each >= shards]:
            await self.stop_shard(index)

    def _release(self, index: int) -> None:
        ownership = self._ownerships.pop(index)
        for partition in ownership.held():
            ownership.release(partition)

    async def crash_shard(self, index: int) -> None:
        """End a shard as kill -9 does: nothing that it had to say gets out any more."""
        shard = self.shards.pop(index)
        shard.silence()
        for one, other in self.network.lines.pop(f"shard-{index}", []):
            one.cut(ConnectionResetError("the process is gone"))
            other.cut()
        await shard.kill()
        self._release(index)

    def open_line(self, client: asyncio.Protocol, gateway: int | None = None) -> MemoryTransport:
        """Connect a client's protocol to a gateway; its end of the line.

        Args:
            client: as for ``loop.create_connection``.
            gateway: which one; the next in turn if it is not said.
        """
        if gateway is None:
            gateway = self._next_gateway % len(self.gateways)
            self._next_gateway += 1
        server = self.gateways[gateway].client()
        mine, theirs = connect(
            client, server, peername=("192.0.2.1", 50000), sockname=("192.0.2.2", 80)
        )
        self._lines += [mine, theirs]
        return mine


def _replace_time(clock: Clock) -> tuple[Callable[[], float], Callable[[], int]]:
    """Let ``time.time()`` go by *clock*; what it was before."""
    before = time.time, time.time_ns
    time.time = clock.wall_s
    time.time_ns = lambda: int(clock.wall_s() * 1e9)
    return before


class _MemoryConnector(aiohttp.BaseConnector):
    """Gives an aiohttp client connections that end at the cluster's gateways."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(limit=0)
        self._cluster = cluster

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        protocol = ResponseHandler(asyncio.get_running_loop())
        self._cluster.open_line(protocol)
        return protocol
