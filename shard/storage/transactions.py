"""Transactions of one activation: ``transactionSync``, ``transaction``, and checkpoints.

``transactionSync`` is a savepoint in the run's own transaction. ``transaction`` is a transaction
that outlives suspensions: while its closure runs, it holds the input gate, as
``blockConcurrencyWhile`` does, so nothing else can write into it; nested ones are savepoints. What
the object sends meanwhile is not held until the commit, because the closure may wait for an answer.

A checkpoint holds the input gate too: no code of the object may use the connection while a thread
has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from shard.gate import Section, current_section
from shard.promise import Promise
from workers.convert import JsDict
from workers.exceptions import JsException
from workers.key_range import KeyRange

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.storage.session import StorageSession
    from workers.host import KeyValueHost

T = TypeVar("T")


class Transactions:
    """The transactions of one activation, and its checkpoints.

    Args:
        session: where they are made.
        calls: the key-value calls that a closure is given.
        activation: whose.
        loop: the shard's.
    """

    __slots__ = ("_activation", "_calls", "_checkpointing", "_loop", "_session")

    def __init__(
        self,
        session: StorageSession,
        calls: KeyValueHost,
        activation: Activation,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._session = session
        self._calls = calls
        self._activation = activation
        self._loop = loop
        self._checkpointing = False
        session.checkpoint_wanted = self._checkpoint_soon

    # --- transactionSync -----------------------------------------------------------------------

    def run_sync(self, callback: Callable[[], T]) -> T:
        """See :meth:`workers.host.StorageHost.transaction_sync`."""
        self.begin()
        try:
            result = callback()
        except BaseException:
            self.end(undo=True)
            raise
        self.end(undo=False)
        return result

    def begin(self) -> None:
        """Open a savepoint."""
        session = self._session
        database = session.ready()
        try:
            if not database.in_transaction:
                session.open_transaction()
            database.run(f"SAVEPOINT _cf_{session.depth + 1}")
        except apsw.Error as error:
            raise session.failed(error) from None
        session.depth += 1
        session.alarm.open_savepoint()

    def end(self, *, undo: bool) -> None:
        """Close the innermost savepoint; *undo* what was written since."""
        session = self._session
        depth = session.depth
        session.depth = depth - 1
        if self._activation.dead:
            return
        if undo:
            self.undo(depth)
        try:
            session.ready().run(f"RELEASE _cf_{depth}")
            session.alarm.close_savepoint()
        except apsw.Error as error:
            raise session.failed(error) from None

    def undo(self, depth: int) -> None:
        """Undo what was written since savepoint *depth*."""
        session = self._session
        try:
            session.ready().run(f"ROLLBACK TO _cf_{depth}")
        except apsw.Error as error:
            raise session.failed(error) from None
        session.alarm.undo(depth)
        session.forget_identity()

    # --- transaction ---------------------------------------------------------------------------

    def run(self, closure: Callable[[Any], Any]) -> Awaitable[Any]:
        """See :meth:`workers.host.StorageHost.transaction`."""
        promise: Promise[Any] = Promise()
        context = copy_context()
        section = Section(current_section.get(), lambda: None)

        def begin() -> None:
            if self._activation.dead:
                promise.settle(None, self._activation.death)
                return
            self._activation.gate.begin(section)
            transaction = _Transaction(self._session, self._calls, self)
            try:
                transaction.begin()
            except Exception as error:
                finish(None, error)
                return
            context.run(current_section.set, section)
            task = context.run(self._loop.create_task, _call(closure, transaction))
            task.add_done_callback(lambda task: closed(transaction, task))

        def closed(transaction: _Transaction, task: asyncio.Task[Any]) -> None:
            if self._activation.dead:
                task.cancelled() or task.exception()
                promise.settle(None, self._activation.death)
                return
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            try:
                transaction.end(undo=error is not None)
            except Exception as failure:
                error = failure
            if self._activation.dead:
                promise.settle(None, self._activation.death)
                return
            finish(None if error is not None else task.result(), error)

        def finish(value: Any, error: BaseException | None) -> None:
            promise.settle(value, error)
            self._end_section(section)

        section.begin = begin
        self._hold_events(section)
        return promise

    # --- checkpoints ---------------------------------------------------------------------------

    def _checkpoint_soon(self) -> None:
        """The log is long: move it into the database when nothing of the object runs."""
        if self._checkpointing or self._session.explicit:
            return
        self._checkpointing = True
        section = Section(None, lambda: None)

        def begin() -> None:
            if self._activation.dead:
                return
            self._activation.gate.begin(section)
            attempt()

        def attempt() -> None:
            if self._activation.dead:
                return
            if self._session.busy:
                # Commits are under way: nothing new is written, so they settle.
                self._session.gate.wait(again, lambda error: None, open_run=False)
            elif not self._session.checkpoint(done):
                done()

        def again() -> None:
            self._loop.call_soon(attempt)

        def done() -> None:
            self._checkpointing = False
            if not self._activation.dead:
                self._end_section(section)

        section.begin = begin
        self._hold_events(section)

    def _hold_events(self, section: Section) -> None:
        begins = self._activation.gate.block(section)
        self._activation.free = False
        if begins:
            self._loop.call_soon(section.begin)

    def _end_section(self, section: Section) -> None:
        following = self._activation.gate.finish(section)
        if following is not None:
            # Two turns later: whoever awaited this one goes on before the next one begins.
            self._loop.call_soon(self._loop.call_soon, following.begin)


class _Transaction:
    """One ``transaction()`` (see :class:`workers.host.TransactionHost`)."""

    __slots__ = ("_calls", "_depth", "_session", "_transactions", "ended", "rolled_back")

    def __init__(
        self, session: StorageSession, calls: KeyValueHost, transactions: Transactions
    ) -> None:
        self.ended = False
        self.rolled_back = False
        self._session = session
        self._calls = calls
        self._transactions = transactions
        self._depth = 0

    def begin(self) -> None:
        """Open it; what the object wrote before is committed first, if it is the outermost."""
        session = self._session
        if not session.explicit:
            session.commit_if_open()
        session.explicit += 1
        try:
            self._transactions.begin()
        except BaseException:
            session.explicit -= 1
            raise
        self._depth = session.depth

    def end(self, *, undo: bool) -> None:
        """Close it: commit, if it is the outermost."""
        session = self._session
        self.ended = True
        session.explicit -= 1
        self._transactions.end(undo=undo or self.rolled_back)
        if not session.explicit:
            session.commit()

    def rollback(self) -> None:
        """See :class:`workers.host.TransactionHost`."""
        if self._session.depth != self._depth:
            raise JsException(
                "Cannot roll back an outer transaction while a nested transaction is still "
                "running.",
                "Error",
            )
        self.rolled_back = True
        self._transactions.undo(self._depth)

    def get(self, key: str) -> Any:
        return self._calls.get(key)

    def get_many(self, keys: Sequence[str]) -> JsDict:
        return self._calls.get_many(keys)

    def put(self, entries: Sequence[tuple[str, Any]], *, unconfirmed: bool) -> None:
        self._calls.put(entries, unconfirmed=unconfirmed)

    def delete(self, keys: Sequence[str], *, unconfirmed: bool) -> int:
        return self._calls.delete(keys, unconfirmed=unconfirmed)

    def list(self, key_range: KeyRange) -> JsDict:
        return self._calls.list(key_range)

    def first(self, key_range: KeyRange) -> tuple[str, Any] | None:
        return self._calls.first(key_range)

    def get_alarm(self) -> int | None:
        return self._calls.get_alarm()

    def set_alarm(self, due_ms: int | None, *, unconfirmed: bool) -> None:
        self._calls.set_alarm(due_ms, unconfirmed=unconfirmed)


async def _call(closure: Callable[[Any], Any], transaction: _Transaction) -> Any:
    result = closure(transaction)
    return await result if hasattr(result, "__await__") else result
