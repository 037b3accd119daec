"""Who may run the objects of a partition: exactly one process, on proof and not on belief.

A shard acquires its partitions before it runs any of their objects. With each acquisition comes a
*generation*, a number that rises every time the partition changes hands; it travels on the links
and is checked at commit, so that whatever a former owner left under way is recognised.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, NewType, Protocol, TypeAlias, final

from common.errors import HeldElsewhere
from common.file_lock import FileLock, holder, make_folder, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from common.ids import Partition

Generation = NewType("Generation", int)
"""How many times a partition has been acquired, from 1."""

IndexedRole: TypeAlias = Literal["gateway", "shard"]

LOCK_FILE: Final = "owner"


class Ownership(Protocol):
    """The right to run the objects of partitions. Implementations differ in where it comes from."""

    def acquire(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """Acquire all of ``partitions``, or none; those held already are as they were.

        Returns:
            The generation of each.

        Raises:
            HeldElsewhere: another process holds one of them. Retryable.
            ConfigError: the means of acquiring is out of order.
        """

    def take(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """Acquire those of ``partitions`` that nobody holds.

        Returns:
            The generation of each that was acquired now.

        Raises:
            ConfigError: the means of acquiring is out of order.
        """

    def release(self, partition: Partition) -> None:
        """Give a partition up. No effect if it is not held."""

    def generation(self, partition: Partition) -> Generation | None:
        """Return the generation at which this process holds ``partition``; ``None`` if not."""

    def held(self) -> Mapping[Partition, Generation]:
        """Return all that this process holds."""


@final
class FlockOwnership:
    """Ownership on one machine: a locked file per partition, ``DATA_DIR/<partition>/owner``.

    The kernel hands a lock to one process only and takes it back when that process ends, however
    it ends. So there is no lease, no clock and nobody to ask.

    The generation is kept in the lock file, and the file is not flushed to disk: all processes that
    could ever compare two generations see the same page cache, and what loses the page cache (a
    power failure) has ended them all. Who writes a generation to disk must not rely on it rising
    across a power failure.

    Args:
        data_dir: the folder of partitions, on a local file system; made if need be.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._locks: dict[Partition, FileLock] = {}
        self._generations: dict[Partition, Generation] = {}

    def acquire(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.acquire`.

        Takes some 10 µs for each partition. Only the very first start of a data directory, which
        makes the files, takes longer: 60 to 700 ms for all on ext4.
        """
        wanted = list(dict.fromkeys(partitions))
        taken: list[Partition] = []
        try:
            for partition in wanted:
                if partition not in self._locks:
                    if not self._lock(partition):
                        raise self._held_elsewhere(partition)
                    taken.append(partition)
        except BaseException:
            for partition in taken:
                self.release(partition)
            raise
        return {partition: self._generations[partition] for partition in wanted}

    def take(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.take`."""
        return {
            partition: self._generations[partition]
            for partition in partitions
            if partition not in self._locks and self._lock(partition)
        }

    def release(self, partition: Partition) -> None:
        """See :meth:`Ownership.release`."""
        if lock := self._locks.pop(partition, None):
            del self._generations[partition]
            lock.release()

    def generation(self, partition: Partition) -> Generation | None:
        """See :meth:`Ownership.generation`."""
        return self._generations.get(partition)

    def held(self) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.held`."""
        return dict(self._generations)

    def _lock(self, partition: Partition) -> bool:
        # Strings, not pathlib: this runs up to 1,024 times while clients wait for their shard.
        folder = f"{os.fspath(self._data_dir)}/{partition:04d}"
        if not os.path.isdir(folder):
            make_folder(self._data_dir / f"{partition:04d}")
        lock = try_lock(f"{folder}/{LOCK_FILE}")
        if lock is None:
            return False
        generation = _advance(lock)
        self._locks[partition] = lock
        self._generations[partition] = generation
        return True

    def _held_elsewhere(self, partition: Partition) -> HeldElsewhere:
        return HeldElsewhere(
            f"partition {partition}",
            holder=holder(self._data_dir / f"{partition:04d}" / LOCK_FILE),
            partition=partition,
            hint=f"Does another cluster use DATA_DIR={self._data_dir} too? "
            "Give each its own with --data-dir.",
        )


@final
class OwnershipTable:
    """Who owns which partition, among the shards of one process: for clusters in one event loop.

    Args:
        numbers: where generations come from; by default each partition's begin with 1.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self.holders: dict[Partition, object] = {}
        self._numbers = numbers
        self._last: dict[Partition, int] = {}

    def next_generation(self, partition: Partition) -> Generation:
        """A higher one than the partition has ever had."""
        number = self._last.get(partition, 0) + 1 if self._numbers is None else next(self._numbers)
        self._last[partition] = number
        return Generation(number)


@final
class MemoryOwnership:
    """Ownership by an entry in a table that all the shards share.

    Args:
        table: of the cluster.
        holder: whose entries these are, as it is named in errors.
    """

    def __init__(self, table: OwnershipTable, holder: object) -> None:
        self._table = table
        self._holder = holder
        self._held: dict[Partition, Generation] = {}

    def acquire(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.acquire`."""
        wanted = list(partitions)
        for partition in wanted:
            other = self._table.holders.get(partition)
            if partition not in self._held and other is not None:
                raise HeldElsewhere(f"partition {partition}", holder=str(other))
        self.take(wanted)
        return {partition: self._held[partition] for partition in wanted}

    def take(self, partitions: Iterable[Partition]) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.take`."""
        taken: dict[Partition, Generation] = {}
        for partition in partitions:
            if partition not in self._table.holders:
                self._table.holders[partition] = self._holder
                taken[partition] = self._table.next_generation(partition)
        self._held.update(taken)
        return taken

    def release(self, partition: Partition) -> None:
        """See :meth:`Ownership.release`."""
        if self._held.pop(partition, None) is not None:
            del self._table.holders[partition]

    def generation(self, partition: Partition) -> Generation | None:
        """See :meth:`Ownership.generation`."""
        return self._held.get(partition)

    def held(self) -> Mapping[Partition, Generation]:
        """See :meth:`Ownership.held`."""
        return dict(self._held)


def index_lock_path(run_dir: Path, role: IndexedRole, index: int) -> Path:
    """Return the path of the lock of a number among the processes of one role."""
    return run_dir / f"{role}-{index}.lock"


def claim_index(
    run_dir: Path, role: IndexedRole, count: int, wanted: int = -1
) -> tuple[int, FileLock]:
    """Claim a number among the processes of one role, by the lock ``RUN_DIR/<role>-<index>.lock``.

    Args:
        run_dir: where the processes of the cluster meet; made if need be.
        role: whose numbers.
        count: how many there are; the numbers are 0..count-1.
        wanted: the number to claim, or -1 for the lowest that is free.

    Returns:
        The number, and the lock that keeps it until it is released or the process ends.

    Raises:
        HeldElsewhere: the wanted number, or every one, is taken. Retryable: a process that was just
            killed may take a moment to go.
        ConfigError: ``run_dir`` cannot be used.
    """
    make_folder(run_dir)
    path = run_dir
    for index in range(count) if wanted == -1 else (wanted,):
        path = index_lock_path(run_dir, role, index)
        if lock := try_lock(path):
            _advance(lock)
            return index, lock
    what = f"{role} index {wanted}" if wanted != -1 else f"each of the {count} {role} indices"
    raise HeldElsewhere(f"{what} in {run_dir}", holder=holder(path))


def _advance(lock: FileLock) -> Generation:
    """Store the next generation in a lock; let go of it if the disk does not take that."""
    try:
        generation = Generation(lock.number() + 1)
        lock.write(generation)
    except BaseException:
        lock.release()
        raise
    return generation
