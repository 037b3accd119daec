"""``ctx.storage``: what an object keeps on disk.

https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from workers.keyvalue import KeyValueCalls, is_unconfirmed, read_time
from workers.settled import DONE, Settled
from workers.sql import SqlStorage
from workers.sync_kv import SyncKvStorage
from workers.transaction import DurableObjectTransaction

if TYPE_CHECKING:
    from workers.host import StorageHost

T = TypeVar("T")


class DurableObjectStorage(KeyValueCalls):
    """An object's own durable storage: key-value, SQL and the alarm, in one database.

    Attributes:
        kv: the synchronous key-value calls, on the same data.
        sql: the SQL database.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/
    """

    __slots__ = ("_storage", "kv", "sql")

    def __init__(self, host: StorageHost) -> None:
        super().__init__(host)
        self._storage = host
        self.kv = SyncKvStorage(host)
        self.sql = SqlStorage(host)

    def deleteAll(self, options: Mapping[str, Any] | None = None, **keywords: Any) -> Settled[None]:
        """Delete all keys, all SQL tables and the alarm, atomically. Open SQL cursors end.

        Raises:
            JsException: called inside ``transaction()`` or ``transactionSync()``.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#deleteall
        """
        is_unconfirmed(options, keywords)
        self._storage.delete_all()
        return DONE

    def transaction(self, closure: Callable[[DurableObjectTransaction], Any]) -> Awaitable[Any]:
        """Run ``closure(txn)`` as one transaction: all of its writes are committed, or none.

        Everything that ``closure`` does through ``ctx.storage`` belongs to it, awaits included. No
        other event of the object runs meanwhile. If it raises, its writes are undone and the
        exception is passed on. Transactions queue; one inside another is undone on its own.

        Args:
            closure: a function or coroutine function; called on a later turn.

        Returns:
            an awaitable of what ``closure`` returns.

        Raises:
            TypeError: ``closure`` is not callable.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transaction
        """
        if not callable(closure):
            raise TypeError(
                f"transaction() takes a function, not {type(closure).__name__}: "
                "pass `closure`, not `closure()`"
            )
        return self._storage.transaction(lambda host: closure(DurableObjectTransaction(host)))

    def transactionSync(self, callback: Callable[[], T]) -> T:
        """Run ``callback`` as one transaction, synchronously.

        If it raises, its writes are undone. Of a coroutine function only the part before its first
        suspension belongs to the transaction.

        Raises:
            TypeError: ``callback`` is not callable.
            Exception: what ``callback`` raises.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transactionsync
        """
        if not callable(callback):
            raise TypeError(f"transactionSync() takes a function, not {type(callback).__name__}")
        return self._storage.transaction_sync(callback)

    def sync(self) -> Awaitable[None]:
        """Wait until all earlier writes are on disk. Other events may run meanwhile.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#sync
        """
        return self._storage.sync()

    # --- point in time -----------------------------------------------------------------------

    def getCurrentBookmark(self) -> Awaitable[str]:
        """Return a bookmark of the current state, what the running code has written included.

        Bookmarks compare as the states follow one another. Other events may run while this waits
        for the disk, as with :meth:`sync`. Inside ``transaction()`` it is the state before that.

        Raises:
            JsException: point-in-time recovery is off (PITR_RETENTION_H=0).

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#getcurrentbookmark
        """
        return self._storage.bookmark(None)

    def getBookmarkForTime(self, timestamp: float | dt.datetime) -> Awaitable[str]:
        """Return a bookmark of the last state that is not later than ``timestamp``.

        The time is in milliseconds since 1970, or a datetime (one without a zone is local time).
        When a commit was made is known to one second.

        Raises:
            TypeError: it is no time.
            JsException: recovery is off; the time is in the future or longer ago than
                PITR_RETENTION_H; or the history does not reach back so far (PITR_MAX_BYTES).

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#getbookmarkfortime
        """
        return self._storage.bookmark(read_time(timestamp))

    def onNextSessionRestoreBookmark(self, bookmark: str) -> Awaitable[str]:
        """Go back to that state when the object next starts; ``ctx.abort()`` has it do so now.

        Data, tables and alarm are then as they were. This is a write like any other: it lasts once
        it is awaited, and a later call replaces it. It cannot be made within a transaction.

        Returns:
            A bookmark of the state just before the object goes back, to undo that with.

        Raises:
            TypeError: ``bookmark`` is no text.
            JsException: recovery is off, ``bookmark`` is none, or the history does not have its
                state (any more).

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#onnextsessionrestorebookmark
        """
        return self._storage.restore(bookmark)

    delete_all = deleteAll
    transaction_sync = transactionSync
    get_current_bookmark = getCurrentBookmark
    get_bookmark_for_time = getBookmarkForTime
    on_next_session_restore_bookmark = onNextSessionRestoreBookmark

    def __repr__(self) -> str:
        return "<DurableObjectStorage>"
