"""After a crash every acknowledged write is there, and no commit is half there."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from shard.storage.commit_log import Outcome
from tests.shard.storage.support import ForgetfulDisk, Home
from workers.storage import DurableObjectStorage as Storage

SEEDS = int(os.environ.get("CRASH_SEEDS", "60"))


class Story:
    """Numbered writes of one object, and what of them was acknowledged."""

    def __init__(self, home: Home, rng: random.Random) -> None:
        self.home = home
        self.rng = rng
        self.number = 0
        self.acknowledged = 0

    def write(self) -> None:
        """One commit: the same number in two tables and many pages."""
        self.number += 1
        number, size = self.number, self.rng.choice((10, 3000, 20_000))

        def body(s: Storage) -> None:
            s.kv.put("n", number)
            s.kv.put(f"pad{number % 7}", "x" * size)
            s.sql.exec("CREATE TABLE IF NOT EXISTS t (n, pad)")
            s.sql.exec("INSERT INTO t VALUES (?, ?)", number, "y" * size)
            self.home.gate.push(lambda: self.acknowledge(number))

        self.home.run(body)

    def acknowledge(self, number: int) -> None:
        self.acknowledged = max(self.acknowledged, number)

    def check(self) -> None:
        """Also looks at the whole file."""

        def body(s: Storage) -> Any:
            number = s.kv.get("n") or 0
            if number:
                assert s.sql.exec("SELECT max(n) AS m, count(*) AS c FROM t").one() == {
                    "m": number, "c": number,
                }  # fmt: skip
            assert s.sql.exec("PRAGMA quick_check").one().quick_check == "ok"
            return number

        found = self.home.run(body)
        assert self.acknowledged <= found <= self.number, "an acknowledged write is gone"
        # What survived may be told from now on.
        self.number = found


def play(folder: Path, seed: int, *, power: bool, break_it: bool = False) -> Story:
    rng = random.Random(seed)
    home = Home(folder, ForgetfulDisk(), wal_checkpoint_bytes=64 * 1024)
    story = Story(home, rng)
    try:
        for _ in range(rng.randint(2, 5)):
            if break_it:
                home.engine.log.append = lambda commit, told: told(Outcome.ACKED, None)  # type: ignore[method-assign]
            for _ in range(rng.randint(1, 15)):
                story.write()
                home.turn(rng.choice((0, 0, 1, 2, 8)))
            if rng.random() < 0.2:
                home.sleep()
            home.crash(rng if power else None)
            story.check()
            home.turn(rng.choice((0, 10)))
    finally:
        home.close()
    return story


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    play(tmp_path / "data", seed, power=True)


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_process_loses_nothing_at_all(tmp_path: Path, seed: int) -> None:
    home = Home(tmp_path / "data", ForgetfulDisk())
    story = Story(home, random.Random(seed))
    for _ in range(seed + 1):
        story.write()
    home.crash()
    story.acknowledged = story.number
    story.check()
    home.close()


def test_acknowledging_before_the_sync_is_caught(tmp_path: Path) -> None:
    """The test above would see the bug it is there for."""
    caught = 0
    for seed in range(12):
        with contextlib.suppress(AssertionError):
            play(tmp_path / f"data{seed}", seed, power=True, break_it=True)
            continue
        caught += 1
    assert caught >= 6
