"""An object that is spoken to while a thread moves its log: its shard does not wait for that."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from shard.storage.disk import Disk
from tests.shard.kit import solo, until
from workers.durable_object import DurableObject


class Notes(DurableObject):
    async def write(self, size: int) -> int:
        number = (await self.ctx.storage.get("number") or 0) + 1
        await self.ctx.storage.put({"number": number, "text": "x" * size})
        return number


class StuckDisk(Disk):
    """Its syncs do not return while it is stuck; the first to come says so."""

    def __init__(self) -> None:
        self.moves = threading.Event()
        self.moves.set()
        self.stuck = threading.Event()

    def sync_data(self, fd: int, path: str) -> None:
        if not self.moves.is_set():
            self.stuck.set()
            assert self.moves.wait(60)
        super().sync_data(fd, path)


async def test_others_go_on_and_it_wakes_when_its_log_has_been_moved(tmp_path: Path) -> None:
    disk = StuckDisk()
    settings: dict[str, Any] = {
        "data_dir": tmp_path,
        "wal_checkpoint_bytes": 256 << 10,
        "pitr_retention_h": 0,
        "sync_threads": 4,
        "adopt_timeout_s": 0,
        "drain_timeout_s": 0,
    }
    async with solo(Notes, **settings) as one:
        one.shard.storage.disk = disk
        assert await one.stub("NOTES").write(200_000) == 1  # more than an eighth of the limit
        await until(lambda: not one.activation("NOTES").busy)
        disk.moves.clear()
        try:
            one.slot("NOTES").evict()
            async with asyncio.timeout(30):
                while not disk.stuck.is_set():  # noqa: ASYNC110 - a thread comes to it
                    await asyncio.sleep(0.001)
                asked = asyncio.ensure_future(one.stub("NOTES").write(1))
                # While it waits for its disk, the loop turns, and objects without storage answer.
                for _ in range(50):
                    await asyncio.sleep(0.001)
            assert not asked.done()
            assert not one.lives("NOTES")
        finally:
            disk.moves.set()
        async with asyncio.timeout(30):
            assert await asked == 2
