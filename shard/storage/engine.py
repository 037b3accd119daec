"""A shard's storage: its open databases, at most so many, and what makes their commits last."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, cast

import apsw
import structlog

from common.errors import Unavailable
from common.ids import ObjectId, Partition
from common.settings import Settings
from shard.storage.alarm_watch import AlarmWatch, NoAlarms
from shard.storage.commit_log import CommitLog, Durability, LocalCommitLog
from shard.storage.database import Database
from shard.storage.disk import Disk
from shard.storage.history import History
from shard.storage.layout import database_path
from shard.storage.standstill import Standstills
from shard.storage.syncer import Syncer

log = structlog.get_logger(__name__)

CLOSE_UNCHECKPOINTED_PART: Final = 8
"""A database is closed without a checkpoint if its log is shorter than this part of the limit."""


class User(Protocol):
    """Who uses an open database: one object's storage."""

    @property
    def idle(self) -> bool:
        """The database can be closed now; the next use opens it again."""


def wall_ms() -> int:
    """Return milliseconds since 1970."""
    return int(time.time() * 1000)


class StorageEngine:
    """Opens and closes the databases of one shard.

    Args:
        settings: section Storage, and ``data_dir``.
        generation_of: the generation at which this process owns a partition, ``None`` if it does
            not.
        epoch: names the time during which generations rise: the machine's boot.
        loop: the shard's.
        disk: see :mod:`shard.storage.disk`.
        now_ms: the wall clock, milliseconds since 1970.

    Attributes:
        keeps_history: states can be gone back to (PITR_RETENTION_H).
        retention_ms: for how long.
        log: where commits become durable.
        syncer: runs what blocks.
        alarms: told of alarms.
    """

    def __init__(
        self,
        settings: Settings,
        generation_of: Callable[[Partition], int | None],
        epoch: str,
        loop: asyncio.AbstractEventLoop,
        disk: Disk | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.settings = settings
        self.now_ms = now_ms
        self.keeps_history = settings.pitr_retention_h > 0
        self.retention_ms = int(settings.pitr_retention_h * 3_600_000)
        self.generation_of = generation_of
        self.epoch = epoch
        self.durability = cast("Durability", settings.durability)
        self.syncer = Syncer(loop, settings.sync_threads)
        self.log: CommitLog = LocalCommitLog(self.syncer, generation_of)
        self.alarms: AlarmWatch = NoAlarms()
        self.disk = disk or Disk()
        with suppress(OSError):  # DATA_DIR may be new; what is above it may not be ours to read
            self.disk.sync_way(os.path.abspath(settings.data_dir), 2)
        self._loop = loop
        self._open: OrderedDict[str, tuple[Database, User | None]] = OrderedDict()
        self._restoring: set[str] = set()
        self._moving: dict[str, Partition] = {}
        self._returns: dict[str, list[Callable[[], None]]] = {}
        self._standstills = Standstills()

    @property
    def open_databases(self) -> int:
        """How many are open."""
        return len(self._open)

    def open(self, unique_key: str, object_id: ObjectId, user: User) -> Database:
        """Open an object's database, or take the open one over; may close others.

        Raises:
            apsw.Error, OSError: it cannot be opened.
        """
        path = self.path_of(unique_key, object_id)
        if path in self._restoring:
            raise OSError(errno.EBUSY, "its file was deleted, and is being put back")
        known = self._open.get(path)
        if known is not None and known[0].is_open:
            database = known[0]
            database.wait()
        else:
            self._make_room()
            settings = self.settings
            history = History(path, self.disk, settings.pitr_max_bytes, self.retention_ms)
            database = Database(path, self.disk, settings.database_cache_bytes, history)
            database.right = object_id.partition, self.generation_of(object_id.partition)
        self._open[path] = (database, user)
        return database

    def path_of(self, unique_key: str, object_id: ObjectId) -> str:
        """The path of an object's database."""
        return database_path(self.settings.data_dir, unique_key, object_id)

    def exists(self, unique_key: str, object_id: ObjectId) -> bool:
        """Whether the object has a file."""
        path = self.path_of(unique_key, object_id)
        return path in self._open or path in self._restoring or os.path.exists(path)

    def is_open(self, path: str) -> bool:
        """Whether that file is open. May be asked from any thread."""
        return path in self._open

    def release(self, database: Database) -> None:
        """Close it, after a checkpoint if its log is long; unless somebody uses it again."""
        if not self._is_left(database) or database.busy:
            return
        if self.syncer.is_waiting_for(database.wal):
            return  # whoever waits for that commit releases it
        limit = self.settings.wal_checkpoint_bytes // CLOSE_UNCHECKPOINTED_PART
        if database.wal_bytes < limit:
            self.close(database)
        else:
            self.checkpoint(database, _nothing)

    def checkpoint(self, database: Database, done: Callable[[BaseException | None], None]) -> None:
        """Move its log into the database, on a thread. No statement may be under way.

        While its partition stands still it is put off.
        """
        if self.stands_still(database):
            done(None)
            if self._is_left(database):
                self.close(database)
            return
        database.lend()
        self._moving[database.path] = database.right[0]

        def told(error: BaseException | None) -> None:
            self._moving.pop(database.path, None)
            if error is not None:
                log.warning("storage.checkpoint_failed", file=database.path, error=str(error))
                # SQLite takes the log for moved, and would begin it anew at the next commit, while
                # the database file may not be on disk. Opened again, it reads all of the log.
                self.close(database)
            done(error)
            if self._is_left(database):
                self.close(database)
            for callback in self._returns.pop(database.path, ()):
                callback()

        self.syncer.run(partial(database.checkpoint, self.now_ms()), told)

    def stands_still(self, database: Database) -> bool:
        """Its file must not be written to now: see :mod:`shard.storage.standstill`."""
        return self._standstills.holds(database.right[0], self._loop.time())

    async def begin_standstill(self, partition: Partition, seconds: float) -> str:
        """Keep the databases of a partition from being written to; the token of the lease.

        Raises:
            Unavailable: the partition is another's.
        """
        generation = self.generation_of(partition)
        if generation is None:
            raise Unavailable(f"partition {partition} is not this process's")
        token = self._standstills.begin(partition, generation, seconds, self._loop.time())
        while partition in self._moving.values():  # noqa: ASYNC110 - rare, and short
            await asyncio.sleep(0.002)
        return token

    def renew_standstill(self, token: str, seconds: float) -> bool:
        """Let it go on; ``False`` if it has ended."""
        now_s = self._loop.time()
        return self._standstills.renew(token, self._generation_for(token), seconds, now_s)

    def end_standstill(self, token: str) -> bool:
        """End it; whether it had held until now."""
        return self._standstills.end(token, self._generation_for(token), self._loop.time())

    def _generation_for(self, token: str) -> int | None:
        partition = self._standstills.partition_of(token)
        return None if partition is None else self.generation_of(partition)

    def when_back(self, unique_key: str, object_id: ObjectId, callback: Callable[[], None]) -> bool:
        """Have *callback* called once no thread works on an object's database, if one does now.

        To open it before would make the event loop wait for the disk, and all objects with it.
        """
        if not self._moving:
            return False
        path = self.path_of(unique_key, object_id)
        if path not in self._moving:
            return False
        self._returns.setdefault(path, []).append(callback)
        return True

    def leave(self, database: Database) -> None:
        """Its object has left memory; :meth:`release` follows."""
        if self._is_known(database):
            self._open[database.path] = (database, None)

    def forget(self, database: Database) -> None:
        """Nobody may use it any more; :meth:`close` or :meth:`abandon` follows."""
        if self._is_known(database):
            del self._open[database.path]

    def close(self, database: Database) -> None:
        """Close it now."""
        self.forget(database)
        if self._is_ours(database) and database.displaced:
            self._put_back(database)
        else:
            database.close()

    def abandon(self, database: Database) -> None:
        """Close it after a failure, and drop what may not have reached the disk."""
        self.forget(database)
        if not self._is_ours(database):
            database.close()
        elif database.displaced:
            self._put_back(database)
        else:
            try:
                database.abandon()
            except OSError as error:
                log.error("storage.repair_failed", file=database.path, error=str(error))

    def _is_ours(self, database: Database) -> bool:
        """The files are not another owner's by now: that one may have changed them."""
        partition, generation = database.right
        return self.generation_of(partition) == generation

    def is_busy_in(self, partitions: Container[Partition]) -> bool:
        """A thread works on a database of one of these, or waits for its disk."""
        return any(
            database.busy or self.syncer.is_waiting_for(database.wal)
            for database in self._databases_in(partitions)
        )

    def let_go(self, partitions: Container[Partition]) -> None:
        """Close every database of these: they go to another process."""
        for database in self._databases_in(partitions):
            self.close(database)

    def _databases_in(self, partitions: Container[Partition]) -> list[Database]:
        return [database for database, _ in self._open.values() if database.right[0] in partitions]

    def shut(self) -> None:
        """Wait for what is under way, and close everything."""
        self.syncer.close()
        for database, _ in list(self._open.values()):
            if self._is_ours(database) and database.displaced:
                try:
                    database.give_up()
                    database.put_back()
                except (apsw.Error, OSError) as error:
                    log.error("storage.restore_failed", file=database.path, error=str(error))
            database.close()
        self._open.clear()

    async def drain(self, timeout_s: float) -> None:
        """Wait until every commit is durable, at most *timeout_s* seconds."""
        deadline = self._loop.time() + timeout_s
        while self.syncer.busy and self._loop.time() < deadline:  # noqa: ASYNC110 - only to stop
            await asyncio.sleep(0.002)

    def _put_back(self, database: Database) -> None:
        """Its files were deleted: write them anew before it is closed."""
        path = database.path
        self._restoring.add(path)
        database.give_up()

        def told(error: BaseException | None) -> None:
            self._restoring.discard(path)
            if error is not None:
                log.error("storage.restore_failed", file=path, error=str(error))
            else:
                log.warning("storage.restored", file=path, reason="it was deleted or replaced")

        self.syncer.run(database.put_back, told)

    def _is_known(self, database: Database) -> bool:
        known = self._open.get(database.path)
        return known is not None and known[0] is database

    def _is_left(self, database: Database) -> bool:
        return self._is_known(database) and self._open[database.path][1] is None

    def _make_room(self) -> None:
        """Close one that has not been used lately, if there are too many."""
        excess = len(self._open) + 1 - self.settings.max_open_databases
        looked = 0
        while excess > 0 and looked < 2 * len(self._open):
            looked += 1
            path, (database, user) = next(iter(self._open.items()))
            if database.busy or (user is not None and (database.used or not user.idle)):
                database.used = False
                self._open.move_to_end(path)
            else:
                self.close(database)
                excess -= 1


def _nothing(error: BaseException | None) -> None:
    """Whether it worked is logged."""
