"""The drawings say what the tables say, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from common.link import lifecycle as link_lifecycle
from gateway import closing, holding
from shard import lifecycle as slot_lifecycle

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from_code: Any = import_module("from_code")

TABLES: dict[str, Mapping[Any, Any]] = {
    "closing": closing.STEPS,
    "holding": holding.STEPS,
    "link": link_lifecycle.STEPS,
    "slot": slot_lifecycle.STEPS,
}


def texts(name: str, css: str) -> list[str]:
    """The texts of a drawing with that class."""
    line = from_code.PARTS[name]().splitlines()[0]
    tree = ET.fromstring(
        line.replace("<style>", "<style><![CDATA[").replace("</style>", "]]></style>")
    )
    return [each.text or "" for each in tree.iter("text") if css in (each.get("class") or "")]


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_a_column_and_every_cause_is_on_an_arrow(name: str) -> None:
    steps = TABLES[name]
    states = {state.name for state, _ in steps}
    if name == "closing":
        states.add("DONE")  # which nothing leaves
    assert sorted(texts(name, "name")) == sorted(states)
    words = ", ".join(texts(name, "cause")).replace(",,", ",")
    for _, cause in steps:
        assert cause.name.lower().replace("_", " ") in words


@pytest.mark.parametrize("name", TABLES)
def test_the_same_table_gives_the_same_drawing(name: str) -> None:
    assert from_code.PARTS[name]() == from_code.PARTS[name]()
    assert "\n" not in from_code.PARTS[name]().partition("</svg>")[0], "Markdown would end it there"
