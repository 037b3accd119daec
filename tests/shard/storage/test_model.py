"""Storage against a plain dict: any calls, transactions, sleeps, restarts and crashes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.shard.storage.support import Home
from workers.storage import DurableObjectStorage as Storage

KEYS = st.text(st.sampled_from("ab\0\ue000\uffff\U0001f600"), max_size=3)
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

WRITES = st.one_of(
    st.tuples(st.just("put"), st.dictionaries(KEYS, VALUES, max_size=3)),
    st.tuples(st.just("delete"), st.lists(KEYS, max_size=3)),
)


class Undo(Exception):  # noqa: N818 - what an app might raise
    pass


def apply(storage: Any, model: dict[str, Any], write: tuple[str, Any]) -> None:
    name, argument = write
    if name == "put":
        storage.put(argument)
        model.update(argument)
        return
    expected = len(set(argument) & model.keys())
    with pytest.raises(StopIteration) as deleted:
        storage.delete(argument).send(None)
    assert deleted.value.value == expected
    for key in argument:
        model.pop(key, None)


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
        self.model: dict[str, Any] = {}

    def teardown(self) -> None:
        self.home.close()
        shutil.rmtree(self.folder)

    @rule(writes=st.lists(WRITES, min_size=1, max_size=4), wait=st.booleans())
    def write(self, writes: list[Any], wait: bool) -> None:
        async def body(s: Storage) -> None:
            for each in writes:
                apply(s, self.model, each)
                if wait:
                    await s.sync()

        self.home.run(body)

    @rule(keys=st.lists(KEYS, max_size=4))
    def read(self, keys: list[str]) -> None:
        async def body(s: Storage) -> Any:
            return [await s.get(key) for key in keys], list((await s.get(keys)).items())

        singles, several = self.home.run(body)
        assert singles == [self.model.get(key) for key in keys]
        assert several == [(key, self.model[key]) for key in sorted(set(keys)) if key in self.model]

    @rule(options=RANGES | AFTER_RANGES)
    def read_range(self, options: dict[str, Any]) -> None:
        async def body(s: Storage) -> Any:
            return list((await s.list(options)).items()), [
                tuple(each) for each in s.kv.list(options)
            ]

        expected = select(self.model, options)
        assert self.home.run(body) == (expected, expected)

    @rule(
        outer=st.lists(WRITES, max_size=2),
        inner=st.lists(WRITES, max_size=2),
        undo_outer=st.sampled_from(["", "raise", "rollback"]),
        undo_inner=st.booleans(),
        sync=st.booleans(),
    )
    def transact(
        self, outer: list[Any], inner: list[Any], undo_outer: str, undo_inner: bool, sync: bool
    ) -> None:
        """A transaction with another one inside it, which is sync or not."""
        kept = dict(self.model)

        async def body(s: Storage) -> None:
            def run_inner(txn: Any = None) -> None:
                for each in inner:
                    apply(txn or s, kept, each)
                if undo_inner:
                    raise Undo

            async def run_outer(txn: Any) -> None:
                nonlocal kept
                for each in outer:
                    apply(txn, kept, each)
                before = dict(kept)
                try:
                    if sync:
                        s.transactionSync(run_inner)
                    else:
                        await s.transaction(run_inner)
                except Undo:
                    kept = before
                if undo_outer == "rollback":
                    txn.rollback()
                if undo_outer == "raise":
                    raise Undo

            with contextlib.suppress(Undo):
                await s.transaction(run_outer)

        self.home.run(body)
        if not undo_outer:
            self.model = kept

    @rule()
    def delete_all(self) -> None:
        self.home.run(lambda s: s.deleteAll())
        self.model = {}

    @rule(how=st.sampled_from(["sleep", "restart", "crash"]))
    def leave(self, how: str) -> None:
        getattr(self.home, how)()

    @rule()
    def grow(self) -> None:
        """Enough for a checkpoint."""
        self.home.run(lambda s: s.kv.put("big", "x" * 70_000))
        self.model["big"] = "x" * 70_000


TestStorage = StorageMachine.TestCase
TestStorage.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
