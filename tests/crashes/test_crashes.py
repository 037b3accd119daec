"""Numbered writes of many objects, whose processes are killed, and whose power is cut.

After each crash every acknowledged write is there, and no transaction is half there. Every run
prints its seed and its counts; CRASH_SEED repeats one, SOAK_S makes the long ones as long as you
like.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crashes.writers import Writers
from tests.faults.disk import RealDisk, needs_compiler, real_disk
from tests.history.chaos import Chaos
from tests.running import RunningCluster, free_port, is_running, until

pytestmark = pytest.mark.processes

APP = Path(__file__).parent / "app"
SOAK_S = float(os.environ.get("SOAK_S", "120"))


AT_LEAST = 3
"""Crashes of each run, however slow the machine is."""


def seed() -> int:
    given = os.environ.get("CRASH_SEED")
    return int(given) if given else random.SystemRandom().randrange(1 << 32)


class Machine:
    """A computer with one cluster, which can lose its power."""

    def __init__(self, folder: Path, disk: RealDisk | None) -> None:
        self.folder = folder
        self.disk = disk
        self.port = free_port()
        self.done: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        settings = {
            "port": str(self.port),
            "shards": "2",
            "restart_backoff_max_s": "0.3",
            "wal_checkpoint_bytes": "200000",
            "idle_timeout_s": "1",
            "max_open_databases": "6",
        }
        self.cluster = RunningCluster(self.folder, APP, settings)
        self.cluster.wait_until_ready()

    def kill_everything(self) -> None:
        """End all processes at once."""
        cluster = self.cluster
        pids = [*cluster.pids("shard"), *cluster.pids("gateway"), cluster.process.pid]
        for pid in (cluster.process.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(is_running, pids)), "the end of all processes")
        cluster.close()
        self.done["all killed"] += 1

    def cut_power(self) -> None:
        """The same, and what was not synced is gone."""
        assert self.disk is not None
        self.kill_everything()
        self.done.update(self.disk.cut_power(self.folder / "data"))
        self.done["power cuts"] += 1


def run(
    seconds: float, *, kinds: tuple[str, ...], disk: RealDisk | None = None, count: int = 24
) -> list[str]:
    """Let *count* objects write while crashes of these *kinds* happen; what is wrong then."""
    chosen = seed()
    rng = random.Random(chosen)
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
        machine = Machine(Path(folder), disk)

        async def happen() -> list[str]:
            loop = asyncio.get_running_loop()
            wrong: list[str] = []
            async with Writers(f"http://127.0.0.1:{machine.port}", count, rng) as writers:
                ends_at = loop.time() + seconds
                crashes = 0
                while (loop.time() < ends_at or crashes < AT_LEAST) and not wrong:
                    crashes += 1
                    writers.start()
                    kind = rng.choice(kinds)
                    if kind == "kill":
                        chaos = Chaos(machine.cluster, rng, ("kill",))
                        await chaos.rage(rng.uniform(0.5, 2))
                        machine.done.update(chaos.done)
                        await writers.stop()
                    else:
                        await asyncio.sleep(rng.uniform(0.3, 1.5))
                        how = machine.cut_power if kind == "power" else machine.kill_everything
                        await asyncio.to_thread(how)
                        await writers.stop()
                        await asyncio.to_thread(machine.start)
                    wrong = await writers.check()
                written = sum(each.acknowledged for each in writers.ledgers)
                print(f"seed {chosen}: {dict(machine.done)}; {written} numbers written, "
                      f"{dict(writers.counts)}")  # fmt: skip
            return wrong

        try:
            return asyncio.run(happen())
        finally:
            machine.cluster.close()


def test_killed_processes_lose_nothing_that_was_acknowledged() -> None:
    assert run(6, kinds=("kill", "kill", "all")) == []


@needs_compiler
def test_power_cuts_lose_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_disk(tmp_path, monkeypatch, shadow=True) as disk:
        assert run(6, kinds=("power", "power", "kill"), disk=disk) == []


def test_acknowledging_before_the_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_BUG", "acknowledge before the commit")
    found = run(20, kinds=("all",))
    assert any("acknowledged was" in each for each in found), found


@needs_compiler
def test_acknowledging_before_the_sync_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_BUG", "acknowledge before the sync")
    with real_disk(tmp_path, monkeypatch, shadow=True) as disk:
        found = run(20, kinds=("power",), disk=disk)
    assert any("acknowledged was" in each for each in found), found


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
def test_kills_for_long() -> None:
    assert run(SOAK_S, kinds=("kill", "kill", "all"), count=100) == []


@pytest.mark.soak
@needs_compiler
@pytest.mark.timeout(SOAK_S + 300)
def test_power_cuts_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with real_disk(tmp_path, monkeypatch, shadow=True) as disk:
        assert run(SOAK_S, kinds=("power", "kill", "all"), disk=disk, count=60) == []
