"""``ctx.storage`` of one activation: its calls (see :class:`workers.host.StorageHost`).

Reads and writes are here; when they are committed is :mod:`shard.storage.session`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import apsw

from shard.promise import Promise
from shard.storage import key_value, meta
from shard.storage.bookmark import PROOF_BYTES, Bookmark, proof_of_object, read_bookmark
from shard.storage.commit_log import Durability
from shard.storage.restoration import write_wanted
from shard.storage.segment import HistoryDamaged
from shard.storage.session import StorageSession
from shard.storage.sql import Rows, delete_everything, size_of
from shard.storage.timeline import Timeline
from shard.storage.transactions import Transactions
from workers.convert import JsDict
from workers.exceptions import JsException
from workers.key_range import KeyRange
from workers.settled import DONE, Settled
from workers.storage import DurableObjectStorage

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.storage.engine import StorageEngine
    from workers.host import TransactionHost

T = TypeVar("T")

_NO_RECOVERY: Final = (
    "Point-in-time recovery is off: PITR_RETENTION_H=0. Set it to the number of hours that states "
    "are to be kept."
)
_NO_ALARM: Final = (
    "Your Durable Object class must have an alarm() handler in order to call setAlarm()"
)


class ObjectStorage:
    """The storage of one activation.

    Args:
        activation: whose.
        engine: opens its database.
        unique_key: of its namespace.
        durability: of its class.
        has_alarm: whether its class has an ``alarm()``.
        loop: the shard's.

    Attributes:
        api: what the app sees as ``ctx.storage``.
        session: the database, and what is under way in it.
    """

    __slots__ = ("_alarms", "_engine", "_has_alarm", "_transactions", "api", "session")

    def __init__(
        self,
        activation: Activation,
        engine: StorageEngine,
        unique_key: str,
        durability: Durability,
        has_alarm: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._engine = engine
        self._has_alarm = has_alarm
        self._alarms = engine.alarms
        self.session = StorageSession(activation, engine, unique_key, durability, loop)
        self._transactions = Transactions(self.session, self, activation, loop)
        self.api = DurableObjectStorage(self)

    @property
    def busy(self) -> bool:
        """A commit, or something that waits for one, keeps the object in memory."""
        return self.session.busy

    def end(self, error: BaseException) -> None:
        """The activation ends because of *error*."""
        self.session.end(error)

    # --- KeyValueHost --------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        database = self.session.ready()
        try:
            return key_value.get(database, key)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def get_many(self, keys: Sequence[str]) -> JsDict:
        database = self.session.ready()
        try:
            return key_value.get_many(database, keys)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def put(self, entries: Sequence[tuple[str, Any]], *, unconfirmed: bool) -> None:
        rows = key_value.encode(entries)
        database = self.session.ready()
        try:
            self.session.writes(confirmed=not unconfirmed)
            key_value.put(database, rows)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def delete(self, keys: Sequence[str], *, unconfirmed: bool) -> int:
        database = self.session.ready()
        try:
            self.session.writes(confirmed=not unconfirmed)
            return key_value.delete(database, keys)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def list(self, key_range: KeyRange) -> JsDict:
        database = self.session.ready()
        try:
            return JsDict(key_value.select(database, key_range, key_range.limit))
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def first(self, key_range: KeyRange) -> tuple[str, Any] | None:
        database = self.session.ready()
        try:
            found = key_value.select(database, key_range, 1)
        except apsw.Error as error:
            raise self.session.failed(error) from None
        return found[0] if found else None

    def get_alarm(self) -> int | None:
        database = self.session.ready()
        try:
            return self.session.alarm.get(database)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def set_alarm(self, due_ms: int | None, *, unconfirmed: bool) -> None:
        if due_ms is not None and not self._has_alarm:
            raise TypeError(_NO_ALARM)
        database = self.session.ready()
        if due_ms is not None:
            due_ms = max(due_ms, self._alarms.now_ms())
        try:
            self.session.writes(confirmed=not unconfirmed)
            self.session.alarm.set(database, due_ms)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    # --- for its alarm's handler ---------------------------------------------------------------

    def due_alarm(self) -> int | None:
        """When the stored alarm is due, whatever the object's code sees."""
        database = self.session.ready()
        try:
            return meta.alarm(database)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def begin_alarm(self, *, last: bool) -> None:
        """The handler begins; the alarm is out of sight. See :class:`StoredAlarm`."""
        self.session.alarm.begin(last=last)

    def end_alarm(self, *, remove: bool) -> None:
        """The handler has ended, in the running step; *remove* the alarm unless it was set anew.

        Raises:
            Exception: as for any write.
        """
        alarm = self.session.alarm
        if remove and alarm.hidden:
            self.set_alarm(None, unconfirmed=False)
        alarm.end()

    # --- SqlHost -------------------------------------------------------------------------------

    def exec(self, query: str, bindings: tuple[Any, ...]) -> Rows:
        return self.session.sql.exec(query, bindings)

    @property
    def database_size(self) -> int:
        database = self.session.ready()
        try:
            return size_of(database)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    # --- StorageHost ---------------------------------------------------------------------------

    def delete_all(self) -> None:
        if self.session.depth:
            raise JsException("Cannot call deleteAll() within a transaction", "Error")
        database = self.session.ready()
        self.session.sql.cancel_reading()
        try:
            self.session.writes(confirmed=True)
            delete_everything(database)
            self.session.alarm.set(database, None)
        except apsw.Error as error:
            raise self.session.failed(error) from None

    def transaction(self, closure: Callable[[TransactionHost], Any]) -> Awaitable[Any]:
        return self._transactions.run(closure)

    def transaction_sync(self, callback: Callable[[], T]) -> T:
        return self._transactions.run_sync(callback)

    def sync(self) -> Awaitable[None]:
        session = self.session
        if session.committed:
            return DONE
        promise: Promise[None] = Promise()
        session.gate.wait(
            lambda: promise.settle(None, None),
            lambda error: promise.settle(None, error),
            # A transaction() that waits for itself would wait for ever.
            open_run=session.open_run,
        )
        return promise

    def bookmark(self, at_ms: int | None) -> Awaitable[str]:
        now_ms = self._check_recovery()
        session = self.session
        if at_ms is None:
            if session.open_run:
                return self._at_commit(self._current)
            return self._durable(str(self._current()))
        if at_ms > now_ms:
            raise JsException(
                f"getBookmarkForTime(): {at_ms} (milliseconds since 1970) is in the future; "
                f"now is {now_ms}",
                "Error",
            )
        if at_ms < now_ms - self._engine.retention_ms:
            raise self._too_old(f"getBookmarkForTime(): {at_ms} (milliseconds since 1970) is")
        return self._durable(str(self._read_timeline(lambda timeline: timeline.at(at_ms))))

    def restore(self, bookmark: str) -> Awaitable[str]:
        now_ms = self._check_recovery()
        session = self.session
        if session.depth:
            raise JsException(
                "Cannot call onNextSessionRestoreBookmark() within a transaction", "Error"
            )
        wanted = read_bookmark(bookmark)
        place = self._read_timeline(lambda timeline: timeline.find(wanted))
        if place.replaced_ms is not None and (
            place.replaced_ms < now_ms - self._engine.retention_ms
        ):
            raise self._too_old(f"the bookmark {bookmark} is")
        token = secrets.token_bytes(PROOF_BYTES)
        database = session.ready()
        try:
            session.writes(confirmed=True)
            meta.want_restore(database, write_wanted(wanted, token))
        except apsw.Error as error:
            raise session.failed(error) from None
        return self._at_commit(lambda: self._current().undo(token))

    def _check_recovery(self) -> int:
        """The time."""
        if not self._engine.keeps_history:
            raise JsException(_NO_RECOVERY, "Error")
        return self._engine.now_ms()

    def _too_old(self, what: str) -> JsException:
        hours = self._engine.settings.pitr_retention_h
        return JsException(f"{what} older than {hours:g} hours (PITR_RETENTION_H)", "Error")

    def _current(self) -> Bookmark:
        return self._read_timeline(Timeline.current)

    def _read_timeline(self, read: Callable[[Timeline], T]) -> T:
        database = self.session.ready()
        try:
            return read(Timeline(database, proof_of_object(self.session.object_id)))
        except HistoryDamaged as error:
            raise JsException(f"the history of this object is damaged: {error}", "Error") from None
        except (apsw.Error, OSError) as error:
            raise self.session.failed(error) from None

    def _at_commit(self, bookmark: Callable[[], Bookmark]) -> Awaitable[str]:
        """The bookmark that there is when the open run has been committed, once that is durable."""
        found: list[str] = []
        self.session.at_commit.append(lambda: found.append(str(bookmark())))
        promise: Promise[str] = Promise()
        self.session.gate.wait(
            lambda: promise.settle(found[0], None),
            lambda error: promise.settle(None, error),
            open_run=True,
        )
        return promise

    def _durable(self, bookmark: str) -> Awaitable[str]:
        """The bookmark, once all that was committed is durable."""
        if self.session.committed:
            return Settled(bookmark)
        promise: Promise[str] = Promise()
        self.session.gate.wait(
            lambda: promise.settle(bookmark, None),
            lambda error: promise.settle(None, error),
            open_run=False,
        )
        return promise
