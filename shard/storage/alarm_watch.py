"""What storage tells of alarms, and to whom: the protocol of :mod:`shard.alarms.keeper`."""

from __future__ import annotations

from typing import Any, Protocol

from common.ids import ObjectId, Partition
from shard.storage.syncer import SyncedFile

Change = Any
"""Stands for one change of an alarm that is committed and not durable yet."""


class AlarmWatch(Protocol):
    """Keeps the index of alarms never later than the objects' files."""

    def now_ms(self) -> int:
        """The wall clock, milliseconds since 1970."""

    def found(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> Change | None:
        """An object's file has been opened, and says this. Settled as a commit is."""

    def moving(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        """An alarm is about to be committed.

        Raises:
            OSError: the index does not take it: it must not be.
        """

    def committed(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> Change | None:
        """It was committed; :meth:`settled` or :meth:`lost` follows."""

    def unsynced(self, partition: Partition) -> tuple[SyncedFile, int] | None:
        """The index and its length, if it must be synced before a change of an alarm is told."""

    def settled(self, change: Change | None) -> None:
        """That change, if it is one, is durable."""

    def lost(self, change: Change | None) -> None:
        """It is unknown whether it is: the object's file has to be asked again."""


class NoAlarms:
    """Nobody rings them."""

    def now_ms(self) -> int:
        return 0

    def found(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        return None

    def moving(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        """See :meth:`AlarmWatch.moving`."""

    def committed(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        return None

    def unsynced(self, partition: Partition) -> None:
        return None

    def settled(self, change: Change | None) -> None:
        """See :meth:`AlarmWatch.settled`."""

    def lost(self, change: Change | None) -> None:
        """See :meth:`AlarmWatch.lost`."""
