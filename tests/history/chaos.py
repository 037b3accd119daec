"""The seeded driver of misfortune: kills, stops, reloads and scales a running cluster."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress

from tests.running import ROOT, RunningCluster


class Chaos:
    """Does one thing after the other, chosen by *rng*.

    Attributes:
        done: what it has done, how often.
    """

    def __init__(
        self, cluster: RunningCluster, rng: random.Random, actions: tuple[str, ...]
    ) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._actions = actions
        self._shards = 2
        self._left: list[str] = []

    async def rage(self, seconds: float) -> None:
        """Go on for so long; everything runs again when it returns."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while loop.time() < ends_at:
            await asyncio.sleep(self._rng.uniform(0.3, 0.8))
            if not self._left:  # each once before any comes again: none is left out by chance
                self._left = self._rng.sample(self._actions, len(self._actions))
            action = self._left.pop()
            self.done[action] += 1
            await getattr(self, f"_{action}")()

    async def _kill(self) -> None:
        self._signal("shard", signal.SIGKILL)

    async def _kill_gateway(self) -> None:
        self._signal("gateway", signal.SIGKILL)
        await asyncio.sleep(1)

    async def _stop(self) -> None:
        pid = self._signal("shard", signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def _reload(self) -> None:
        await self._command("reload")

    async def _scale(self) -> None:
        shards = self._rng.choice([count for count in (1, 2, 3, 4) if count != self._shards])
        self._shards = shards
        await self._command("scale", str(shards))

    async def _command(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "local.cli",
            *words,
            f"--run-dir={self._cluster.folder / 'run'}",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()

    def _signal(self, role: str, number: int) -> int:
        pids = self._cluster.pids(role)
        pid = self._rng.choice(pids[: self._shards] if role == "shard" else pids)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid
