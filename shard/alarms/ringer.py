"""Rings a shard's alarms: the driver of :mod:`shard.alarms.schedule`.

One timer of the event loop stands for all of them. The wall clock decides, and is looked at again
every ALARM_CLOCK_CHECK_S: it may have been set. Alarms are released a few at a time, so that
messages and requests get their turns in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from common.clock import Clock
from common.ids import ObjectId, Partition, partition_of
from shard.alarms import survey
from shard.alarms.alarm import Alarm
from shard.alarms.keeper import AlarmKeeper, Reading
from shard.alarms.retries import delay_s
from shard.alarms.run import AlarmRun
from shard.alarms.schedule import Schedule
from shard.storage import meta
from shard.storage.commit_log import Commit, Outcome
from shard.storage.database import Database
from shard.storage.engine import StorageEngine

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.namespaces import Namespace
    from shard.storage.object_storage import ObjectStorage

log = structlog.get_logger(__name__)

RELEASED_AT_ONCE: Final = 4
"""Alarms that are begun in one turn of the event loop."""
READ_AT_ONCE: Final = 16
"""Indexes that are read in one piece of work of a thread."""
SHORTEST_WAIT_S: Final = 0.001
ASK_AGAIN_S: Final = 1.0
"""When to ask a file again that has said another time, should nothing have corrected ours."""


class RingerHost(Protocol):
    """What the ringer needs of its shard."""

    storage: StorageEngine

    def find_namespace(self, unique_key: str) -> Namespace | None:
        """The namespace of that key, if the app has one."""

    def make_storage(self, activation: Activation) -> ObjectStorage:
        """Make the storage of an activation."""


class Ringer:
    """See the module.

    Args:
        host: the shard.
        unique_keys: of the app's namespaces.
        clock: the shard's.
        chance: 0 up to 1, for jitter.
        loop: the shard's.

    Attributes:
        keeper: knows the alarms.
        stopped: no alarm is begun any more.
        runs, failures: handlers that were begun, and those that have failed.
        lateness_s, longest_lateness_s: how late first runs began, in all and at most.
    """

    def __init__(
        self,
        host: RingerHost,
        unique_keys: Iterable[str],
        clock: Clock,
        chance: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        settings = host.storage.settings
        self.timeout_s = settings.alarm_timeout_s
        self.runs = 0
        self.failures = 0
        self.lateness_s = 0.0
        self.longest_lateness_s = 0.0
        self._host = host
        self._engine = host.storage
        self._unique_keys = list(unique_keys)
        self._clock = clock
        self._chance = chance
        self._loop = loop
        self._check_s = settings.alarm_clock_check_s
        self._schedule = Schedule(settings.max_running_alarms, settings.overdue_alarms_per_s)
        self.keeper = AlarmKeeper(
            self._engine,
            self._schedule,
            lambda key: host.find_namespace(key) is not None,
            clock,
            chance,
            self._changed,
        )
        self._engine.alarms = self.keeper
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._serving = False
        self.stopped = False
        self._surveying = False

    # --- partitions ----------------------------------------------------------------------------

    def take(self, partitions: Iterable[Partition]) -> None:
        """Those partitions are ours now: find their alarms, which ring once we :meth:`serve`.

        Their indexes are read on a thread; what rings or is set meanwhile is taken account of.
        """
        present = self.keeper.expect(partitions)
        for at in range(0, len(present), READ_AT_ONCE):
            readings: list[Reading] = []
            self._engine.syncer.run(
                partial(self._read, present[at : at + READ_AT_ONCE], readings),
                partial(self._loaded, readings),
            )

    def leave(self, partitions: Iterable[Partition]) -> None:
        """Those partitions are somebody else's now: none of their alarms is begun any more.

        To be called when none of their objects is in memory, and nothing of them waits for the
        disk. An alarm that was cut rings again in its next home.
        """
        self.keeper.leave(partitions)
        self._changed()

    def serve(self) -> None:
        """Ring."""
        self._serving = True
        self._changed()

    def stop(self) -> None:
        """Begin no alarm any more. What is set and deleted is still taken down."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Let the indexes go."""
        self.stop()
        self.keeper.close()

    def status(self) -> dict[str, Any]:
        """Figures for ``limpet status`` and the metrics."""
        return {
            "alarms": self._schedule.waiting + self._schedule.running,
            "alarms_running": self._schedule.running,
            "alarm_runs": self.runs,
            "alarm_failures": self.failures,
            "alarm_lateness_s": round(self.lateness_s, 6),
            "alarm_lateness_longest_s": round(self.longest_lateness_s, 6),
        }

    # --- RunHost -------------------------------------------------------------------------------

    def storage_of(self, activation: Activation) -> ObjectStorage:
        return activation.storage or self._host.make_storage(activation)

    def may_run(self, alarm: Alarm) -> bool:
        return self.keeper.holds(alarm)

    def is_due(self, due_ms: int) -> bool:
        return self._clock.wall_s() * 1000 >= due_ms

    def began(self, due_ms: int, retries: int) -> None:
        self.runs += 1
        if not retries:
            late_s = max(0.0, self._clock.wall_s() - due_ms / 1000)
            self.lateness_s += late_s
            self.longest_lateness_s = max(self.longest_lateness_s, late_s)

    def not_due(self, alarm: Alarm, due_ms: int | None) -> None:
        self._put_aside(alarm, due_ms)
        object_id = ObjectId(alarm.raw, alarm.name)
        self.keeper.settled(self.keeper.found(alarm.unique_key, object_id, due_ms))
        self._changed()

    def ended(self, alarm: Alarm, error: BaseException | None, *, counted: bool) -> float:
        self.failures += error is not None
        if not alarm.fresh:
            # Should it have gone well, the commit that is about to come removes the alarm.
            alarm.failures += 1
            alarm.retries += counted
        again_s = delay_s(max(alarm.failures, 1), self._chance())
        self._schedule.ended(alarm, self._clock.monotonic_s() + again_s)
        self.keeper.ended(alarm)
        self._changed()
        return again_s

    # --- ringing -------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self.stopped:
            return
        if self.keeper.incomplete and not self._surveying:
            self._surveying = True
            self._loop.call_soon(self._survey_next)
        if not self._serving:
            return
        wait_s = self._schedule.wait_s(self._wall_ms(), self._clock.monotonic_s())
        if wait_s is None:
            return
        if wait_s:
            wait_s = min(max(wait_s, SHORTEST_WAIT_S), self._check_s)
        at = self._loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        released = self._schedule.release(
            self._wall_ms(), self._clock.monotonic_s(), RELEASED_AT_ONCE
        )
        for alarm in released:
            self._ring(alarm)
        self._changed()

    def _wall_ms(self) -> float:
        return self._clock.wall_s() * 1000

    def _ring(self, alarm: Alarm) -> None:
        run = AlarmRun(alarm, self, self._loop)
        namespace = self._host.find_namespace(alarm.unique_key)
        try:
            if namespace is None:
                raise LookupError(f"no class has the key {alarm.unique_key!r}")
            slot = namespace.slots.get(alarm.raw)
            asleep = slot is None or slot.activation is None
            if asleep and not self._is_away(alarm) and not self._look(alarm):
                return
            object_id = namespace.ids.from_raw(alarm.raw, alarm.name)
        except Exception as error:
            run.fail(error)
            return
        namespace.slot(object_id).deliver(run)

    def _is_away(self, alarm: Alarm) -> bool:
        """Whether a thread works on the object's database: its slot waits for that, not we."""
        return self._engine.when_back(alarm.unique_key, ObjectId(alarm.raw, alarm.name), _nothing)

    def _look(self, alarm: Alarm) -> bool:
        """Whether a sleeping object's file agrees that its alarm is due; if not, it is corrected.

        So that no object is woken for nothing, and its name is known when it wakes.

        Raises:
            apsw.Error, OSError: the file cannot be read.
        """
        engine = self._engine
        object_id = ObjectId(alarm.raw, alarm.name)
        if not engine.exists(alarm.unique_key, object_id):
            self.not_due(alarm, None)
            return False
        database = engine.open(alarm.unique_key, object_id, _LOOKING)
        engine.leave(database)
        try:
            due_ms = meta.alarm(database)
            if alarm.name is None:
                alarm.name = meta.name(database)
        except BaseException:
            engine.abandon(database)
            raise
        if due_ms is not None and self.is_due(due_ms):
            self._loop.call_soon(engine.release, database)  # unless its object wakes and uses it
            return True
        self._put_aside(alarm, due_ms)
        change = self.keeper.found(alarm.unique_key, object_id, due_ms)
        self._settle(database, alarm, change)
        self._changed()
        return False

    def _put_aside(self, alarm: Alarm, due_ms: int | None) -> None:
        """Its object's file has said when it is due: not now."""
        if due_ms == alarm.due_ms:  # the wall clock has been set back meanwhile
            self._schedule.ended(alarm, None)
        else:
            self._schedule.ended(alarm, self._clock.monotonic_s() + ASK_AGAIN_S)

    def _settle(self, database: Database, alarm: Alarm, change: Alarm | None) -> None:
        """Correct the index once what the file says is known to be on disk."""
        engine, partition = self._engine, partition_of(alarm.raw)

        def told(outcome: Outcome, error: BaseException | None) -> None:
            if outcome is Outcome.ACKED:
                self.keeper.settled(change)
            else:
                self.keeper.lost(change)
            engine.release(database)

        commit = Commit(
            database.durable_log(),
            database.wal_bytes,
            partition,
            engine.generation_of(partition) or 0,
            engine.durability,
        )
        engine.log.append(commit, told)

    # --- indexes -------------------------------------------------------------------------------

    def _read(self, partitions: list[Partition], readings: list[Reading]) -> None:
        for partition in partitions:
            readings.append(self.keeper.read(partition))

    def _loaded(self, readings: list[Reading], error: BaseException | None) -> None:
        if error is not None:
            log.error("alarms.index_not_read", exc_info=error)
        for reading in readings:
            self.keeper.load(reading)
        self._changed()

    def _survey_next(self) -> None:
        """Make the next index anew that is not complete."""
        if self.stopped or not self.keeper.incomplete:
            self._surveying = False
            return
        found = survey.Survey(self.keeper.incomplete.pop())
        work = partial(
            survey.list_objects, self._engine.settings.data_dir, found, self._unique_keys
        )
        self._engine.syncer.run(work, partial(self._listed, found))

    def _listed(self, found: survey.Survey, error: BaseException | None) -> None:
        if error is not None:
            log.error("alarms.not_surveyed", partition=found.partition, error=str(error))
            self._loop.call_soon(self._survey_next)
        else:
            self._loop.call_soon(self._survey_on, found)

    def _survey_on(self, found: survey.Survey) -> None:
        if self.stopped:
            return
        if not found.left:
            self._surveyed(found)
            return
        entries: list[Any] = []

        def read() -> None:
            entries.extend(survey.read_some(found, self._engine.is_open))

        def done(error: BaseException | None) -> None:
            if error is not None:
                log.error("alarms.not_surveyed", partition=found.partition, exc_info=error)
                self._loop.call_soon(self._survey_next)
                return
            self.keeper.surveyed(found.partition, entries)
            self._loop.call_soon(self._survey_on, found)

        self._engine.syncer.run(read, done)

    def _surveyed(self, found: survey.Survey) -> None:
        if not found.unread:
            file = self.keeper.complete(found.partition)
            if file is not None:
                self._engine.syncer.sync(file, file.size, partial(_synced, found.partition))
        self._loop.call_soon(self._survey_next)


class _Looking:
    """Uses a database for a moment."""

    idle = True


_LOOKING: Final = _Looking()


def _nothing() -> None:
    """Nobody waits here."""


def _synced(partition: Partition, error: BaseException | None) -> None:
    if error is not None:
        log.error("alarms.index_not_written", partition=partition, error=str(error))
