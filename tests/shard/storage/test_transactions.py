"""Section 4.4: transactions; section 3.4 O1: what is one commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.shard.storage.support import Home
from workers import JsException
from workers.storage import DurableObjectStorage as Storage


class Stop(Exception):  # noqa: N818 - what an app might raise
    pass


def test_a_transaction_gives_its_closures_value_and_all_calls(home: Home) -> None:
    async def body(s: Storage) -> Any:
        async def closure(txn: Any) -> Any:
            await txn.put({"a": 1, "b": 2, "c": 3})
            await txn.setAlarm(2_000_000_000_000)
            await asyncio.sleep(0)
            return [
                await txn.get("a"), await txn.get(["b"]), await txn.delete("c"),
                list(await txn.list()), await txn.getAlarm(), await txn.deleteAlarm(),
            ]  # fmt: skip

        return await s.transaction(closure), await s.transaction(lambda txn: 7)

    assert home.run(body) == ([1, {"b": 2}, True, ["a", "b"], 2_000_000_000_000, None], 7)


def test_what_raises_is_undone_and_passed_on(home: Home) -> None:
    async def body(s: Storage) -> Any:
        await s.put("before", 1)

        async def closure(txn: Any) -> None:
            await txn.put("a", 1)
            s.kv.put("b", 1)
            s.sql.exec("CREATE TABLE t (a)")
            await s.setAlarm(2_000_000_000_000)
            await asyncio.sleep(0)
            raise Stop

        with pytest.raises(Stop):
            await s.transaction(closure)
        return dict(await s.list()), await s.getAlarm()

    assert home.run(body) == ({"before": 1}, None)
    assert home.lives == 1
    home.restart()
    assert home.run(lambda s: s.kv.get("before")) == 1


def test_rollback_can_be_repeated_and_ends_the_calls(home: Home) -> None:
    async def body(s: Storage) -> Any:
        async def closure(txn: Any) -> str:
            await txn.put("a", 1)
            txn.rollback()
            txn.rollback()
            with pytest.raises(JsException, match=r"Cannot get\(\) on rolled back transaction"):
                txn.get("a")
            with pytest.raises(JsException, match=r"Cannot getAlarm\(\) on rolled back"):
                txn.get_alarm()
            return "value"

        return await s.transaction(closure), await s.get("a")

    assert home.run(body) == ("value", None)


def test_a_transaction_cannot_be_used_after_its_end(home: Home) -> None:
    async def body(s: Storage) -> None:
        kept: list[Any] = []
        await s.transaction(kept.append)
        with pytest.raises(JsException, match=r"Cannot call put\(\) on transaction that has"):
            kept[0].put("a", 1)
        with pytest.raises(JsException, match=r"Cannot call rollback\(\) on transaction that"):
            kept[0].rollback()

    home.run(body)


def test_nested_transactions_are_undone_on_their_own(home: Home) -> None:
    async def body(s: Storage) -> Any:
        async def inner(txn: Any) -> None:
            await txn.put("inner", 1)
            raise Stop

        async def closure(outer: Any) -> None:
            await outer.put("outer", 1)
            with pytest.raises(Stop):
                await s.transaction(inner)
            await s.transaction(lambda txn: txn.put("second", 1))

        await s.transaction(closure)
        return dict(await s.list())

    assert home.run(body) == {"outer": 1, "second": 1}


def test_an_outer_transaction_cannot_be_rolled_back_from_inside(home: Home) -> None:
    async def body(s: Storage) -> None:
        async def closure(outer: Any) -> None:
            def inner(txn: Any) -> None:
                with pytest.raises(JsException, match="Cannot roll back an outer transaction"):
                    outer.rollback()

            await s.transaction(inner)

        await s.transaction(closure)

    home.run(body)


def test_transactions_queue_and_keep_other_events_out(home: Home) -> None:
    seen: list[str] = []

    async def one(s: Storage, name: str) -> None:
        async def closure(txn: Any) -> None:
            seen.append(f"{name} begins")
            await asyncio.sleep(0.002)
            seen.append(f"{name} ends")

        await s.transaction(closure)

    first = home.start(lambda s: one(s, "a"))
    second = home.start(lambda s: one(s, "b"))
    third = home.start(lambda s: seen.append("event"))
    home.until(lambda: first and second and third)
    assert seen == ["a begins", "a ends", "b begins", "b ends", "event"] or seen == [
        "a begins", "a ends", "event", "b begins", "b ends",
    ]  # fmt: skip


def test_writes_before_it_are_not_undone_with_it(home: Home) -> None:
    async def body(s: Storage) -> Any:
        s.put("before", 1)

        def closure(txn: Any) -> None:
            txn.put("a", 1)
            txn.rollback()

        await s.transaction(closure)
        return dict(await s.list())

    assert home.run(body) == {"before": 1}


def test_transaction_sync(home: Home) -> None:
    def body(s: Storage) -> Any:
        s.kv.put("before", 1)

        def closure() -> None:
            s.kv.put("a", 1)
            s.sql.exec("CREATE TABLE t (a)")
            s.setAlarm(2_000_000_000_000)
            s.transactionSync(lambda: s.kv.put("nested", 1))
            raise Stop

        with pytest.raises(Stop):
            s.transactionSync(closure)

        def outer() -> int:
            s.kv.put("outer", 1)
            with pytest.raises(Stop):
                s.transactionSync(closure)
            return 5

        return s.transactionSync(outer), dict(s.kv.list()), s.getAlarm().send

    value, left, _ = home.run(body)
    assert (value, left) == (5, {"before": 1, "outer": 1})
    assert home.run(lambda s: s.getAlarm()) is None


def test_transaction_sync_inside_a_transaction_is_undone_with_it(home: Home) -> None:
    async def body(s: Storage) -> Any:
        def closure(txn: Any) -> None:
            s.transactionSync(lambda: s.kv.put("a", 1))
            txn.rollback()

        await s.transaction(closure)
        return s.kv.get("a")

    assert home.run(body) is None


def test_an_async_callback_of_transaction_sync_is_covered_up_to_its_first_await(home: Home) -> None:
    async def body(s: Storage) -> Any:
        async def callback() -> str:
            s.kv.put("a", 1)
            return "later"

        return await s.transactionSync(callback)

    assert home.run(body) == "later"


def test_a_read_cursor_in_an_undone_transaction(home: Home) -> None:
    home.run(lambda s: s.sql.exec("CREATE TABLE t (a)").toArray())

    def body(s: Storage) -> Any:
        s.sql.exec("INSERT INTO t VALUES (1), (2)")

        def closure() -> None:
            cursor = s.sql.exec("SELECT a FROM t")
            cursor.next()
            s.sql.exec("CREATE TABLE u (a)")
            cursors.append(cursor)
            raise Stop

        cursors: list[Any] = []
        with pytest.raises(Stop):
            s.transactionSync(closure)
        with pytest.raises(JsException) as caught:
            cursors[0].toArray()
        return caught.value.message

    assert home.run(body) == (
        "abort due to ROLLBACK: SQLITE_ABORT (extended: SQLITE_ABORT_ROLLBACK)"
    )


def test_one_run_is_one_commit(home: Home) -> None:
    home.run(lambda s: s.kv.get("warm"))

    async def body(s: Storage) -> None:
        await s.put("a", 1)
        s.kv.put("b", 1)
        s.sql.exec("CREATE TABLE t (a)")
        await s.setAlarm(2_000_000_000_000)
        await s.get("a")

    assert commits(home, body) == 1


def test_each_suspension_ends_a_run(home: Home) -> None:
    async def body(s: Storage) -> None:
        await s.put("a", 1)
        await asyncio.sleep(0)
        await s.put("b", 1)

    assert commits(home, body) == 2
    assert commits(home, lambda s: s.kv.get("a")) == 0


def test_a_bare_callback_of_the_loop_commits_what_it_writes(home: Home) -> None:
    home.run(lambda s: home.loop.call_soon(s.kv.put, "a", 1).cancelled())
    home.settle()
    home.crash()
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_a_handlers_exception_does_not_undo_its_writes(home: Home) -> None:
    def body(s: Storage) -> None:
        s.kv.put("a", 1)
        raise Stop

    with pytest.raises(Stop):
        home.run(body)
    assert home.run(lambda s: s.kv.get("a")) == 1
    assert home.lives == 1


def test_a_reset_undoes_the_run_it_happens_in(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))

    def body(s: Storage) -> None:
        s.kv.put("a", 2)
        home.slot.reset(Stop())

    with pytest.raises(Stop):
        home.run(body)
    assert home.run(lambda s: s.kv.get("a")) == 1
    assert home.lives == 2


def commits(home: Home, body: Any) -> int:
    """How many commits *body* makes."""
    made = 0
    append = home.engine.log.append

    def counting(commit: Any, told: Any) -> None:
        nonlocal made
        made += 1
        append(commit, told)

    home.engine.log.append = counting  # type: ignore[method-assign]
    try:
        home.run(body)
        home.settle()
    finally:
        home.engine.log.append = append  # type: ignore[method-assign]
    return made
