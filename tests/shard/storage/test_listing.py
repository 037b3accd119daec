"""The list of stored objects is read beside the process that has them open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard.storage.glance import read_identity
from shard.storage.listing import objects
from tests.shard.storage.support import Home
from workers.storage import DurableObjectStorage as Storage

ALARM_MS = 6_000_000_000_123


def listed(home: Home) -> list[Any]:
    return [
        (each.unique_key, each.object_id, each.name, each.alarm_ms) for each in objects(home.folder)
    ]


def write(home: Home, size: int = 10) -> None:
    def body(s: Storage) -> None:
        s.kv.put("a", "x" * size)
        s.setAlarm(ALARM_MS)

    home.run(body)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("state", ["open", "asleep", "killed"])
def test_name_and_alarm_are_read_from_the_file_or_its_log(
    tmp_path: Path, checkpointed: bool, state: str
) -> None:
    home = Home(tmp_path / "data", name="room one", wal_checkpoint_bytes=65_536)
    assert listed(home) == []
    write(home, 100_000 if checkpointed else 10)
    home.settle()
    if state == "asleep":
        home.sleep()
    if state == "killed":
        home.crash()
    assert listed(home) == [("app-Room", str(home.object_id), "room one", ALARM_MS)]
    home.run(lambda s: s.deleteAlarm())
    home.settle()
    assert listed(home)[0][3] is None
    home.close()


def test_what_is_not_committed_is_not_told(home: Home) -> None:
    write(home)
    home.settle()

    def body(s: Storage) -> Any:
        s.setAlarm(ALARM_MS + 1)
        s.sql.exec("CREATE TABLE t (a)")
        return listed(home)[0][3]

    assert home.run(body) == ALARM_MS
    assert listed(home)[0][3] == ALARM_MS + 1


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400))
def test_names_of_every_kind(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = Home(tmp_path_factory.mktemp("names") / "data", name=name)
    write(home)
    home.settle()
    found = listed(home)
    assert [each[1] for each in found] == [str(home.object_id)]
    # One that does not fit on the page is left out.
    assert found[0][2] == (name if len(name.encode()) < 900 else found[0][2])
    assert found[0][2] in (name, None)
    assert found[0][3] == ALARM_MS
    home.close()


@pytest.mark.parametrize("contents", [b"", b"not a database", bytes(4096 * 4), b"\x0a" * 20_000])
def test_what_is_no_database_of_ours_is_left_out(home: Home, contents: bytes) -> None:
    write(home)
    home.settle()
    home.path.with_name("stranger.sqlite").write_bytes(contents)
    assert read_identity(str(home.path.with_name("stranger.sqlite"))) is None
    assert len(listed(home)) == 1
