"""While a partition stands still, its objects go on and their files are not written to."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import Unavailable
from common.ids import Partition
from shard.storage.standstill import MAX_LEASE_S, Standstills
from tests.shard.storage.support import Home
from workers.storage import DurableObjectStorage


def test_a_lease_ends_by_itself() -> None:
    leases = Standstills()
    token = leases.begin(Partition(3), 1, 30, now_s=100)
    assert leases.holds(Partition(3), 129)
    assert not leases.holds(Partition(4), 129)
    assert leases.renew(token, 1, 30, 129)
    assert leases.holds(Partition(3), 158)
    assert not leases.holds(Partition(3), 160)
    assert not leases.renew(token, 1, 30, 160)
    assert not leases.end(token, 1, 160)


def test_no_lease_is_longer_than_allowed() -> None:
    leases = Standstills()
    leases.begin(Partition(3), 1, 1e9, now_s=0)
    assert not leases.holds(Partition(3), MAX_LEASE_S + 1)


def test_a_lease_on_a_partition_that_changed_hands_has_not_held() -> None:
    leases = Standstills()
    token = leases.begin(Partition(3), 1, 30, now_s=0)
    assert not leases.end(token, 2, 1)
    assert not leases.holds(Partition(3), 1)


def begin(home: Home) -> str:
    return home.loop.run_until_complete(home.engine.begin_standstill(home.object_id.partition, 30))


def put(number: int, s: DurableObjectStorage) -> None:
    s.kv.put(f"k{number % 5}", "x" * 30_000)


def write(home: Home, count: int) -> None:
    for number in range(count):
        home.run(partial(put, number))
        home.settle()


@pytest.mark.parametrize("how", ["busy", "sleep"])
def test_no_checkpoint_is_made_until_it_ends(tmp_path: Path, how: str) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=65_536)
    write(home, 3)
    token = begin(home)
    before = home.path.read_bytes()
    write(home, 10)
    if how == "sleep":
        home.sleep()
        assert home.engine.open_databases == 0
        assert home.run(lambda s: len(s.kv.get("k0"))) == 30_000
    assert home.path.read_bytes() == before
    assert home.engine.end_standstill(token)
    write(home, 1)
    assert home.path.read_bytes() != before
    assert not home.engine.end_standstill(token)
    home.close()


def test_a_checkpoint_under_way_is_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=65_536)
    write(home, 1)
    jobs: list[Any] = []
    home.engine.syncer.run = lambda work, done: jobs.append((work, done))  # type: ignore[method-assign]
    activation = home.slot.activation
    assert activation is not None
    assert activation.storage is not None
    assert activation.storage.session.checkpoint(lambda: None)

    async def ask() -> str:
        asking = asyncio.ensure_future(home.engine.begin_standstill(home.object_id.partition, 30))
        for _ in range(3):
            await asyncio.sleep(0.003)
        assert not asking.done()
        work, done = jobs.pop()
        work()
        done(None)
        return await asking

    assert home.engine.end_standstill(home.loop.run_until_complete(ask()))
    home.close()


def test_only_the_owner_can_promise_it(home: Home) -> None:
    home.generation = None
    with pytest.raises(Unavailable):
        begin(home)
