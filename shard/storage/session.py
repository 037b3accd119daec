"""One activation's hold on its database: opening it, runs, commits, failures.

The first write of a run (the code between two suspensions) opens a transaction; the run's end
commits it, without waiting for the disk. What the object sends after a write waits in the output
gate until the commit is durable. If a commit fails, the object is reset: its memory may know what
its disk does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import apsw
import structlog

from common.errors import ObjectReset, Overloaded, StorageError, Unavailable
from common.ids import ObjectId
from shard.storage import meta
from shard.storage.alarm_watch import Change
from shard.storage.commit_log import Commit, Durability, Outcome
from shard.storage.database import Database
from shard.storage.failures import commit_failure, storage_failure
from shard.storage.output_gate import OutputGate
from shard.storage.restoration import restore
from shard.storage.segment import HistoryDamaged
from shard.storage.sql import SqlRunner
from shard.storage.sql_errors import app_error
from shard.storage.stored_alarm import StoredAlarm
from workers.exceptions import JsException

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.storage.engine import StorageEngine

log = structlog.get_logger(__name__)


class StorageSession:
    """See the module.

    Args:
        activation: whose.
        engine: opens its database.
        unique_key: of its namespace.
        durability: of its class.
        loop: the shard's.

    Attributes:
        gate: holds what the activation sends.
        depth: savepoints that are open.
        explicit: ``transaction()`` closures that run: no run's end commits meanwhile.
        alarm: the object's alarm, as its code sees it.
        checkpoint_wanted: called when the log is long.
        at_commit: called once, when the open run or transaction has been committed.
    """

    __slots__ = (
        "_activation",
        "_confirmed",
        "_database",
        "_durability",
        "_engine",
        "_generation",
        "_loop",
        "_open",
        "_pending",
        "_sql",
        "_unique_key",
        "alarm",
        "at_commit",
        "checkpoint_wanted",
        "depth",
        "explicit",
        "gate",
    )

    def __init__(
        self,
        activation: Activation,
        engine: StorageEngine,
        unique_key: str,
        durability: Durability,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.gate = OutputGate(engine.settings.output_buffer_bytes, self._overflowed)
        self.depth = 0
        self.explicit = 0
        self.alarm = StoredAlarm()
        self.checkpoint_wanted: Callable[[], None] = _nothing
        self.at_commit: list[Callable[[], None]] = []
        self._activation = activation
        self._engine = engine
        self._unique_key = unique_key
        self._durability = durability
        self._loop = loop
        self._database: Database | None = None
        self._sql: SqlRunner | None = None
        self._generation = -1
        self._open = False
        self._confirmed = False
        self._pending = 0

    # --- runs and commits ----------------------------------------------------------------------

    def writes(self, *, confirmed: bool = True) -> None:
        """A write comes: open a transaction if none is; let outputs wait if *confirmed*."""
        if not self._open:
            self.open_transaction()
        if confirmed and not self._confirmed:
            self._confirmed = True
            if not self.explicit:
                self._hold()

    def open_transaction(self) -> None:
        """Open the transaction of this run, or of ``transaction()``."""
        database = self.ready()
        database.run("BEGIN IMMEDIATE")
        self._open = True
        meta.write_identity(
            database, self._activation.slot.id.name, self._generation, self._engine.epoch
        )
        if self._engine.keeps_history:
            meta.write_stamp(database, self._engine.now_ms())
        if not self.explicit:
            self._activation.uncommitted = self.commit_if_open
            # Code that runs outside any handler (a bare callback of the loop) ends here.
            self._loop.call_soon(self.commit_if_open)

    def commit(self) -> None:
        """The run, or the transaction, has ended: commit what it has written."""
        self._activation.uncommitted = None
        self._open = False
        database = self._database
        assert database is not None
        confirmed, self._confirmed = self._confirmed, False
        alarm_changed = self.alarm.commits()
        if self._engine.generation_of(self._activation.slot.id.partition) != self._generation:
            self._lose(Unavailable("the object has moved to another process"))
            return
        change: Change | None = None
        try:
            if alarm_changed:
                appended, change = self._commit_alarm(database)
            else:
                appended = database.commit()
            if self.at_commit:
                self._tell_commit()
            if appended:
                if confirmed:
                    self._hold()
                self._append(database, change)
            else:
                self.gate.settled(self.gate.end_run())
                self._engine.alarms.settled(change)
        except (apsw.Error, OSError) as error:
            self.failed(error)

    def _commit_alarm(self, database: Database) -> tuple[bool, Change | None]:
        # The index first: if the process dies here, it only looks at the file too early.
        alarms, object_id = self._engine.alarms, self._activation.slot.id
        due_ms = meta.alarm(database)
        alarms.moving(self._unique_key, object_id, due_ms)
        appended = database.commit()
        return appended, alarms.committed(self._unique_key, object_id, due_ms)

    def _tell_commit(self) -> None:
        told, self.at_commit = self.at_commit, []
        for each in told:
            each()

    def forget_identity(self) -> None:
        """A rollback may have undone what the file was told of itself."""
        if self._database is not None:
            self._database.identity = self._database.stamped_ms = None

    @property
    def object_id(self) -> ObjectId:
        """Whose storage it is."""
        return self._activation.slot.id

    @property
    def committed(self) -> bool:
        """All that was written is durable."""
        return not self._open and not self._pending

    @property
    def open_run(self) -> bool:
        """The run has written what its end will commit."""
        return self._open and not self.explicit

    @property
    def sql(self) -> SqlRunner:
        """Runs the app's SQL on the open database."""
        self.ready()
        assert self._sql is not None
        return self._sql

    @property
    def busy(self) -> bool:
        """A commit or something that waits for one keeps the object in memory."""
        return self._open or self._pending > 0 or self.gate.held

    @property
    def idle(self) -> bool:
        """See :class:`shard.storage.engine.User`."""
        reading = self._sql is not None and self._sql.reading
        return not (self._open or self._pending or reading or self.depth)

    def end(self, error: BaseException) -> None:
        """The activation ends: undo what is not committed, drop what waits for the disk."""
        self.gate.fail(error)
        self._activation.uncommitted = None
        self._open = False
        database, self._database = self._database, None
        gives_up = self.alarm.goes_with(blameless=self._activation.blameless)
        if database is None or not database.is_open:
            if not gives_up:
                return
            try:
                database = self._engine.open(self._unique_key, self._activation.slot.id, self)
            except (apsw.Error, OSError) as failure:
                log.warning("storage.failed", file=self._path, error=str(failure))
                return
        # The next life has to wait for what this one has committed, before it tells of it.
        database.inherited = database.inherited or self._pending > 0
        database.identity = database.stamped_ms = None
        try:
            database.wait()
            if self._sql is not None:
                self._sql.cancel_reading()
            if database.in_transaction:
                database.run("ROLLBACK")
            if gives_up:
                self._give_up_alarm(database)
        except (apsw.Error, OSError) as failure:
            log.warning("storage.rollback_failed", file=database.path, error=str(failure))
            self._engine.forget(database)
            self._loop.call_soon(self._engine.abandon, database)
            return
        self._engine.leave(database)
        # Not here: a statement of this very connection may be on the stack.
        if not self._pending:
            self._loop.call_soon(self._engine.release, database)

    def _give_up_alarm(self, database: Database) -> None:
        """Delete the alarm although the activation is over: nobody tries it again."""
        database.run("BEGIN IMMEDIATE")
        meta.set_alarm(database, None)
        appended, change = self._commit_alarm(database)
        if appended:
            database.inherited = True
            self._append(database, change)

    def ready(self) -> Database:
        """The database; opened if need be.

        Raises:
            LimpetError: it cannot be opened, or the activation is over.
        """
        database = self._database
        if database is None or not database.is_open:
            database = self._connect()
        elif database.busy:
            database.wait()
        database.used = True
        return database

    def _connect(self) -> Database:
        activation = self._activation
        if activation.dead:
            raise ObjectReset("the object is not in memory any more: its storage cannot be used")
        object_id = activation.slot.id
        generation = self._engine.generation_of(object_id.partition)
        if generation is None:
            error: Exception = Unavailable("the object has moved to another process")
            self._lose(error)
            raise error
        self._generation = generation
        try:
            database = self._engine.open(self._unique_key, object_id, self)
            self._database = database
            self._sql = SqlRunner(database, self.writes, self.failed)
            if meta.is_fenced(database, generation, self._engine.epoch):
                error = Unavailable("the object's file was written by a later owner")
                self._lose(error)
                raise error
            self._restore_if_wanted(database)
        except (apsw.Error, OSError) as raised:
            raise self.failed(raised) from None
        change = self._engine.alarms.found(self._unique_key, object_id, meta.alarm(database))
        if database.inherited and self._durability == "full":
            # What an earlier life has committed may not be on disk yet, and can be read now.
            self._hold()
            database.inherited = False
            self._append(database, change)
        else:
            self._engine.alarms.settled(change)
        return database

    def _alarm_moves(self, due_ms: int | None) -> None:
        self._engine.alarms.moving(self._unique_key, self._activation.slot.id, due_ms)

    def _restore_if_wanted(self, database: Database) -> None:
        """Go back to what an earlier life asked for; its commit is waited for as an inherited one.

        Raises:
            StorageError: it is not there any more. The object is reset; its next life goes on with
                what there is.
        """
        wanted = meta.restore_wanted(database)
        if wanted is None:
            return
        slot = self._activation.slot
        identity = meta.Identity(slot.id.name, self._generation, self._engine.epoch)
        try:
            restore(database, wanted, slot.id, identity, self._engine.now_ms(), self._alarm_moves)
            error = None
        except (HistoryDamaged, JsException) as raised:
            error = StorageError(f"the object could not be restored: {database.path}: {raised}")
            database.run("BEGIN IMMEDIATE")
            meta.want_restore(database, None)
            database.commit()
        database.inherited = True
        if error is not None:
            self._lose(error)
            raise error
        log.info("storage.went_back", object=str(slot), file=database.path, to=wanted)

    def _hold(self) -> None:
        self.gate.hold()
        if self._activation.outputs is None:
            self._activation.gate_outputs(self.gate)

    def _append(self, database: Database, change: Change | None) -> None:
        run = self.gate.end_run()
        self._pending += 1
        partition = self._activation.slot.id.partition
        commit = Commit(
            database.durable_log(),
            database.wal_bytes,
            partition,
            self._generation,
            self._durability,
            None if change is None else self._engine.alarms.unsynced(partition),
        )
        self._engine.log.append(commit, partial(self._told, database, run, change))

    def _told(
        self,
        database: Database,
        run: int,
        change: Change | None,
        outcome: Outcome,
        error: BaseException | None,
    ) -> None:
        self._pending -= 1
        if outcome is not Outcome.ACKED:
            self._engine.abandon(database)
            self._engine.alarms.lost(change)
            self._lose(commit_failure(outcome, error, database.path))
            return
        self._engine.alarms.settled(change)
        if self._activation.dead:
            if not self._pending:
                self._engine.release(database)
            return
        self.gate.settled(run)
        if (
            database.wal_bytes >= self._engine.settings.wal_checkpoint_bytes
            and not self._engine.stands_still(database)
        ):
            self.checkpoint_wanted()

    def commit_if_open(self) -> None:
        """Commit what has been written outside a transaction, if anything has."""
        # A savepoint is open here only if a synchronous handler waits in it, and goes on later.
        if self._open and not self.explicit and not self.depth and not self._activation.dead:
            self.commit()

    def checkpoint(self, done: Callable[[], None]) -> bool:
        """Move the log into the database while nothing of the object runs; whether it began."""
        database = self._database
        if database is None or not database.is_open or self._pending or self._open:
            return False
        if self._sql is not None:
            self._sql.end_reading()
        self._engine.checkpoint(database, lambda error: done())
        return True

    # --- failures ------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> Exception:
        """What to raise for an error of SQLite; resets the object unless it is the app's own."""
        database = self._database
        path = database.path if database is not None else self._path
        failure = storage_failure(error, path)
        if failure is None and isinstance(error, apsw.Error):
            if database is None or not self._open or database.in_transaction:
                return app_error(error)
            # SQLite has undone the whole transaction, and with it earlier writes of this run.
            failure = ObjectReset(f"the object's transaction was undone: {path}: {error}")
        assert failure is not None
        self._lose(failure)
        return failure

    def _lose(self, error: Exception) -> None:
        slot = self._activation.slot
        if not self._activation.dead:
            log.error("storage.failed", object=str(slot), file=self._path, error=str(error))
            self._open = False
            self._activation.uncommitted = None
            self._activation.blameless = True
            slot.reset(error)

    def _overflowed(self) -> None:
        setting = self._engine.settings.output_buffer_bytes
        self._lose(
            Overloaded(
                f"more than {setting} bytes (OUTPUT_BUFFER_BYTES) wait for the object's disk"
            )
        )

    @property
    def _path(self) -> str:
        return self._engine.path_of(self._unique_key, self._activation.slot.id)


def _nothing() -> None:
    """Nobody makes checkpoints."""
