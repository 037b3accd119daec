"""Syncs that the kernel waits for, and when the syncer leaves them to threads."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from common.ids import Partition
from shard.storage.commit_log import Commit, LocalCommitLog, Outcome
from shard.storage.database import Database
from shard.storage.disk import Disk
from shard.storage.kernel_sync import Done, KernelSyncs, RefusedError, outcomes
from shard.storage.syncer import Syncer


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.001)


@pytest.fixture
async def kernel() -> AsyncIterator[KernelSyncs]:
    try:
        kernel = KernelSyncs(asyncio.get_running_loop(), 4)
    except OSError as error:
        pytest.skip(f"no asynchronous syncs here: {error}")
    yield kernel
    kernel.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"contents")
    yield fd
    os.close(fd)


async def test_several_syncs_are_done_and_make_room_again(kernel: KernelSyncs, file: int) -> None:
    told: list[OSError | None] = []
    for _ in range(3):
        while kernel.has_room:
            kernel.start(file, told.append)
        assert told == []
        await until(lambda: len(told) == 4)
        assert told == [None] * 4
        told.clear()


async def test_what_cannot_be_synced_is_refused_and_the_others_are_not(
    kernel: KernelSyncs, file: int
) -> None:
    reader, writer = os.pipe()
    told: dict[str, OSError | None] = {}
    kernel.start(file, partial(told.__setitem__, "before"))
    kernel.start(reader, partial(told.__setitem__, "pipe"))
    kernel.start(file, partial(told.__setitem__, "behind"))
    await until(lambda: len(told) == 3)
    os.close(reader)
    os.close(writer)
    assert isinstance(told["pipe"], RefusedError)
    assert told["pipe"].errno == errno.EINVAL
    assert (told["before"], told["behind"]) == (None, None)


async def test_closing_waits_and_tells_nothing_more(kernel: KernelSyncs, file: int) -> None:
    told: list[OSError | None] = []
    kernel.start(file, told.append)
    kernel.close()
    await asyncio.sleep(0.01)
    assert told == []


def test_an_error_of_the_disk_is_one() -> None:
    events = struct.pack("<QQqqQQqq", 7, 0, 0, 0, 9, 0, -errno.EIO, 0)
    (first, fine), (second, error) = outcomes(events)
    assert (first, fine, second) == (7, None, 9)
    assert error is not None
    assert error.errno == errno.EIO
    assert not isinstance(error, RefusedError)


class Kernel:
    """Takes syncs, and tells what the test says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.has_room = True
        self.taken: list[tuple[int, Done]] = []
        self.closed = False

    def start(self, fd: int, done: Done) -> None:
        self.taken.append((fd, done))

    def close(self) -> None:
        self.closed = True


class CountingDisk(Disk):
    """Also notes which files were synced; it is not plain, as it does more than that."""

    def __init__(self) -> None:
        self.synced: list[str] = []

    def sync_data(self, fd: int, path: str) -> None:
        self.synced.append(path)
        super().sync_data(fd, path)


class Bench:
    """One database and its commit log, over a kernel of the test's own."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.kernels: list[Kernel] = []
        self.syncer = Syncer(asyncio.get_running_loop(), 2, self._kernel)
        self.log = LocalCommitLog(self.syncer, lambda partition: 1)
        self.database = Database(str(folder / "1" / "n" / "a.sqlite"), disk, 1 << 20)
        self.told: list[Outcome] = []
        self.count = 0

    def _kernel(self, loop: asyncio.AbstractEventLoop) -> Kernel:
        self.kernels.append(Kernel(loop))
        return self.kernels[-1]

    @property
    def taken(self) -> list[tuple[int, Done]]:
        return [each for kernel in self.kernels for each in kernel.taken]

    def commit(self) -> None:
        self.count += 1
        database = self.database
        database.run("BEGIN")
        database.run("INSERT OR REPLACE INTO _cf_KV VALUES (?, ?)", (str(self.count), b""))
        assert database.commit()
        commit = Commit(database.durable_log(), database.wal_bytes, Partition(0), 1, "full")
        self.log.append(commit, lambda outcome, error: self.told.append(outcome))

    async def first(self) -> None:
        """The first commit of an opening: with its folders, so on a thread."""
        self.commit()
        await until(lambda: self.told)
        assert self.told == [Outcome.ACKED]
        assert self.taken == []
        self.told.clear()

    def close(self) -> None:
        self.syncer.close()
        self.database.close()
        assert all(kernel.closed for kernel in self.kernels)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, Disk())
    yield bench
    bench.close()


async def test_a_commit_is_told_when_the_kernel_says_so_and_covers_what_came_before_it(
    bench: Bench,
) -> None:
    await bench.first()
    log = bench.database.durable_log()
    before = log.durable_bytes
    bench.commit()
    ended = bench.database.wal_bytes
    bench.commit()
    await asyncio.sleep(0.01)
    assert bench.told == []
    assert log.durable_bytes == before
    [(_, done)] = bench.taken
    done(None)
    assert bench.told == [Outcome.ACKED]
    assert log.durable_bytes == ended
    bench.taken[1][1](None)  # the second commit waited for a sync of its own
    assert bench.told == [Outcome.ACKED] * 2
    assert log.durable_bytes == bench.database.wal_bytes


async def test_an_error_of_the_kernel_fails_all_commits_that_wait(bench: Bench) -> None:
    await bench.first()
    bench.commit()
    bench.commit()
    bench.taken[0][1](OSError(errno.EIO, "no"))
    assert bench.told == [Outcome.UNKNOWN] * 2
    assert len(bench.taken) == 1
    assert not bench.syncer.busy


async def test_a_refusal_sends_this_sync_and_all_later_ones_to_threads(bench: Bench) -> None:
    await bench.first()
    bench.commit()
    bench.taken[0][1](RefusedError(errno.EINVAL, "no"))
    bench.commit()
    await until(lambda: len(bench.told) == 2)
    assert bench.told == [Outcome.ACKED] * 2
    assert len(bench.taken) == 1


async def test_a_kernel_without_room_leaves_a_sync_to_a_thread(bench: Bench) -> None:
    await bench.first()
    bench.commit()
    bench.taken[0][1](None)
    bench.kernels[0].has_room = False
    bench.commit()
    await until(lambda: len(bench.told) == 2)
    assert len(bench.taken) == 1


async def test_a_file_that_was_deleted_meanwhile_is_not_durable(bench: Bench) -> None:
    await bench.first()
    bench.commit()
    os.unlink(f"{bench.database.path}-wal")
    bench.taken[0][1](None)
    assert bench.told == [Outcome.UNKNOWN]


async def test_a_system_without_such_syncs_has_threads(tmp_path: Path) -> None:
    def absent(loop: asyncio.AbstractEventLoop) -> Kernel:
        raise OSError(errno.ENOSYS, "absent")

    bench = Bench(tmp_path, Disk())
    bench.syncer = Syncer(asyncio.get_running_loop(), 2, absent)
    bench.log = LocalCommitLog(bench.syncer, lambda partition: 1)
    await bench.first()
    bench.commit()
    await until(lambda: bench.told)
    assert bench.told == [Outcome.ACKED]
    bench.close()


async def test_a_disk_that_does_more_than_the_kernel_is_never_passed_by(tmp_path: Path) -> None:
    disk = CountingDisk()
    bench = Bench(tmp_path, disk)
    await bench.first()
    synced = len(disk.synced)
    bench.commit()
    await until(lambda: bench.told)
    assert len(disk.synced) == synced + 1
    assert bench.taken == []
    bench.close()
