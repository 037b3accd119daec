from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common import jsonc
from common.config_file import Node
from common.errors import ConfigError
from common.migrations import ClassHistory, Identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def node(value: object) -> Node:
    document = jsonc.parse(json.dumps(value))
    return Node(document.value, Path("wrangler.jsonc"), (), document.positions)


def replayed(*steps: Mapping[str, object]) -> ClassHistory:
    history = ClassHistory("w")
    history.replay(node([{"tag": f"v{n}", **step} for n, step in enumerate(steps)]))
    return history


def declared(**exports: dict[str, object]) -> ClassHistory:
    history = ClassHistory("w")
    durable = {name: {"type": "durable-object", **entry} for name, entry in exports.items()}
    history.declare(node(durable))
    return history


def test_a_class_of_no_migration_has_a_key_and_no_sqlite() -> None:
    assert replayed().identity("A") == Identity("w-A", sqlite=False)


def test_new_classes() -> None:
    history = replayed({"new_classes": ["A"]}, {"new_sqlite_classes": ["B"]})
    assert history.identity("A") == Identity("w-A", sqlite=False)
    assert history.identity("B") == Identity("w-B", sqlite=True)


def test_a_rename_keeps_the_first_key() -> None:
    history = replayed(
        {"new_sqlite_classes": ["A"]},
        {"renamed_classes": [{"from": "A", "to": "B"}]},
        {"renamed_classes": [{"from": "B", "to": "C"}]},
    )
    assert history.identity("C") == Identity("w-A", sqlite=True)


def test_a_deleted_class_comes_back_empty_handed() -> None:
    history = replayed({"new_sqlite_classes": ["A"]}, {"deleted_classes": ["A"]})
    assert history.identity("A") == Identity("w-A~1", sqlite=False)


def test_each_deletion_spends_a_key() -> None:
    step = {"new_sqlite_classes": ["A"]}
    gone = {"deleted_classes": ["A"]}
    assert replayed(step, gone, step, gone, step).identity("A") == Identity("w-A~2", sqlite=True)


def test_deleting_a_class_the_history_does_not_know_spends_its_key() -> None:
    assert replayed({"deleted_classes": ["A"]}).identity("A").unique_key == "w-A~1"


def test_a_name_freed_by_a_rename_never_gets_the_old_objects() -> None:
    history = replayed(
        {"new_sqlite_classes": ["A"]},
        {"renamed_classes": [{"from": "A", "to": "B"}], "new_sqlite_classes": ["A"]},
    )
    assert history.identity("B").unique_key == "w-A"
    assert history.identity("A").unique_key == "w-A~1"


def test_a_transferred_class_keeps_the_key_of_the_worker_it_came_from() -> None:
    history = replayed({"transferred_classes": [{"from": "A", "from_script": "old", "to": "B"}]})
    assert history.identity("B").unique_key == "old-A"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [{"tag": "v1", "new_classes": ["A"]}, {"tag": "v1"}],
            "wrangler.jsonc:1:40: migration tag 'v1' is used twice",
        ),
        ([{"tag": "v1", "renamed_classes": [{"from": "A", "to": "B"}]}], "no earlier migration"),
        ([{"tag": "v1", "new_classes": ["A", "A"]}], "class A exists already"),
        ([{"tag": "v1", "new_classes": "A"}], r"\[0\].new_classes must be a list"),
        ([{"tag": "v1", "new_classes": [1]}], r"\[0\].new_classes\[0\] must be a string"),
        ([{}], r"\[0\].tag must be a string, but is missing"),
        ([{"tag": "v1", "renamed_classes": [{"from": "A"}]}], "no earlier migration"),
    ],
)
def test_a_history_that_makes_no_sense_is_refused(
    steps: Sequence[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassHistory("w").replay(node(steps))


def test_exports_declare_live_classes() -> None:
    history = declared(A={"storage": "sqlite"}, B={"state": "created"})
    assert history.identity("A") == Identity("w-A", sqlite=True)
    assert history.identity("B") == Identity("w-B", sqlite=False)
    assert history.gone("A") is None


def test_exports_follow_renames_to_the_first_name() -> None:
    history = declared(
        A={"state": "renamed", "renamed_to": "B"},
        B={"state": "renamed", "renamed_to": "C"},
        C={"storage": "sqlite"},
    )
    assert history.identity("C") == Identity("w-A", sqlite=True)
    assert history.gone("A") == "renamed to B"


def test_exports_say_what_became_of_a_class() -> None:
    history = declared(
        A={"state": "deleted"}, B={"state": "transferred", "transferred_to": "other"}
    )
    assert history.gone("A") == "deleted"
    assert history.gone("B") == "transferred to worker other"


def test_a_rename_to_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="renamed to B, which exports does not declare"):
        declared(A={"state": "renamed", "renamed_to": "B"})


def test_two_classes_cannot_become_one() -> None:
    with pytest.raises(ConfigError, match="two classes are renamed to C"):
        declared(
            A={"state": "renamed", "renamed_to": "C"},
            B={"state": "renamed", "renamed_to": "C"},
            C={},
        )


def test_a_circle_of_renames_touches_no_live_class() -> None:
    history = declared(
        A={"state": "renamed", "renamed_to": "B"}, B={"state": "renamed", "renamed_to": "A"}, C={}
    )
    assert history.identity("C").unique_key == "w-C"


def test_other_exports_are_ignored() -> None:
    history = ClassHistory("w")
    history.declare(node({"A": {"type": "worker-entrypoint", "state": "deleted"}}))
    assert history.gone("A") is None


@given(data=st.data())
def test_replaying_is_deterministic(data: st.DataObject) -> None:
    names = st.lists(st.sampled_from("ABC"), unique=True)
    steps = [
        {"new_sqlite_classes": data.draw(names)},
        {"deleted_classes": data.draw(names)},
    ]
    assert [replayed(*steps).identity(c) for c in "ABC"] == [
        replayed(*steps).identity(c) for c in "ABC"
    ]


class History(RuleBasedStateMachine):
    """Any sequence of valid steps, against the one rule that matters: no key has two lives."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, object]] = []
        self.life_of: dict[str, int] = {}
        self.lives = 0
        self.key_of_life: dict[int, str] = {}

    @rule(name=st.sampled_from("ABCD"))
    def create(self, name: str) -> None:
        if name not in self.life_of:
            self.steps.append({"new_sqlite_classes": [name]})
            self.lives += 1
            self.life_of[name] = self.lives

    @precondition(lambda self: self.life_of)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.life_of)))
        self.steps.append({"deleted_classes": [name]})
        del self.life_of[name]

    @precondition(lambda self: self.life_of)
    @rule(data=st.data(), to=st.sampled_from("ABCD"))
    def rename(self, data: st.DataObject, to: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.life_of)))
        if to not in self.life_of:
            self.steps.append({"renamed_classes": [{"from": name, "to": to}]})
            self.life_of[to] = self.life_of.pop(name)

    @invariant()
    def every_life_has_one_key_of_its_own(self) -> None:
        history = replayed(*self.steps)
        for name, life in self.life_of.items():
            key = history.identity(name).unique_key
            assert self.key_of_life.setdefault(life, key) == key
        assert len(set(self.key_of_life.values())) == len(self.key_of_life)


TestHistory = History.TestCase
