"""Section 4.1 and 4.2: key-value calls, asynchronous and synchronous."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.shard.storage.support import Home
from workers import DataCloneError, JsException
from workers.storage import DurableObjectStorage as Storage


def test_get_of_one_key_and_of_several(home: Home) -> None:
    async def body(s: Storage) -> Any:
        await s.put({"b": 2, "a": 1})
        return [
            await s.get("a"),
            await s.get("none"),
            list((await s.get(["b", "none", "a", "b"])).items()),
            await s.get([]),
        ]

    assert home.run(body) == [1, None, [("a", 1), ("b", 2)], {}]


def test_calls_take_effect_without_await_and_return_awaitables_of_any_use(home: Home) -> None:
    async def body(s: Storage) -> Any:
        s.put("a", 1)
        both = await asyncio.gather(s.get("a"), s.get("b"))
        task = asyncio.create_task(s.get("a"))
        return [*both, await task]

    assert home.run(body) == [1, None, 1]


def test_an_outcome_that_was_not_awaited_cannot_be_used_as_the_value(home: Home) -> None:
    def body(s: Storage) -> Any:
        with pytest.raises(TypeError, match="not awaited"):
            bool(s.get("a"))

    home.run(body)


def test_put_without_a_value(home: Home) -> None:
    def body(s: Storage) -> None:
        with pytest.raises(TypeError, match=r"put\(\) called with undefined value\."):
            s.put("a")
        with pytest.raises(TypeError, match=r"put\(\) may only be called with a single key-value"):
            s.put({"a": 1}, "x")
        with pytest.raises(TypeError, match=r"put\(\) may only be called with a single key-value"):
            s.put("a", 1, "x")  # type: ignore[arg-type]
        s.put({})
        s.put({"a": None}, {"allowUnconfirmed": True})
        assert list(s.kv.list()) == [["a", None]]

    home.run(body)


def test_keys_are_strings_or_become_some(home: Home) -> None:
    def body(s: Storage) -> None:
        for key, stored in (
            (5, "5"), (1.0, "1"), (None, "null"), (True, "true"), ("", ""), ("a\0b", "a\0b"),
            ("\ud800", "\ufffd"), ([1, 2], "1,2"),
        ):  # fmt: skip
            s.kv.put(key, stored)  # type: ignore[arg-type]
            assert s.kv.get(stored) == stored

    home.run(body)


def test_delete_of_one_key_and_of_several(home: Home) -> None:
    async def body(s: Storage) -> Any:
        await s.put({"a": 1, "b": 2, "c": 3})
        return [
            await s.delete("a"),
            await s.delete("a"),
            await s.delete(["b", "b", "none", "c"]),
            await s.delete([]),
            s.kv.delete("none"),
        ]

    assert home.run(body) == [True, False, 2, 0, False]


ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**53 + 1, 2**63, -(2**63), 2**64, -(2**200), 10**400,
    1.0, -0.0, 1e308, float("inf"), "", "tèxt\0", b"", b"\0\xff", [], {}, [1, [2, {"a": (3,)[0]}]],
    {"a": 1, 2: "b", (1, 2): 3}, {1, 2}, frozenset({"a"}), {frozenset({1})},
    Decimal("1.10"), uuid.UUID(int=7),
    dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=ZONE),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_exactly(home: Home, value: Any) -> None:
    home.run(lambda s: s.kv.put("k", value))
    home.restart()
    found = home.run(lambda s: s.kv.get("k"))
    assert found == value
    assert type(found) is type(value) or isinstance(found, dict)


def test_a_tuple_comes_back_as_a_list_and_a_dict_can_be_read_with_attributes(home: Home) -> None:
    home.run(lambda s: s.kv.put("k", {"a": (1, 2)}))
    assert home.run(lambda s: s.kv.get("k").a) == [1, 2]


class Thing:
    pass


@pytest.mark.parametrize("value", [Thing(), Thing, len, lambda: 1, object(), 1j, range(3)])
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(home: Home, value: Any) -> None:
    def body(s: Storage) -> Any:
        with pytest.raises(DataCloneError):
            s.put({"before": 1, "k": value})
        return list(s.kv.list())

    assert home.run(body) == []


def test_a_value_is_read_at_the_call(home: Home) -> None:
    def body(s: Storage) -> Any:
        value = [1]
        s.put("k", value)
        value.append(2)
        return s.kv.get("k")

    assert home.run(body) == [1]


def test_the_size_of_a_row_is_limited_and_the_object_survives(home: Home) -> None:
    def body(s: Storage) -> Any:
        with pytest.raises(JsException, match=r"^string or blob too big: SQLITE_TOOBIG$"):
            s.put({"a": 1, "b": b"x" * (8 << 20)})
        s.put("k", b"x" * ((8 << 20) - 100))
        s.put("y" * (5 << 20), 1)
        return [len(s.kv.get("k")), s.kv.get("a")]

    assert home.run(body) == [(8 << 20) - 100, None]
    assert home.lives == 1


def test_keys_are_in_the_order_of_code_points(home: Home) -> None:
    keys = ["", "a", "aa", "b", "\ud7ff", "\ue000", "\uffff", "\U0001f600", "\U0010ffff"]

    async def body(s: Storage) -> Any:
        await s.put(dict.fromkeys(reversed(keys), 1))
        return list(await s.list()), list(await s.list(reverse=True))

    assert home.run(body) == (keys, keys[::-1])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "a b ba bb c"),
        ({"start": "b"}, "b ba bb c"),
        ({"startAfter": "b"}, "ba bb c"),
        ({"start_after": "b"}, "ba bb c"),
        ({"end": "bb"}, "a b ba"),
        ({"prefix": "b"}, "b ba bb"),
        ({"prefix": "b", "start": "a"}, "b ba bb"),
        ({"prefix": "b", "startAfter": "a"}, "b ba bb"),
        ({"prefix": "b", "start": "ba"}, "ba bb"),
        ({"prefix": "b", "start": "c"}, ""),
        ({"prefix": "b", "end": "bb"}, "b ba"),
        ({"prefix": "b", "end": "z"}, "b ba bb"),
        ({"prefix": ""}, "a b ba bb c"),
        ({"start": "c", "end": "a"}, ""),
        ({"reverse": True}, "c bb ba b a"),
        ({"reverse": True, "start": "b", "limit": 2}, "c bb"),
        ({"limit": 1.5}, "a"),
        ({"limit": "2"}, "a b"),
        ({"limit": None, "start": None, "noCache": True, "unknown": 1}, "a b ba bb c"),
    ],
    ids=str,
)
def test_list_options(home: Home, options: dict[str, Any], found: str) -> None:
    async def body(s: Storage) -> Any:
        await s.put(dict.fromkeys(["a", "b", "ba", "bb", "c"], 1))
        both = list(await s.list(options)), list(await s.list(**options))
        return [*both, [key for key, _ in s.kv.list(options)]]

    assert home.run(body) == [found.split()] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "a", "startAfter": "a"}, "cannot be called with both start and startAfter"),
        ({"limit": 0}, "List limit must be positive."),
        ({"limit": -1}, "List limit must be positive."),
    ],
)
def test_list_options_that_are_refused(home: Home, options: Any, message: str) -> None:
    def body(s: Storage) -> None:
        with pytest.raises(TypeError, match=message):
            s.list(options)
        with pytest.raises(TypeError, match=message):
            s.kv.list(options)

    home.run(body)


def test_there_is_no_limit_of_128_keys(home: Home) -> None:
    async def body(s: Storage) -> Any:
        keys = [f"{number:04}" for number in range(1000)]
        await s.put(dict.fromkeys(keys, 1))
        return len(await s.get(keys[:500])), await s.delete(keys[:300]), len(await s.list())

    assert home.run(body) == (500, 300, 700)


def test_sync_put_needs_a_value(home: Home) -> None:
    def body(s: Storage) -> None:
        with pytest.raises(TypeError, match=r"parameter 2 is not of type 'Value'"):
            s.kv.put("a")

    home.run(body)


def test_a_sync_iterator_sees_what_happens_ahead_of_it(home: Home) -> None:
    async def body(s: Storage) -> Any:
        s.put({"a": 1, "b": 2, "c": 3})
        seen = []
        for key, _ in s.kv.list():
            seen.append(key)
            s.kv.delete(key)
            if key == "a":
                s.kv.put("bb", 1)
                s.kv.delete("c")
            await asyncio.sleep(0)
        return seen, list(s.kv.list())

    assert home.run(body) == (["a", "b", "bb"], [])


def test_a_second_sync_iterator_ends_the_first(home: Home) -> None:
    def body(s: Storage) -> None:
        s.put({"a": 1, "b": 2})
        first = s.kv.list()
        next(first)
        assert len(list(s.kv.list(limit=1))) == 1
        with pytest.raises(JsException, match="iterator was invalidated because a new call"):
            next(first)

    home.run(body)


def test_delete_all_leaves_nothing(home: Home) -> None:
    async def body(s: Storage) -> Any:
        await s.put("a", 1)
        await s.setAlarm(9_999_999_999_999 // 2)
        s.sql.exec("CREATE TABLE p (id INTEGER PRIMARY KEY)")
        s.sql.exec("CREATE TABLE c (p REFERENCES p(id)); CREATE INDEX i ON c(p)")
        s.sql.exec("CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE f USING fts5(x)")
        s.sql.exec("INSERT INTO p DEFAULT VALUES; INSERT INTO c VALUES (1)")
        cursor = s.sql.exec("SELECT 1 UNION SELECT 2")
        await s.deleteAll()
        with pytest.raises(JsException, match="query was canceled because the database was"):
            cursor.next()
        s.sql.exec("CREATE TABLE p (x)")
        s.sql.exec("DROP TABLE p")
        return [dict(await s.list()), await s.getAlarm(), s.sql.databaseSize]

    assert home.run(body) == [{}, None, 4096]
    tables = "SELECT name FROM sqlite_schema WHERE name NOT LIKE '\\_cf\\_%' ESCAPE '\\'"
    assert home.run(lambda s: s.sql.exec(tables).toArray()) == []


def test_delete_all_is_refused_in_a_transaction(home: Home) -> None:
    async def body(s: Storage) -> None:
        for refused in (
            s.transaction(lambda txn: txn.deleteAll()),
            s.transaction(lambda txn: s.deleteAll()),
        ):
            with pytest.raises(JsException, match=r"Cannot call deleteAll\(\) within a transact"):
                await refused
        with pytest.raises(JsException, match=r"Cannot call deleteAll\(\) within a transact"):
            s.transactionSync(s.deleteAll)

    home.run(body)
