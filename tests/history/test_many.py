"""5,000 held connections, 500 messages a second, while shards are reloaded, scaled and killed.

A long test; it prints what a message has to wait for. `make soak ARGS="-s -k many"` runs it alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from common.close_reasons import RESTARTING
from local.status import shard_states
from tests.history.chaos import Chaos
from tests.history.checker import violations
from tests.history.members import Connection, Population
from tests.history.test_history import seed
from tests.running import RunningCluster, limpet_up

pytestmark = [pytest.mark.processes, pytest.mark.soak, pytest.mark.timeout(600)]

APP = Path(__file__).parent / "app"
ROOMS, MEMBERS, MESSAGES_PER_S = 2500, 2, 500.0
QUIET_S = 3.0
"""How long people talk before and after what is done to the cluster."""
BACK_WITHIN_S = 1.0
GOAL_P99_S = 0.5


class Trial:
    """What people have seen while one thing was done to the cluster."""

    def __init__(self, people: Population, what: str) -> None:
        self._people = people
        self._what = what
        self._before = set(map(id, self._closed()))
        people.pauses.clear()

    def _closed(self) -> list[Connection]:
        return [each for each in self._people.connections if not each.is_open]

    @property
    def closed(self) -> list[Connection]:
        """Those that were closed meanwhile."""
        return [each for each in self._closed() if id(each) not in self._before]

    def p99_s(self) -> float:
        """Print what messages had to wait; the 99th percentile."""
        pauses = sorted(self._people.pauses)
        p99 = statistics.quantiles(pauses, n=100)[98]
        print(
            f"{self._what}: {len(pauses)} messages came back, {len(self.closed)} connections "
            f"closed; a message took p50 {pauses[len(pauses) // 2] * 1000:.0f} ms, p99 "
            f"{p99 * 1000:.0f} ms, at most {pauses[-1] * 1000:.0f} ms"
        )
        return p99


async def settle(people: Population) -> None:
    """Until whatever is on its way has come back, while everybody goes on talking."""
    marks = [(each, each.sent) for each in people.connections if each.is_open]
    async with asyncio.timeout(30):
        for connection, sent in marks:
            while (  # noqa: ASYNC110 - what they hear comes over the network
                connection.is_open and len(connection.heard.get(connection.name, ())) < sent
            ):
                await asyncio.sleep(0.02)


async def trial(
    people: Population, what: str, act: Callable[[], Awaitable[object]]
) -> tuple[Trial, float]:
    """Do *act* between two quiet times; what was seen, and how long it took."""
    seen = Trial(people, what)
    await asyncio.sleep(QUIET_S)
    began_at = time.monotonic()
    await act()
    took_s = time.monotonic() - began_at
    await asyncio.sleep(QUIET_S)
    await settle(people)
    return seen, took_s


def serves(cluster: RunningCluster, shard: int) -> bool:
    """Whether it says that all its partitions are served."""
    return bool(shard_states(cluster.folder / "run", [shard])[shard].get("settled"))


async def many(cluster: RunningCluster, rng: random.Random) -> list[str]:
    """Join 5,000, do one thing after the other; what is wrong with the history."""
    base = f"http://127.0.0.1:{cluster.port}"
    pace_s = ROOMS * MEMBERS / MESSAGES_PER_S
    wrong: list[str] = []
    async with Population(base, ROOMS, MEMBERS, pace_s, rng) as people:
        chaos = Chaos(cluster, rng, ())

        async def kill() -> None:
            pid = cluster.pids("shard")[0]
            os.kill(pid, signal.SIGKILL)
            while (  # noqa: ASYNC110 - another process comes up
                cluster.pids("shard")[0] == pid or not serves(cluster, 0)
            ):
                await asyncio.sleep(0.01)

        for what, act in (
            ("reload", lambda: chaos._command("reload")),
            ("2 to 4 shards", lambda: chaos._command("scale", "4")),
            ("4 to 2 shards", lambda: chaos._command("scale", "2")),
        ):
            seen, took_s = await trial(people, what, act)
            print(f"{what} took {took_s:.2f} s")
            p99_s = seen.p99_s()
            wrong += [f"{what}: {each.name} was closed" for each in seen.closed]
            if p99_s > GOAL_P99_S:
                print(f"GOAL MISSED: p99 {p99_s:.2f} s is more than {GOAL_P99_S} s")
        seen, took_s = await trial(people, "kill -9 of a shard", kill)
        seen.p99_s()
        print(f"back after {took_s:.2f} s; {len(seen.closed)} had an unacknowledged message")
        if took_s > BACK_WITHIN_S:
            print(f"GOAL MISSED: back after {took_s:.2f} s, not {BACK_WITHIN_S} s")
        await people.finish(30)
        sent = sum(each.sent for each in people.connections)
        print(f"{len(people.connections)} connections, {sent} messages")
        wrong += violations(people.connections, [RESTARTING], {})
    return wrong


def test_many() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = seed()
    print(f"seed {chosen}")
    with limpet_up(APP, shards=2) as cluster:
        assert asyncio.run(many(cluster, random.Random(chosen))) == []
