"""Keeps the alarms of a shard's partitions: in memory, and in the partitions' indexes.

For each alarm, the index says a time that is never later than what the object's file says, whatever
dies at whatever moment:

- *Earlier, or set*: the index is written before the object's commit, and on disk before that commit
  is told to anyone.
- *Later, or deleted*: the index is written once the commit is durable.

So an index may make a shard look at an object for nothing, and never makes it miss an alarm. What
its entry says is settled by the object's file, each time that is opened. An index that is missing,
damaged or was not finished is made anew from the objects' files; until then, what it has is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from common.clock import Clock
from common.ids import ObjectId, Partition, partition_of
from shard.alarms.alarm import Alarm
from shard.alarms.index_file import IndexFile, read_index
from shard.alarms.index_format import Contents, Entry, decode
from shard.alarms.retries import delay_s
from shard.alarms.schedule import Schedule
from shard.alarms.survey import has_objects
from shard.storage.engine import StorageEngine
from shard.storage.layout import alarm_index_path, partition_folder
from shard.storage.syncer import SyncedFile

log = structlog.get_logger(__name__)

REWRITE_FROM: Final = 256
"""An index with so many entries is written anew once three of four do not count any more."""


class Part:
    """The alarms of one partition.

    Attributes:
        alarms: by the raw id of their object.
        file: the index, once something has been written to it.
        found: the length and the number of entries of the index, if it was there and in order.
        loaded: the index has been read.
        complete: the index, as it is on disk, has all alarms.
        touched: while the objects' files are searched: those objects that have been opened since.
    """

    __slots__ = ("alarms", "complete", "file", "found", "loaded", "touched")

    def __init__(self) -> None:
        self.alarms: dict[bytes, Alarm] = {}
        self.file: IndexFile | None = None
        self.found: tuple[int, int] | None = None
        self.loaded = False
        self.complete = False
        self.touched: set[bytes] | None = None


Reading = tuple[Partition, Contents | None, int, bool]
"""What reading an index has brought: its contents and length, and whether there are objects."""


class AlarmKeeper:
    """See the module; and :class:`shard.storage.alarm_watch.AlarmWatch`.

    Args:
        engine: the shard's storage.
        schedule: what is to ring.
        knows: whether the app has a namespace of that key.
        clock: the shard's.
        chance: 0 up to 1, for jitter.
        changed: called when the schedule has changed.

    Attributes:
        incomplete: partitions whose index has to be made anew.
    """

    def __init__(
        self,
        engine: StorageEngine,
        schedule: Schedule,
        knows: Callable[[str], bool],
        clock: Clock,
        chance: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.incomplete: list[Partition] = []
        self._engine = engine
        self._data_dir = engine.settings.data_dir
        self._schedule = schedule
        self._knows = knows
        self._clock = clock
        self._chance = chance
        self._changed = changed
        self._parts: dict[Partition, Part] = {}

    # --- partitions ----------------------------------------------------------------------------

    def expect(self, partitions: Iterable[Partition]) -> list[Partition]:
        """Those partitions are ours now; those that have a folder, and so may have an index."""
        try:
            names = set(os.listdir(self._data_dir))
        except FileNotFoundError:
            names = set()
        present: list[Partition] = []
        for partition in partitions:
            part = self._parts[partition] = Part()
            if f"{partition:04d}" in names:
                present.append(partition)
            else:
                part.loaded = part.complete = True
        return present

    def read(self, partition: Partition) -> Reading:
        """Read an index; on a thread, or not."""
        try:
            data = read_index(alarm_index_path(self._data_dir, partition))
        except OSError as error:
            log.error("alarms.index_not_read", partition=partition, error=str(error))
            data = b""
        if data is None:
            return partition, None, 0, has_objects(self._data_dir, partition)
        return partition, decode(data), len(data), True

    def load(self, reading: Reading) -> None:
        """An index has been read: schedule what it says."""
        partition, contents, size, objects = reading
        part = self._parts.get(partition)
        if part is None or part.loaded:
            return
        part.loaded = True
        if contents is None:
            part.complete = not objects
        else:
            part.complete = contents.complete and not contents.damaged
            if contents.damaged:
                log.error("alarms.index_damaged", partition=partition, read=contents.records)
            else:
                part.found = size, contents.records
            for entry in contents.entries.values():
                self._remember(part, entry)
        if not part.complete:
            part.touched = set()
            self.incomplete.append(partition)

    def leave(self, partitions: Iterable[Partition]) -> None:
        """Those partitions are somebody else's now: nothing of them rings any more."""
        for partition in partitions:
            part = self._parts.pop(partition, None)
            if part is None:
                continue
            for alarm in part.alarms.values():
                self._schedule.drop(alarm)
            if part.file is not None:
                part.file.close()

    def close(self) -> None:
        """Leave all of them."""
        self.leave(list(self._parts))

    def holds(self, alarm: Alarm) -> bool:
        """It is set, and its partition is ours."""
        part = self._parts.get(partition_of(alarm.raw))
        return part is not None and part.alarms.get(alarm.raw) is alarm and alarm.due_ms is not None

    # --- AlarmWatch ----------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(self._clock.wall_s() * 1000)

    def found(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> Alarm | None:
        part = self._part(object_id.partition)
        if part.touched is not None:
            part.touched.add(object_id.raw)
        alarm = part.alarms.get(object_id.raw)
        if alarm is None:
            if due_ms is None:
                return None
            alarm = self._new(part, unique_key, object_id)
        if alarm.running or alarm.unsettled:
            return None
        if alarm.due_ms != due_ms:
            try:
                self._lower(part, alarm, due_ms)
            except OSError as error:
                self._not_written(alarm, error)
            self._apply(alarm, due_ms)
        alarm.unsettled += 1
        return alarm

    def moving(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        if due_ms is None:
            return
        part = self._part(object_id.partition)
        alarm = part.alarms.get(object_id.raw) or self._new(part, unique_key, object_id)
        if alarm.name is None:
            alarm.name = object_id.name
        try:
            self._lower(part, alarm, due_ms)
        except OSError:
            self._tidy(part, alarm)
            raise

    def committed(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> Alarm | None:
        part = self._part(object_id.partition)
        if part.touched is not None:
            part.touched.add(object_id.raw)
        alarm = part.alarms.get(object_id.raw)
        if alarm is None:
            return None  # there was none, and is none
        self._apply(alarm, due_ms)
        alarm.unsettled += 1
        return alarm

    def unsynced(self, partition: Partition) -> tuple[SyncedFile, int] | None:
        part = self._parts.get(partition)
        # One that was found may have been written by a process that died before it was synced.
        try:
            file = None if part is None else self._file(part, partition)
        except OSError as error:
            log.error("alarms.index_not_written", partition=partition, error=str(error))
            file = None
        if file is None or file.durable_bytes >= file.size:
            return None
        return file, file.size

    def settled(self, change: Alarm | None) -> None:
        if change is None:
            return
        change.unsettled -= 1
        part = self._part_of(change)
        if part is None or change.unsettled:
            return
        change.losses = 0
        if change.indexed_ms != change.due_ms:
            try:
                self._put(part, change, change.due_ms)
            except OSError as error:
                self._not_written(change, error)
        self._tidy(part, change)

    def lost(self, change: Alarm | None) -> None:
        if change is None:
            return
        change.unsettled -= 1
        part = self._part_of(change)
        if part is None:
            return
        if change.indexed_ms is not None:
            # Not later than the truth, whatever that is: the object's file will say.
            change.losses += 1
            until_s = self._clock.monotonic_s() + delay_s(change.losses, self._chance())
            self._schedule.delay(change, change.indexed_ms, until_s)
            self._changed()
        self._tidy(part, change)

    # --- what the objects' files say -----------------------------------------------------------

    def surveyed(self, partition: Partition, entries: Iterable[Entry]) -> None:
        """So it stands in the files of objects that were not in use."""
        part = self._parts.get(partition)
        if part is None or part.touched is None:
            return
        for entry in entries:
            alarm = part.alarms.get(entry.raw)
            if entry.raw in part.touched:
                continue
            if alarm is None:
                if entry.due_ms is not None:
                    self._remember(part, entry)
            elif alarm.due_ms != entry.due_ms:
                alarm.indexed_ms = entry.due_ms  # to be written with all the others
                self._apply(alarm, entry.due_ms)
                self._tidy(part, alarm)

    def complete(self, partition: Partition) -> IndexFile | None:
        """All files have been asked: write the index anew; it is to be synced."""
        part = self._parts.get(partition)
        if part is None or part.touched is None:
            return None
        part.touched = None
        part.complete = True
        try:
            return self._write(part, partition)
        except OSError as error:
            part.complete = False
            log.error("alarms.index_not_written", partition=partition, error=str(error))
            return None

    # --- inside --------------------------------------------------------------------------------

    def _part(self, partition: Partition) -> Part:
        part = self._parts.get(partition)
        if part is None:
            part = self._parts[partition] = Part()
        if not part.loaded:
            self.load(self.read(partition))  # it was not its turn yet
        return part

    def _part_of(self, alarm: Alarm) -> Part | None:
        part = self._parts.get(partition_of(alarm.raw))
        return part if part is not None and part.alarms.get(alarm.raw) is alarm else None

    def _new(self, part: Part, unique_key: str, object_id: ObjectId) -> Alarm:
        alarm = part.alarms[object_id.raw] = Alarm(unique_key, object_id.raw, object_id.name)
        return alarm

    def _remember(self, part: Part, entry: Entry) -> None:
        alarm = part.alarms[entry.raw] = Alarm(entry.unique_key, entry.raw, entry.name)
        alarm.indexed_ms = entry.due_ms
        self._apply(alarm, entry.due_ms)

    def _apply(self, alarm: Alarm, due_ms: int | None) -> None:
        if due_ms is None:
            self._schedule.drop(alarm)
        elif self._knows(alarm.unique_key):  # else its class may come back with other code
            self._schedule.set(alarm, due_ms)
        self._changed()

    def _lower(self, part: Part, alarm: Alarm, due_ms: int | None) -> None:
        indexed_ms = alarm.indexed_ms
        if due_ms is not None and (indexed_ms is None or due_ms < indexed_ms):
            self._put(part, alarm, due_ms)

    def _put(self, part: Part, alarm: Alarm, due_ms: int | None) -> None:
        before, alarm.indexed_ms = alarm.indexed_ms, due_ms
        try:
            file = self._file(part, partition_of(alarm.raw))
            if file is None or file.broken or _is_long(file, part):
                self._write(part, partition_of(alarm.raw))
            else:
                file.append(_entry(alarm))
        except OSError:
            alarm.indexed_ms = before
            raise

    def _file(self, part: Part, partition: Partition) -> IndexFile | None:
        if part.file is None and part.found is not None:
            path = alarm_index_path(self._data_dir, partition)
            try:
                part.file = IndexFile.open(path, self._engine.disk, *part.found)
            except FileNotFoundError:  # deleted under us: what was in it is known
                self._write(part, partition)
        return part.file

    def _write(self, part: Part, partition: Partition) -> IndexFile:
        os.makedirs(partition_folder(self._data_dir, partition), exist_ok=True)
        entries = [_entry(each) for each in part.alarms.values() if each.indexed_ms is not None]
        part.file = IndexFile.write(
            alarm_index_path(self._data_dir, partition),
            self._engine.disk,
            entries,
            complete=part.complete,
            instead_of=part.file,
        )
        return part.file

    def _tidy(self, part: Part, alarm: Alarm) -> None:
        if alarm.over and part.alarms.get(alarm.raw) is alarm:
            del part.alarms[alarm.raw]

    def _not_written(self, alarm: Alarm, error: OSError) -> None:
        # It says too early a time, and is looked at for nothing.
        log.warning("alarms.index_not_written", alarm=repr(alarm), error=str(error))

    def ended(self, alarm: Alarm) -> None:
        """Its run is over."""
        part = self._part_of(alarm)
        if part is not None:
            self._tidy(part, alarm)


def _entry(alarm: Alarm) -> Entry:
    return Entry(alarm.unique_key, alarm.raw, alarm.name, alarm.indexed_ms)


def _is_long(file: IndexFile, part: Part) -> bool:
    return file.records > REWRITE_FROM and file.records > 4 * len(part.alarms)
