"""``txn``: what the closure of ``ctx.storage.transaction()`` is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from workers.exceptions import JsException
from workers.keyvalue import KeyValueCalls
from workers.settled import Settled

if TYPE_CHECKING:
    from workers.host import TransactionHost


class DurableObjectTransaction(KeyValueCalls):
    """One transaction under way: the calls of ``ctx.storage``, and :meth:`rollback`.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transaction
    """

    __slots__ = ("_transaction",)

    def __init__(self, host: TransactionHost) -> None:
        super().__init__(host)
        self._transaction = host

    def rollback(self) -> None:
        """Undo what the transaction has written so far and will write. May be called again.

        Raises:
            JsException: a transaction inside this one is still running, or this one has ended.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transaction
        """
        if self._transaction.ended:
            raise _ended("rollback")
        self._transaction.rollback()

    def deleteAll(self, *_: object, **__: object) -> NoReturn:
        """Not possible here.

        Raises:
            JsException: always.
        """
        raise JsException("Cannot call deleteAll() within a transaction", "Error")

    def _check(self, call: str) -> None:
        if self._transaction.ended:
            raise _ended(call)
        if self._transaction.rolled_back:
            raise JsException(f"Cannot {call}() on rolled back transaction", "Error")

    # The calls are inherited; they only ask first whether the transaction still is one.

    def get(
        self, key: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[Any]:
        """See :meth:`KeyValueCalls.get`."""
        self._check("get")
        return super().get(key, options, **keywords)

    def put(self, key: Any, *args: Any, **keywords: Any) -> Settled[None]:
        """See :meth:`KeyValueCalls.put`."""
        self._check("put")
        return super().put(key, *args, **keywords)

    def delete(
        self, key: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[Any]:
        """See :meth:`KeyValueCalls.delete`."""
        self._check("delete")
        return super().delete(key, options, **keywords)

    def list(self, options: Mapping[str, Any] | None = None, **keywords: Any) -> Settled[Any]:
        """See :meth:`KeyValueCalls.list`."""
        self._check("list")
        return super().list(options, **keywords)

    def getAlarm(
        self, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[int | None]:
        """See :meth:`KeyValueCalls.getAlarm`."""
        self._check("getAlarm")
        return super().getAlarm(options, **keywords)

    def setAlarm(
        self, scheduledTime: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[None]:
        """See :meth:`KeyValueCalls.setAlarm`."""
        self._check("setAlarm")
        return super().setAlarm(scheduledTime, options, **keywords)

    def deleteAlarm(
        self, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[None]:
        """See :meth:`KeyValueCalls.deleteAlarm`."""
        self._check("deleteAlarm")
        return super().deleteAlarm(options, **keywords)

    delete_all = deleteAll
    get_alarm = getAlarm
    set_alarm = setAlarm
    delete_alarm = deleteAlarm

    def __repr__(self) -> str:
        return "<DurableObjectTransaction>"


def _ended(call: str) -> JsException:
    return JsException(
        f"Cannot call {call}() on transaction that has already committed: "
        "did you move `txn` outside of the closure?",
        "Error",
    )
