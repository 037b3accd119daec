"""The commit log: where a commit goes to last, and how one learns that it does.

A commit is in its database when it is appended; the log decides when the world may know. With one
machine that is when the disk has it; with several, when enough of them have. Whoever waits sees
only the outcome.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from common.ids import Partition
from shard.storage.syncer import Synced, SyncedFile, Syncer
from shard.storage.wal import WalFile

Durability: TypeAlias = Literal["full", "normal"]


class Outcome(enum.Enum):
    """What became of a commit."""

    ACKED = "acked"
    """It lasts; it may be told."""
    FENCED = "fenced"
    """Somebody else owns the partition now: it does not count. The object must go."""
    UNKNOWN = "unknown"
    """It may last or not: nobody may be told, and the object must be read anew."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of one object.

    Attributes:
        wal: the log it was appended to.
        end_bytes: the length of the log with it.
        partition, generation: by whose right it was made.
        durability: ``"full"`` waits for the disk; ``"normal"`` survives the process, not the power.
        index: another file that has to be on disk, up to so many bytes, before it may be told.
    """

    wal: WalFile
    end_bytes: int
    partition: Partition
    generation: int
    durability: Durability
    index: tuple[SyncedFile, int] | None = None


Told: TypeAlias = Callable[[Outcome, BaseException | None], None]


class CommitLog(Protocol):
    """Tells when commits last."""

    def append(self, commit: Commit, told: Told) -> None:
        """Call *told* exactly once, on the event loop: during this call, or later.

        The commits of one log file are told in the order in which they were appended, but for those
        that wait for an index too; after one that its own file has lost, none of that file is
        acknowledged.
        """


class LocalCommitLog:
    """The log of one machine: a commit is acknowledged once the disk has it.

    Args:
        syncer: waits for the disk.
        generation_of: the generation at which this process owns a partition, ``None`` if it does
            not.
    """

    def __init__(self, syncer: Syncer, generation_of: Callable[[Partition], int | None]) -> None:
        self._syncer = syncer
        self._generation_of = generation_of

    def append(self, commit: Commit, told: Told) -> None:
        """See :meth:`CommitLog.append`."""
        if self._generation_of(commit.partition) != commit.generation:
            told(Outcome.FENCED, None)
            return
        if commit.durability == "normal":
            told(Outcome.ACKED, None)
            return

        def outcome(error: BaseException | None) -> None:
            if error is not None:
                told(Outcome.UNKNOWN, error)
            elif self._generation_of(commit.partition) != commit.generation:
                told(Outcome.FENCED, None)
            else:
                told(Outcome.ACKED, None)

        synced: Synced = outcome
        if commit.index is not None:
            synced = _after_both(outcome)
            self._syncer.sync(*commit.index, synced)
        self._syncer.sync(commit.wal, commit.end_bytes, synced)


def _after_both(synced: Synced) -> Synced:
    """Call *synced* at the second call, with the first error there was."""
    first: list[BaseException | None] = []

    def one(error: BaseException | None) -> None:
        if first:
            synced(first[0] or error)
        else:
            first.append(error)

    return one
