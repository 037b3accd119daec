"""After a crash every acknowledged write is there, and no commit is half there.

A run of one seed writes, sleeps, restarts and crashes a few times; it crashes between any two
turns of the event loop, and inside any wait for the disk: of a commit, or in the middle of a
checkpoint. ``CRASH_SEEDS`` says how many seeds; a failing test's name has its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import LimpetError
from shard.storage import database, wal
from shard.storage.commit_log import Outcome
from shard.storage.disk import Disk
from shard.storage.wal import WalFile
from tests.shard.storage.support import ForgetfulDisk, Home, Scene
from workers.storage import DurableObjectStorage as Storage

SEEDS = int(os.environ.get("CRASH_SEEDS", "60"))
FAR_MS = 6_000_000_000_000
KEYS = 7


class Undo(Exception):  # noqa: N818 - what an app might raise
    pass


class Story:
    """Numbered writes of one object, and what of them was acknowledged."""

    def __init__(self, home: Home, rng: random.Random) -> None:
        self.home = home
        self.rng = rng
        self.number = 0
        self.acknowledged = 0
        self.pads: dict[int, dict[str, int]] = {0: {}}
        self.done: Counter[str] = Counter()
        self.life = 0

    def write(self) -> None:
        """One commit: the same number in a key, a table and the alarm, and many pages."""
        self.number += 1
        number, size = self.number, self.rng.choice((10, 3000, 20_000))
        life = self.life
        pads = dict(self.pads[number - 1])
        changed = {f"pad{self.rng.randrange(KEYS)}": size for _ in range(self.rng.randint(1, 3))}
        gone = f"pad{self.rng.randrange(KEYS)}" if self.rng.random() < 0.3 else None
        pads.update(changed)
        pads.pop(gone, None)  # type: ignore[arg-type]
        self.pads[number] = pads

        def junk(s: Storage) -> None:
            with contextlib.suppress(Undo):
                s.transactionSync(lambda: spoil(s))

        def body(s: Storage) -> None:
            s.kv.put("n", number)
            s.put({key: "x" * size for key, size in changed.items()})
            if gone is not None:
                s.kv.delete(gone)
            junk(s)
            s.sql.exec("CREATE TABLE IF NOT EXISTS t (n, pad)")
            s.sql.exec("INSERT INTO t VALUES (?, ?)", number, "y" * size)
            s.setAlarm(FAR_MS + number)

        def plain(s: Storage) -> None:
            body(s)
            self.home.gate.push(lambda: self.acknowledge(life, number))

        def unconfirmed(s: Storage) -> None:
            body(s)
            s.put("n", number, allowUnconfirmed=True)

        async def synced(s: Storage) -> None:
            body(s)
            await s.sync()
            self.acknowledge(life, number)

        async def transaction(s: Storage) -> None:
            async def closure(txn: Any) -> None:
                s.kv.put("n", number)
                await asyncio.sleep(0)
                body(s)
                await asyncio.sleep(0)

            await s.transaction(closure)
            self.home.gate.push(lambda: self.acknowledge(life, number))

        how = self.rng.choice((plain, plain, unconfirmed, synced, transaction))
        self.done[how.__name__] += 1
        if how is synced:
            self.home.start(how)
        else:
            self.home.run(how)

    def acknowledge(self, life: int, number: int) -> None:
        # What the remains of a crashed process say has reached nobody.
        if life == self.life:
            self.acknowledged = max(self.acknowledged, number)

    def crash(self, rng: random.Random | None, scene: Scene | None = None) -> None:
        """Kill the process, with *rng* the machine."""
        self.life += 1
        self.done["crashes"] += 1
        self.home.crash(rng, scene)

    def check(self, bound: tuple[int, int] | None = None) -> None:
        """Everything that was acknowledged is there, and it is the state after some write."""
        acknowledged, latest = bound or (self.acknowledged, self.number)

        def body(s: Storage) -> Any:
            number = s.kv.get("n") or 0
            found = {key: len(value) for key, value in s.kv.list(prefix="pad")}
            assert found == self.pads[number]
            assert s.kv.get("junk") is None
            if number:
                assert s.sql.exec("SELECT max(n) AS m, count(*) AS c FROM t").one() == {
                    "m": number, "c": number,
                }  # fmt: skip
                with pytest.raises(StopIteration) as alarm:
                    s.getAlarm().send(None)
                assert alarm.value.value == FAR_MS + number
            assert s.sql.exec("PRAGMA quick_check").one().quick_check == "ok"
            return number

        found = self.home.run(body)
        assert acknowledged <= found <= latest, "an acknowledged write is gone"
        # What survived may be told from now on.
        self.number = self.acknowledged = found


def spoil(s: Storage) -> None:
    s.kv.put("junk", 1)
    s.kv.put("n", -1)
    s.sql.exec("CREATE TABLE IF NOT EXISTS t (n, pad)")
    s.sql.exec("INSERT INTO t VALUES (-1, '')")
    raise Undo


class Ambush:
    """Takes a picture inside one of the next waits for the disk: the crash is there."""

    def __init__(self, story: Story) -> None:
        self.scene: Scene | None = None
        self.bound = (0, 0)
        self._story = story
        self._left = story.rng.randint(1, 25)

    def __call__(self, path: str) -> None:
        self._left -= 1
        if not self._left:
            self._story.done["crashes inside a sync"] += 1
            self.scene = self._story.home.scene()
            self.bound = self._story.acknowledged, self._story.number


def play(
    folder: Path, seed: int, *, power: bool, prepare: Callable[[Home], object] = lambda home: None
) -> Story:
    rng = random.Random(seed)
    disk = ForgetfulDisk()
    home = Home(folder, disk, wal_checkpoint_bytes=64 * 1024)
    story = Story(home, rng)
    try:
        for _ in range(rng.randint(2, 5)):
            prepare(home)
            ambush = Ambush(story)
            disk.inject = ambush
            for _ in range(rng.randint(1, 15)):
                story.write()
                home.turn(rng.choice((0, 0, 1, 2, 8)))
            if rng.random() < 0.2:
                home.sleep()
                story.done["sleeps"] += 1
            disk.inject = lambda path: None
            story.crash(rng if power else None, ambush.scene)
            story.check(ambush.bound if ambush.scene is not None else None)
            home.turn(rng.choice((0, 10)))
    finally:
        home.close()
    return story


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    story = play(tmp_path / "data", seed, power=True)
    print(f"seed {seed}: {dict(story.done)}")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_power_cuts(tmp_path: Path) -> None:
    first = random.SystemRandom().randrange(1 << 32)
    total: Counter[str] = Counter()
    for seed in range(first, first + int(os.environ.get("CRASH_SOAK_SEEDS", "3000"))):
        print(f"seed {seed}")
        total += play(tmp_path / "data", seed, power=seed % 4 > 0).done
        shutil.rmtree(tmp_path / "data")
    print(f"from seed {first} on: {dict(total)}")


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_process_loses_nothing_at_all(tmp_path: Path, seed: int) -> None:
    home = Home(tmp_path / "data", ForgetfulDisk())
    story = Story(home, random.Random(seed))
    for _ in range(seed + 1):
        story.write()
    home.turn(20)
    story.crash(None)
    story.acknowledged = story.number
    story.check()
    home.close()


def acknowledge_early(home: Home) -> None:
    home.engine.log.append = lambda commit, told: told(Outcome.ACKED, None)  # type: ignore[method-assign]


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "a checkpoint does not wait for the database": lambda patch: patch.setattr(
        WalFile, "sync_database", lambda self: None
    ),
    "new files are not synced": lambda patch: patch.setattr(
        database, "WalFile", lambda path, disk, created, *more: WalFile(path, disk, None, *more)
    ),
    "folders are not synced": lambda patch: patch.setattr(
        Disk, "sync_way", lambda self, path, folders: None
    ),
    "DATA_DIR is not synced": lambda patch: patch.setattr(wal, "FOLDERS", 2),
    "a transaction is two commits": lambda patch: patch.setattr(
        Storage, "setAlarm", lambda self, time: asyncio.get_running_loop().call_soon(
            lambda: self._host.set_alarm(time, unconfirmed=False)
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_checkpoint_whose_sync_failed_is_made_again(tmp_path: Path, seed: int) -> None:
    """The log is not begun anew before what it had is on disk."""
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk, wal_checkpoint_bytes=64 * 1024)

    def fail_once(path: str) -> None:
        if path == str(home.path):
            disk.inject = lambda path: None
            raise OSError(5, "Input/output error")

    keys = [f"k{number}" for number in range(10)]
    for number, key in enumerate(keys):
        if number == 4:
            disk.inject = fail_once
        home.run(partial(_put, key))
        home.settle()
    home.crash(random.Random(seed))
    assert home.run(lambda s: dict(s.kv.list())) == dict.fromkeys(keys, "x" * 9000)
    home.close()


def _put(key: str, s: Storage) -> None:
    s.kv.put(key, "x" * 9000)


def test_a_file_that_a_killed_process_had_made_lasts_with_its_first_commit(tmp_path: Path) -> None:
    """Reading makes the file; nobody waits for it to be on disk until something is written."""
    home = Home(tmp_path / "data", ForgetfulDisk())
    home.run(lambda s: s.kv.get("a"))
    home.crash()
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    assert isinstance(home.disk, ForgetfulDisk)
    assert str(home.path) in home.disk.synced
    home.crash(random.Random(1))
    assert home.run(lambda s: s.kv.get("a")) == 1
    home.close()


@pytest.mark.parametrize("bug", ["acknowledging before the sync", *PLANTED])
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would see the bugs they are there for."""
    prepare: Callable[[Home], object] = lambda home: None  # noqa: E731
    if bug in PLANTED:
        PLANTED[bug](monkeypatch)
    else:
        prepare = acknowledge_early
    caught = 0
    for seed in range(SEEDS):
        try:
            play(tmp_path / f"data{seed}", seed, power=True, prepare=prepare)
        except Exception:
            caught += 1
    print(f"{bug}: caught in {caught} of {SEEDS} seeds")
    assert caught >= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_failing_disk_and_then_a_power_cut(tmp_path: Path, seed: int) -> None:
    """What was acknowledged after a failed sync does not stand on what that sync has lost."""
    rng = random.Random(seed)
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk, wal_checkpoint_bytes=64 * 1024)
    story = Story(home, rng)
    for _ in range(rng.randint(5, 20)):
        failing = rng.random() < 0.3
        disk.error = OSError(errno.EIO, "Input/output error") if failing else None
        with contextlib.suppress(LimpetError):
            story.write()
        home.turn(rng.choice((1, 2, 8)))
        if failing:
            home.turn(20)
            disk.error = None
            story.check()
    home.settle()
    story.acknowledged = story.number  # all of it is on disk now
    story.crash(rng)
    story.check()
    home.close()
