"""A shard whose disk takes 200 ms for each sync, with a probe of its event loop's lag.

Nothing in the shard knows of it: this process puts its own :class:`Disk` in the place of the real
one, and a service around the real one carries the probe. See :mod:`benchmarks.slow_disk`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from common.process import run_role
from shard.server import ShardService, prepare
from shard.storage import engine
from shard.storage.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Mapping

SYNC_S = 0.2
"""What a sync takes longer than the disk itself."""
BEAT_S = 0.002
"""How often the probe looks."""


class SlowDisk(Disk):
    """The real one, and a wait."""

    def sync_data(self, fd: int, path: str) -> None:
        time.sleep(SYNC_S)
        super().sync_data(fd, path)

    def sync_folder(self, path: str) -> None:
        time.sleep(SYNC_S)
        super().sync_folder(path)


def lags_of(late_s: float) -> list[float]:
    """How late all beats were that had been due before a beat that came so late.

    A loop that stands still for 200 ms has missed a hundred beats, not one: to count one would hide
    it behind all those that came in time.
    """
    return [late_s - missed * BEAT_S for missed in range(int(late_s / BEAT_S) + 1)]


class LagProbe:
    """Notes how late the beats of a timer come, in seconds, until it is read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lags_s: list[float] = []
        self._due_at = self._loop.time() + BEAT_S
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def _beat(self) -> None:
        # The loop's own clock stands still during a turn, and it may fire a little early.
        now = time.monotonic()
        self._lags_s += lags_of(max(0.0, now - self._due_at))
        self._due_at = now + BEAT_S
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def read(self) -> list[float]:
        """What has been noted since the last reading."""
        lags_s, self._lags_s = self._lags_s, []
        return lags_s

    def stop(self) -> None:
        """Note nothing more."""
        self._timer.cancel()


class ProbedService(ShardService):
    """The shard's own service; its status has the lags since the status was read last."""

    async def start(self) -> Mapping[str, object]:
        told = await super().start()
        self._probe = LagProbe()
        return told

    async def stop(self) -> None:
        self._probe.stop()
        await super().stop()

    def status(self) -> Mapping[str, object]:
        return {**super().status(), "lags_s": self._probe.read()}


def main() -> int:
    """Run the shard; its exit status."""
    vars(engine)["Disk"] = SlowDisk  # the name that the storage engine makes its disk by
    return run_role("shard", ProbedService, prepare)


if __name__ == "__main__":
    sys.exit(main())
