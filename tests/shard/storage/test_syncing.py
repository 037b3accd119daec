"""The syncer and the commit log on real threads, and the engine's open databases."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.ids import Partition
from shard.storage.commit_log import Commit, LocalCommitLog, Outcome
from shard.storage.database import Database
from shard.storage.disk import Disk
from shard.storage.syncer import Syncer
from tests.shard.storage.support import Home


class BlockedDisk(Disk):
    """Each sync waits until the test lets it go on."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.proceed = threading.Semaphore(0)
        self.error: OSError | None = None

    def sync_data(self, fd: int, path: str) -> None:
        self.arrived.append(path)
        assert self.proceed.acquire(timeout=10)
        if self.error is not None:
            raise self.error

    def sync_folder(self, path: str) -> None:
        pass


class Bench:
    """Open databases of one disk, and a commit log for them."""

    def __init__(self, folder: Path, threads: int = 4) -> None:
        self.disk = BlockedDisk()
        self.generation: int | None = 1
        self.syncer = Syncer(asyncio.get_running_loop(), threads)
        self.log = LocalCommitLog(self.syncer, lambda partition: self.generation)
        self.databases = [self.database(folder / f"{number}.sqlite") for number in range(3)]
        self.told: list[tuple[str, Outcome]] = []

    def database(self, path: Path) -> Database:
        first = Database(str(path), Disk(), 1 << 20)
        first.run("BEGIN")
        first.run("INSERT INTO _cf_KV VALUES ('filler', zeroblob(9000))")
        first.commit()
        first.lend()
        first.checkpoint(0)
        first.close()  # not new any more: a checkpoint has made it last
        return Database(str(path), self.disk, 1 << 20)

    def commit(self, number: int, name: str, durability: Any = "full") -> None:
        database = self.databases[number]
        database.run("BEGIN")
        database.run("INSERT OR REPLACE INTO _cf_KV VALUES (?, ?)", (name, b""))
        assert database.commit()
        commit = Commit(database.durable_log(), database.wal_bytes, Partition(0), 1, durability)
        self.log.append(commit, lambda outcome, error: self.told.append((name, outcome)))

    async def until(self, condition: Any) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self.disk.proceed.release(1000)
        self.syncer.close()
        for database in self.databases:
            database.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


async def test_commits_of_one_file_share_the_next_sync(bench: Bench) -> None:
    bench.commit(0, "first")
    await bench.until(lambda: bench.disk.arrived)
    for name in "abcdef":
        bench.commit(0, name)
    assert bench.told == []
    bench.disk.proceed.release()
    await bench.until(lambda: bench.told)
    assert bench.told == [("first", Outcome.ACKED)]
    bench.disk.proceed.release()
    await bench.until(lambda: len(bench.told) == 7)
    assert [name for name, _ in bench.told] == ["first", *"abcdef"]
    assert len(bench.disk.arrived) == 2
    assert not bench.syncer.busy


async def test_files_are_synced_at_the_same_time(bench: Bench) -> None:
    for number in range(3):
        bench.commit(number, str(number))
    await bench.until(lambda: len(bench.disk.arrived) == 3)
    assert bench.told == []


async def test_the_loop_turns_while_the_disk_is_slow(bench: Bench) -> None:
    bench.commit(0, "a")
    await bench.until(lambda: bench.disk.arrived)
    turned = 0
    for _ in range(100):
        await asyncio.sleep(0)
        turned += 1
    assert (turned, bench.told) == (100, [])


async def test_after_a_failure_no_commit_of_the_file_is_acknowledged(bench: Bench) -> None:
    bench.commit(0, "a")
    await bench.until(lambda: bench.disk.arrived)
    bench.commit(0, "b")
    bench.disk.error = OSError(5, "Input/output error")
    bench.disk.proceed.release()
    await bench.until(lambda: len(bench.told) == 2)
    assert bench.told == [("a", Outcome.UNKNOWN), ("b", Outcome.UNKNOWN)]


async def test_a_commit_is_fenced_before_and_after_the_wait(bench: Bench) -> None:
    bench.commit(0, "a")
    await bench.until(lambda: bench.disk.arrived)
    bench.generation = 2
    bench.commit(1, "b")
    bench.disk.proceed.release()
    await bench.until(lambda: len(bench.told) == 2)
    assert bench.told == [("b", Outcome.FENCED), ("a", Outcome.FENCED)]


async def test_normal_durability_is_told_at_once(bench: Bench) -> None:
    bench.commit(0, "a", "normal")
    assert bench.told == [("a", Outcome.ACKED)]
    assert bench.disk.arrived == []


def store(key: str, s: Any) -> None:
    s.kv.put(key, "x" * 5000)


# --- the engine ----------------------------------------------------------------------------------


def test_the_log_is_moved_into_the_database_when_it_is_long(tmp_path: Path) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=64 * 1024)
    for number in range(40):
        home.run(partial(store, f"k{number}"))
        home.settle()
        assert Path(f"{home.path}-wal").stat().st_size < 400_000
    assert home.path.stat().st_size > 100_000
    home.restart()
    assert home.run(lambda s: len(s.kv.get("k0"))) == 5000
    home.close()


def test_a_sleeping_object_has_its_file_closed(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    assert home.engine.open_databases == 1
    home.sleep()
    assert home.engine.open_databases == 0
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_an_object_without_storage_has_no_file(home: Home) -> None:
    home.run(lambda s: 1)
    assert not home.path.exists()


def test_the_number_of_open_databases_is_bounded(home: Home, tmp_path: Path) -> None:
    others = []
    object.__setattr__(home.settings, "max_open_databases", 3)
    for name in "bcdef":
        other = Home(tmp_path / "data", name=name)
        other.engine.shut()
        other.engine, kept = home.engine, other.loop
        other.loop = home.loop
        kept.close()
        other._slot_in(home)
        others.append(other)
    for _ in range(3):
        for other in others:
            other.run(lambda s: s.kv.put("n", (s.kv.get("n") or 0) + 1))
            other.settle()
            assert home.engine.open_databases <= 3
    assert [other.run(lambda s: s.kv.get("n")) for other in others] == [3] * 5
    for other in others:
        other.slot.evict()
