"""What the documentation says is there, is there; and what is there, it tells."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import workers
from common.settings import TABLE
from local.cli import limpet
from workers.compat import js
from workers.sql import SqlStorage, SqlStorageCursor
from workers.storage import DurableObjectStorage
from workers.sync_kv import SyncKvStorage
from workers.transaction import DurableObjectTransaction

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("workers", "gateway", "shard", "common", "local", "tests", "docs", "benchmarks")
COMPATIBILITY = (ROOT / "docs/compatibility.md").read_text("utf-8")

# What only hosts use, beside the app's names in the same class.
NOT_PUBLIC = {
    workers.DurableObjectId: {"raw", "jurisdiction", "to_json"},
    workers.DurableObjectStub: {"constructor", "hasOwnProperty", "toString", "valueOf"},
    workers.Request: {"from_wire"},
    workers.Response: {"from_wire"},
}
CLASSES = [
    DurableObjectStorage,
    DurableObjectTransaction,
    SyncKvStorage,
    SqlStorage,
    SqlStorageCursor,
    workers.DurableObjectId,
    workers.DurableObjectNamespace,
    workers.DurableObjectState,
    workers.DurableObjectStub,
    workers.ExecutionContext,
    workers.Request,
    workers.Response,
    workers.RpcStub,
]


def snake_case(name: str) -> str:
    return re.sub("([A-Z])", lambda match: "_" + match[1].lower(), name)


def is_named(name: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", text) is not None


@pytest.mark.parametrize("name", workers.__all__)
def test_every_public_name_is_compared(name: str) -> None:
    assert is_named(name, COMPATIBILITY)


@pytest.mark.parametrize("name", js.__all__)
def test_every_name_of_js_is_listed(name: str) -> None:
    assert is_named(name, COMPATIBILITY)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_member_is_compared(cls: type) -> None:
    """Under its camelCase name, if it has two."""
    names = {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}
    names -= {snake_case(name) for name in names if snake_case(name) != name}
    names -= NOT_PUBLIC.get(cls, set())
    assert not [name for name in sorted(names) if not is_named(name, COMPATIBILITY)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w./]+?\.\w+)`", page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:S|BYTES|DIR|PORT|LEVEL))`", text))
    others = {"GATEWAY_PORT"}  # of docker-compose.yml
    assert named <= {row.env for row in TABLE} | others


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    """In consoles, and in code spans. What is absent is named without `limpet` before it."""
    text = page.read_text("utf-8")
    named = set(re.findall(r"(?:`|^\$ (?:\.venv/bin/)?|ExecStart=\S*/)limpet ([a-z]+)", text, re.M))
    assert named <= set(limpet.commands)


def test_every_command_is_described() -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    assert not [name for name in limpet.commands if f"`limpet {name}" not in text]
