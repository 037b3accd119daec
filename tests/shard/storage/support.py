"""One object with its storage in the test's hands: its code, its disk, its crashes."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.ids import IdFactory
from common.settings import Settings
from shard.activation import Activation
from shard.slot import Slot
from shard.storage.disk import Disk
from shard.storage.engine import StorageEngine
from shard.storage.object_storage import ObjectStorage
from shard.turn import task_factory
from shard.waking import Wakes
from workers.storage import DurableObjectStorage

GENERATION = 5


class ForgetfulDisk(Disk):
    """Keeps a copy of each file and of each folder's entries as they were at their last sync.

    That is what a power cut leaves for certain. What came after may be left too: some of a file's
    sectors, in any order; its new length without them; some of a folder's entries.

    Attributes:
        inject: called before each sync, with its path: may raise.
    """

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        self.entries: dict[str, frozenset[str]] = {}
        self.error: OSError | None = None
        self.inject: Callable[[str], None] = lambda path: None
        self.syncs = 0

    def sync_data(self, fd: int, path: str) -> None:
        self.inject(path)
        if self.error is not None:
            raise self.error
        self.syncs += 1
        self.synced[path] = os.pread(fd, 1 << 30, 0)

    def sync_folder(self, path: str) -> None:
        self.inject(path)
        if self.error is not None:
            raise self.error
        self.entries[path] = frozenset(os.listdir(path))

    def replace(self, path: str, new_path: str) -> None:
        super().replace(path, new_path)
        self.synced.pop(new_path, None)
        if path in self.synced:
            self.synced[new_path] = self.synced.pop(path)

    def state(self) -> tuple[dict[str, bytes], dict[str, frozenset[str]]]:
        """What is on disk now."""
        return dict(self.synced), dict(self.entries)

    def cut_power(
        self,
        folder: Path,
        rng: random.Random,
    ) -> None:
        """Put every file and folder back to what may be left of it."""
        self._forget_entries(folder, rng)
        for path in sorted([*folder.rglob("*.sqlite*"), *folder.rglob("alarms.index*")]):
            written = path.read_bytes()
            left = _some(written, self.synced.get(str(path), b""), rng)
            path.write_bytes(left)
            self.synced[str(path)] = left
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                self.entries[str(path)] = frozenset(each.name for each in path.iterdir())

    def _forget_entries(self, folder: Path, rng: random.Random) -> None:
        for path in sorted(folder.iterdir()):
            if path.name not in self.entries.get(str(folder), ()) and rng.random() < 0.7:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                for known in [each for each in self.synced if each.startswith(str(path))]:
                    del self.synced[known]
            elif path.is_dir():
                self._forget_entries(path, rng)


def _some(written: bytes, synced: bytes, rng: random.Random) -> bytes:
    """*synced*, and any of the sectors that were written since."""
    kind = rng.random()
    if kind < 0.3:
        return synced
    result = bytearray(synced)
    sector = rng.choice((512, 4096))
    # A torn write: its beginning is there. Otherwise sectors arrive in any order.
    torn_at = rng.randrange(len(written) + 1) if kind < 0.5 else len(written)
    share = 1.0 if kind < 0.5 else rng.random()
    for start in range(0, torn_at, sector):
        piece = written[start : min(start + sector, torn_at)]
        if synced[start : start + len(piece)] != piece and rng.random() < share:
            result[len(result) :] = bytes(max(0, start + len(piece) - len(result)))
            result[start : start + len(piece)] = piece
    if kind > 0.9:  # the length is metadata, and may come first or last
        longer = rng.randrange(max(len(written) - len(result), 0) + 1)
        result += bytes(longer)
    return bytes(result)


@dataclass
class Scene:
    """Files as they were at some moment, and what of them was on disk."""

    folder: Path
    state: tuple[dict[str, bytes], dict[str, frozenset[str]]] | None


class Home:
    """A shard of one object.

    Args:
        folder: for its files.
        disk: see :mod:`shard.storage.disk`.
        settings: as of :mod:`common.settings`.
    """

    max_pending_bytes = 1 << 20
    enter_function: Callable[..., Any] | None = None

    def __init__(
        self, folder: Path, disk: Disk | None = None, name: str = "a", **settings: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.disk = disk or Disk()
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(task_factory)
        self.base_context = Context()
        self.wakes = Wakes(0, self.loop)
        self.generation: int | None = GENERATION
        self.epoch = "this boot"
        self.settings = Settings.load({}, {"data_dir": folder, "sync_threads": 0, **settings})
        self.object_id = IdFactory("app-Room").from_name(name)
        self.lives = 0
        self.has_alarm = True
        self.durability: Any = "full"
        self.now_ms = 1_800_000_000_000
        self._start()

    def _start(self) -> None:
        self.engine = StorageEngine(
            self.settings,
            lambda partition: self.generation,
            self.epoch,
            self.loop,
            self.disk,
            lambda: self.now_ms,
        )
        self.slot = Slot(self.object_id, "Room", self, self.loop)

    def _slot_in(self, other: Home) -> None:
        """Live in the process of another one."""
        self.slot = Slot(self.object_id, "Room", self, other.loop)

    # --- SlotHost ------------------------------------------------------------------------------

    def enter_context(self, context: Any, activation: Activation) -> None:
        pass

    def socket_accepted(self, owner: Any, socket: Any) -> None:
        pass

    def make_instance(self, activation: Activation) -> Any:
        self.lives += 1
        storage = ObjectStorage(
            activation, self.engine, "app-Room", self.durability, self.has_alarm, self.loop
        )
        activation.storage = storage
        return storage.api

    def storage_is_away(self, slot: Slot) -> bool:
        return False

    def slot_idle(self, slot: Slot) -> None:
        pass

    # --- the test's side -----------------------------------------------------------------------

    def abort(self) -> None:
        """End the object's life, as ``ctx.abort()`` does."""
        self.settle()
        self.slot.reset(RuntimeError("aborted"))
        self.settle()

    def start(self, function: Callable[[DurableObjectStorage], Any]) -> list[Any]:
        """Deliver an event whose handler is *function*; the outcome is appended to the list."""
        outcome: list[Any] = []

        def done(value: Any, error: BaseException | None) -> None:
            outcome.append(error if error is not None else value)

        # From within the loop, as everything that comes over a link.
        self.loop.call_soon(self.slot.call, lambda storage: (function, (storage,)), done)
        return outcome

    def run(self, function: Callable[[DurableObjectStorage], Any]) -> Any:
        """Run *function* as the handler of an event; its value."""
        outcome = self.start(function)
        self.until(lambda: outcome)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def turn(self, count: int = 1) -> None:
        """Let the loop turn."""
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def until(self, condition: Callable[[], Any], within: int = 20_000) -> None:
        for _ in range(within):
            if condition():
                return
            self.turn()
        raise AssertionError("it never came to be")

    @property
    def path(self) -> Path:
        return Path(self.engine.path_of("app-Room", self.object_id))

    @property
    def gate(self) -> Any:
        activation = self.slot.activation
        assert activation is not None
        assert activation.storage is not None
        return activation.storage.session.gate

    def settle(self) -> None:
        """Let everything become durable."""
        self.turn(5)
        self.until(lambda: not self.engine.syncer.busy)
        self.turn(5)

    def sleep(self) -> None:
        """Evict the object."""
        self.settle()
        self.slot.evict()
        self.settle()

    def restart(self) -> None:
        """End the process in good order, and start it again."""
        self.sleep()
        self.engine.shut()
        self.generation = (self.generation or 0) + 1
        self._start()

    def scene(self) -> Scene:
        """What a crash at this moment leaves; for :meth:`crash`."""
        copy = self.folder.with_name(f"{self.folder.name}-{random.random()}")
        shutil.copytree(self.folder, copy)
        state = self.disk.state() if isinstance(self.disk, ForgetfulDisk) else None
        return Scene(copy, state)

    def crash(self, rng: random.Random | None = None, scene: Scene | None = None) -> None:
        """Kill the process, with *rng* the machine; and start it again.

        Now, or as it would have been at the moment of *scene*.
        """
        # What the remains of this process write and sync does not count.
        scene = scene or self.scene()
        self.slot.evict()
        self.turn(3)
        self.engine.shut()
        shutil.rmtree(self.folder)
        shutil.move(scene.folder, self.folder)
        if scene.state is not None:
            assert isinstance(self.disk, ForgetfulDisk)
            self.disk.synced, self.disk.entries = scene.state
        if rng is not None:
            assert isinstance(self.disk, ForgetfulDisk)
            self.disk.cut_power(self.folder, rng)
            self.epoch = f"boot {rng.random()}"
        self.generation = (self.generation or 0) + 1
        self._start()

    def close(self) -> None:
        """Leave nothing behind."""
        self.generation = self.generation or GENERATION
        self.slot.evict()
        self.turn(5)
        self.engine.shut()
        self.loop.close()
