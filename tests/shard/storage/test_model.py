"""Storage against plain values: any calls, nested transactions, sleeps, restarts and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.errors import ObjectReset
from tests.shard.storage.support import Home
from workers.storage import DurableObjectStorage as Storage

FAR_MS = 6_000_000_000_000
TABLE = "CREATE TABLE IF NOT EXISTS t (n)"

LAST = "\U0010ffff"
ALL_KEYS = [
    "", "\0", "a", "a\0", "a\0b", "aa", f"a{LAST}", "b", "\ud7ff", "\ud7ffa", "\ue000", "\uffff",
    "\U0001f600", LAST, f"{LAST}a", LAST + LAST,
]  # fmt: skip
KEYS = st.sampled_from(ALL_KEYS)
"""Few, so that they meet; around each border that prefixes have."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip
RANGES = st.fixed_dictionaries(
    {},
    optional={
        "start": KEYS, "end": KEYS, "prefix": KEYS, "reverse": st.booleans(),
        "limit": st.integers(1, 5),
    },
)  # fmt: skip
AFTER_RANGES = st.fixed_dictionaries(
    {"startAfter": KEYS}, optional={"prefix": KEYS, "end": KEYS, "reverse": st.booleans()}
)

LEAVES = st.one_of(
    st.tuples(st.just("put"), st.dictionaries(KEYS, VALUES, max_size=3)),
    st.tuples(st.just("delete"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("kv.put"), st.tuples(KEYS, VALUES)),
    st.tuples(st.just("kv.delete"), KEYS),
    st.tuples(st.just("setAlarm"), st.integers(FAR_MS, FAR_MS + 5)),
    st.tuples(st.just("deleteAlarm"), st.none()),
    st.tuples(st.just("insert"), st.integers(0, 5)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
)
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(
        st.sampled_from(["transaction", "transactionSync"]),
        st.tuples(
            st.lists(inner, max_size=3), st.sampled_from(["commit", "raise", "rollback"]),
            st.booleans(),
        ),
    ),
    max_leaves=6,
)  # fmt: skip
"""A write, or a transaction: what is in it, how it ends, whether it suspends."""


class Undo(Exception):  # noqa: N818 - what an app might raise
    pass


@dataclass
class Model:
    """What the storage should hold."""

    data: dict[str, Any] = field(default_factory=dict)
    alarm: int | None = None
    rows: list[int] = field(default_factory=list)

    def copy(self) -> Model:
        return Model(dict(self.data), self.alarm, list(self.rows))

    def put(self, entries: dict[str, Any]) -> None:
        self.data.update(entries)

    def delete(self, keys: list[str]) -> int:
        return sum(self.data.pop(key, self) is not self for key in keys)


def outcome(awaitable: Any) -> Any:
    """The value of a storage call, which has it already."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it suspended")


async def run_block(s: Storage, target: Any, model: Model, block: Any) -> Model:
    """Do one thing, through the storage or a transaction in it; the model afterwards."""
    kind, argument = block
    if kind not in ("transaction", "transactionSync"):
        write(s, target, model, block)
        return model
    steps, fate, suspends = argument
    inside = model.copy()

    async def within(txn: Any) -> None:
        nonlocal inside
        for step in steps:
            inside = await run_block(s, txn, inside, step)
            if suspends:
                await asyncio.sleep(0)
        if fate == "rollback":
            txn.rollback()
            assert typed(list(s.kv.list())) == typed(sorted(model.data.items()))
            s.kv.put("after", 1)  # it belongs to what was rolled back
        if fate == "raise":
            raise Undo

    def at_once() -> None:
        nonlocal inside
        for step in steps:
            inside = outcome(run_block(s, s, inside, synchronous(step)))
        if fate != "commit":
            raise Undo

    with contextlib.suppress(Undo):
        if kind == "transaction":
            await s.transaction(within)
        else:
            s.transactionSync(at_once)
    return inside if fate == "commit" else model


def synchronous(block: Any) -> Any:
    kind, argument = block
    return ("transactionSync", argument) if kind == "transaction" else block


def write(s: Storage, target: Any, model: Model, block: Any) -> None:
    kind, argument = block
    match kind:
        case "put":
            target.put(argument)
            model.put(argument)
        case "delete":
            assert outcome(target.delete(argument)) == model.delete(argument)
        case "kv.put":
            s.kv.put(*argument)
            model.put(dict([argument]))
        case "kv.delete":
            assert s.kv.delete(argument) == bool(model.delete([argument]))
        case "setAlarm":
            target.setAlarm(argument)
            model.alarm = argument
        case "deleteAlarm":
            target.deleteAlarm()
            model.alarm = None
        case "insert":
            s.sql.exec(TABLE)
            s.sql.exec("INSERT INTO t VALUES (?)", argument)
            model.rows.append(argument)
        case "remove":
            s.sql.exec(TABLE)
            removed = s.sql.exec("DELETE FROM t WHERE n = ?", argument).rowsWritten
            assert removed == model.rows.count(argument)
            model.rows[:] = [each for each in model.rows if each != argument]
        case _:
            raise AssertionError(kind)


def typed(value: Any) -> Any:
    """A value that equals another only if that is of the same types too."""
    if isinstance(value, dict):
        return "dict", [(key, typed(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return "list", [typed(each) for each in value]
    return type(value).__name__, repr(value)


def select(model: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [
        (key, model[key])
        for key in sorted(model)
        if key.startswith(options.get("prefix", ""))
        and key >= options.get("start", "")
        and ("startAfter" not in options or key > options["startAfter"])
        and ("end" not in options or key < options["end"])
    ]
    if options.get("reverse"):
        found.reverse()
    return found[: options.get("limit")]


class StorageMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.home = Home(Path(self.folder) / "data", wal_checkpoint_bytes=64 * 1024)
        self.model = Model()

    def teardown(self) -> None:
        self.home.close()
        shutil.rmtree(self.folder)

    @rule(blocks=st.lists(BLOCKS, min_size=1, max_size=4), wait=st.booleans())
    def write(self, blocks: list[Any], wait: bool) -> None:
        async def body(s: Storage) -> None:
            for block in blocks:
                self.model = await run_block(s, s, self.model, block)
                if wait:
                    await s.sync()

        self.home.run(body)

    @rule(blocks=st.lists(LEAVES, min_size=1, max_size=3), inside=st.booleans())
    def write_and_abort(self, blocks: list[Any], inside: bool) -> None:
        """What a reset cuts off is undone, as far as it was one step or one transaction."""

        def leaves(s: Storage) -> None:
            copy = self.model.copy()
            for block in blocks:
                write(s, s, copy, block)

        async def body(s: Storage) -> None:
            if inside:
                await s.transaction(lambda txn: cut(s))
            else:
                await cut(s)

        async def cut(s: Storage) -> None:
            leaves(s)
            if inside:
                await asyncio.sleep(0)
            self.home.slot.reset(ObjectReset("for the test"))

        with contextlib.suppress(ObjectReset):
            self.home.run(body)

    @rule(keys=st.lists(KEYS, max_size=4))
    def read(self, keys: list[str]) -> None:
        async def body(s: Storage) -> Any:
            singles = [await s.get(key) for key in keys]
            return singles, [s.kv.get(key) for key in keys], list((await s.get(keys)).items())

        singles, at_once, several = self.home.run(body)
        data = self.model.data
        assert typed(singles) == typed(at_once) == typed([data.get(key) for key in keys])
        assert typed(several) == typed([(key, data[key]) for key in sorted(set(keys) & set(data))])

    @rule(options=RANGES | AFTER_RANGES)
    def read_range(self, options: dict[str, Any]) -> None:
        async def body(s: Storage) -> Any:
            return list((await s.list(options)).items()), list(s.kv.list(options))

        for found in self.home.run(body):
            assert typed(found) == typed(select(self.model.data, options))

    @rule(options=RANGES | AFTER_RANGES)
    def read_each_prefix(self, options: dict[str, Any]) -> None:
        """From both ends, with and without a limit."""

        def body(s: Storage) -> None:
            for prefix, limit, reverse in product(ALL_KEYS, (None, 1, 3), (False, True)):
                given = {**options, "prefix": prefix, "reverse": reverse}
                if limit is not None:
                    given["limit"] = limit
                expected = typed(select(self.model.data, given))
                assert typed(list(outcome(s.list(given)).items())) == expected
                assert typed(list(s.kv.list(given))) == expected

        self.home.run(body)

    @rule(options=RANGES | AFTER_RANGES, value=VALUES)
    def change_while_listing(self, options: dict[str, Any], value: Any) -> None:
        """Deleting every other key that comes, and writing the others anew."""

        def body(s: Storage) -> list[str]:
            seen = []
            for key, _ in s.kv.list(options):
                seen.append(key)
                if len(seen) % 2:
                    assert s.kv.delete(key)
                    del self.model.data[key]
                else:
                    s.kv.put(key, value)
                    self.model.data[key] = value
            return seen

        expected = [key for key, _ in select(self.model.data, options)]
        assert self.home.run(body) == expected

    @invariant()
    def nothing_else_is_there(self) -> None:
        def body(s: Storage) -> Any:
            s.sql.exec(TABLE)
            rows = [row.n for row in s.sql.exec("SELECT n FROM t ORDER BY rowid")]
            return list(s.kv.list()), outcome(s.getAlarm()), rows

        data, alarm, rows = self.home.run(body)
        assert typed(data) == typed(sorted(self.model.data.items()))
        assert (alarm, rows) == (self.model.alarm, self.model.rows)

    @rule()
    def delete_all(self) -> None:
        def body(s: Storage) -> list[str]:
            s.deleteAll()
            return [row.name for row in s.sql.exec("SELECT name FROM sqlite_schema")]

        assert self.home.run(body) == ["_cf_KV", "_cf_META"]
        self.model = Model()

    @rule(how=st.sampled_from(["sleep", "restart", "crash"]))
    def leave(self, how: str) -> None:
        getattr(self.home, how)()

    @rule(value=VALUES)
    def fill(self, value: Any) -> None:
        """Every key."""
        entries = dict.fromkeys(ALL_KEYS, value)
        self.home.run(lambda s: s.put(entries))
        self.model.put(entries)

    @rule()
    def grow(self) -> None:
        """Enough for a checkpoint."""
        self.home.run(lambda s: s.kv.put("big", "x" * 70_000))
        self.model.data["big"] = "x" * 70_000


TestStorage = StorageMachine.TestCase
TestStorage.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
