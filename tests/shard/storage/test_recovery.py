"""Point in time: an object goes back to any state that a bookmark or a time names."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from common.errors import StorageError
from common.ids import ObjectId
from shard.storage.alarm_watch import NoAlarms
from shard.storage.bookmark import read_bookmark
from tests.shard.storage.support import ForgetfulDisk, Home
from workers.exceptions import JsException
from workers.storage import DurableObjectStorage as Storage

HOUR_MS = 3_600_000
SEEDS = int(os.environ.get("CRASH_SEEDS", "60"))


def dump(s: Storage) -> dict[str, Any]:
    return dict(s.kv.list())


def put(home: Home, key: str, value: Any) -> str:
    """Write, and return the bookmark of the state with it."""

    async def body(s: Storage) -> str:
        s.kv.put(key, value)
        return await s.getCurrentBookmark()

    return str(home.run(body))


def bookmark(home: Home) -> str:
    return str(home.run(lambda s: s.getCurrentBookmark()))


def at_time(home: Home, at_ms: int) -> str:
    return str(home.run(lambda s: s.getBookmarkForTime(at_ms)))


def go_back(home: Home, to: str) -> str:
    undo = home.run(lambda s: s.onNextSessionRestoreBookmark(to))
    home.abort()
    return str(undo)


def session_of(home: Home) -> Any:
    home.run(lambda s: s.kv.get("nothing"))
    activation = home.slot.activation
    assert activation is not None
    assert activation.storage is not None
    return activation.storage.session


def checkpoint(home: Home) -> None:
    """Move the log into the database now."""
    session = session_of(home)
    home.settle()
    done: list[int] = []
    assert session.checkpoint(lambda: done.append(1))
    home.until(lambda: done)


def test_a_bookmark_has_the_form_of_cloudflares(home: Home) -> None:
    first = put(home, "a", 1)
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}", first)
    assert bookmark(home) == first


@pytest.mark.parametrize("between", ["nothing", "checkpoint", "sleep", "restart", "crash"])
def test_an_object_goes_back_to_a_bookmark(home: Home, between: str) -> None:
    empty = bookmark(home)
    one = put(home, "a", 1)
    two = put(home, "a", "x" * 9000)
    if between == "checkpoint":
        checkpoint(home)
    elif between != "nothing":
        getattr(home, between)()
    three = put(home, "b", 3)
    assert empty < one < two < three
    go_back(home, one)
    assert home.run(dump) == {"a": 1}
    go_back(home, three)
    assert home.run(dump) == {"a": "x" * 9000, "b": 3}
    go_back(home, empty)
    assert home.run(dump) == {}
    go_back(home, two)
    assert home.run(dump) == {"a": "x" * 9000}
    assert bookmark(home) > three


def test_nothing_is_restored_before_the_next_life(home: Home) -> None:
    one = put(home, "a", 1)
    put(home, "a", 2)
    home.run(lambda s: s.onNextSessionRestoreBookmark(one))
    put(home, "b", 3)
    assert home.run(dump) == {"a": 2, "b": 3}
    home.sleep()
    assert home.run(dump) == {"a": 1}


def test_a_restoration_is_undone(home: Home) -> None:
    one = put(home, "a", 1)
    before = put(home, "a", 2)
    undo = home.run(lambda s: s.onNextSessionRestoreBookmark(one))
    assert undo > before
    put(home, "late", True)
    home.abort()
    assert home.run(dump) == {"a": 1}
    assert bookmark(home) > undo
    checkpoint(home)
    put(home, "c", 1)
    redo = go_back(home, undo)
    assert home.run(dump) == {"a": 2, "late": True}, "as it was just before the restoration"
    go_back(home, redo)
    assert home.run(dump) == {"a": 1, "c": 1}


class Watch(NoAlarms):
    """Keeps what it is told of alarms."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None]] = []

    def moving(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        self.told.append(("moving", due_ms))

    def found(self, unique_key: str, object_id: ObjectId, due_ms: int | None) -> None:
        self.told.append(("found", due_ms))


def test_delete_all_is_undone(home: Home) -> None:
    def fill(s: Storage) -> None:
        s.kv.put("a", 1)
        s.sql.exec("CREATE TABLE t (x); INSERT INTO t VALUES (7)")
        s.setAlarm(home.now_ms + 5000)

    home.run(fill)
    full = bookmark(home)
    home.run(lambda s: s.deleteAll())
    checkpoint(home)
    watch = home.engine.alarms = Watch()
    go_back(home, full)
    found = home.run(lambda s: (dump(s), s.sql.exec("SELECT x FROM t").one().x))
    assert found == ({"a": 1}, 7)
    due = home.now_ms + 5000
    assert watch.told[-2:] == [("moving", due), ("found", due)]
    assert home.run(lambda s: s.getAlarm()) == home.now_ms + 5000


def test_a_time_names_the_last_state_before_it(home: Home) -> None:
    start = home.now_ms
    for number in range(6):
        put(home, "n", number)
        if number == 2:
            checkpoint(home)
        home.now_ms += 60_000
    for number in (4, 0, 2, 5, 1):
        to = at_time(home, start + number * 60_000 + 30_000)
        go_back(home, to)
        assert home.run(dump) == {"n": number}
    to = at_time(home, start - 1000)
    go_back(home, to)
    assert home.run(dump) == {}, "before its first commit an object is empty"


def test_the_time_of_a_commit_is_known_to_a_second(home: Home) -> None:
    start = home.now_ms
    for number in range(40):
        put(home, "n", number)
        home.now_ms += 100
    for at in range(start, start + 4000, 350):
        to = at_time(home, at)
        go_back(home, to)
        found = start + home.run(lambda s: s.kv.get("n")) * 100
        assert abs(found - at) < 1000
        home.now_ms += 1000


def test_what_cannot_be_found_is_refused(home: Home, tmp_path: Path) -> None:
    put(home, "a", 1)
    other = Home(tmp_path / "other", name="b")
    foreign = put(other, "a", 1)
    third = Home(tmp_path / "third", name="c")
    empty_foreign = bookmark(third)
    other.close()
    third.close()
    future = home.now_ms + 1000
    cases: list[tuple[Callable[[Storage], Any], str]] = [
        (lambda s: s.onNextSessionRestoreBookmark("nonsense"), "invalid bookmark 'nonsense'"),
        (lambda s: s.onNextSessionRestoreBookmark(foreign), "there is no state"),
        (lambda s: s.onNextSessionRestoreBookmark(empty_foreign), "there is no state"),
        (lambda s: s.getBookmarkForTime(future), "is in the future"),
        (lambda s: s.getBookmarkForTime(home.now_ms - 25 * HOUR_MS), "older than 24 hours"),
    ]
    for body, text in cases:
        with pytest.raises(JsException, match=text):
            home.run(body)
    with pytest.raises(TypeError, match="a bookmark is a str"):
        home.run(lambda s: s.onNextSessionRestoreBookmark(5))  # type: ignore[arg-type]
    with pytest.raises(JsException, match="within a transaction"):
        home.run(lambda s: s.transactionSync(lambda: s.onNextSessionRestoreBookmark(foreign)))
    assert home.run(dump) == {"a": 1}


def test_without_retention_it_is_off_and_no_history_is_left(tmp_path: Path) -> None:
    home = Home(tmp_path / "data")
    put(home, "a", 1)
    checkpoint(home)
    history = Path(f"{home.path}-history")
    assert history.exists()
    object.__setattr__(home.settings, "pitr_retention_h", 0.0)
    home.restart()
    with pytest.raises(JsException, match="PITR_RETENTION_H=0"):
        bookmark(home)
    home.run(lambda s: s.kv.put("a", 2))
    checkpoint(home)
    assert not history.exists()
    object.__setattr__(home.settings, "pitr_retention_h", 1.0)
    home.restart()
    there = bookmark(home)
    put(home, "a", 3)
    go_back(home, there)
    assert home.run(dump) == {"a": 2}
    home.close()


def test_a_state_that_was_replaced_too_long_ago_is_refused(home: Home) -> None:
    one = put(home, "a", 1)
    home.now_ms += 30 * HOUR_MS
    two = put(home, "a", 2)  # until now the first one was the present
    put(home, "a", 3)
    go_back(home, one)
    assert home.run(dump) == {"a": 1}
    home.now_ms += 25 * HOUR_MS
    for each in (one, two):
        with pytest.raises(JsException, match="older than 24 hours"):
            go_back(home, each)


def files_of(home: Home) -> list[Path]:
    return sorted(home.path.parent.glob("*-history*"))


def test_old_history_goes_by_age(home: Home) -> None:
    for number in range(6):
        put(home, "a", number)
        checkpoint(home)
        home.now_ms += 20 * HOUR_MS
        put(home, "a", f"late {number}")
        checkpoint(home)
    numbers = [each.number for each in history_of(home)]
    assert numbers[-1] == 12
    assert len(numbers) < 8, "40 hours of them at most"


def history_of(home: Home) -> Any:
    return session_of(home).ready().history.segments()


def test_history_has_at_most_its_bytes(tmp_path: Path) -> None:
    home = Home(tmp_path / "data", pitr_max_bytes=1 << 20)
    rng = random.Random(1)
    marks = []
    for number in range(60):
        marks.append((number, put(home, "a", rng.randbytes(60_000))))
        checkpoint(home)
        assert sum(each.stat().st_size for each in files_of(home)) <= 1 << 20
    with pytest.raises(JsException, match="PITR_MAX_BYTES"):
        go_back(home, marks[0][1])
    expected = home.run(lambda s: s.kv.get("a"))
    undo = go_back(home, marks[-4][1])
    assert home.run(lambda s: s.kv.get("a")) != expected
    go_back(home, undo)
    assert home.run(lambda s: s.kv.get("a")) == expected
    home.close()


def test_a_commit_larger_than_the_history_begins_it_anew(tmp_path: Path) -> None:
    home = Home(tmp_path / "data", pitr_max_bytes=1 << 20)
    small = put(home, "a", 1)
    checkpoint(home)
    put(home, "a", random.Random(2).randbytes(2_000_000))
    checkpoint(home)
    assert files_of(home) == []
    with pytest.raises(JsException, match="PITR_MAX_BYTES"):
        go_back(home, small)
    large = bookmark(home)
    put(home, "a", 2)
    checkpoint(home)
    go_back(home, large)
    assert home.run(lambda s: len(s.kv.get("a"))) == 2_000_000
    home.close()


def test_a_history_that_does_not_fit_the_database_is_not_applied(home: Home) -> None:
    """The file was replaced by an older copy of itself, by hand."""
    one = put(home, "a", 1)
    checkpoint(home)
    home.sleep()
    copy = home.path.read_bytes()
    for number in range(3):
        put(home, "a", number)
        checkpoint(home)
    home.sleep()
    home.path.write_bytes(copy)
    Path(f"{home.path}-wal").unlink()
    assert home.run(dump) == {"a": 1}
    with pytest.raises(JsException, match="there is no state"):
        go_back(home, one)
    put(home, "a", "new")
    checkpoint(home)
    assert [each.number for each in history_of(home)] == [2]


def test_a_page_changed_behind_our_back_stops_a_restoration(home: Home) -> None:
    put(home, "b", "y" * 20_000)
    one = put(home, "a", 1)
    checkpoint(home)
    put(home, "b", "x" * 20_000)
    checkpoint(home)
    home.sleep()
    data = bytearray(home.path.read_bytes())
    place = data.index(b"x" * 3000)
    data[place + 100] ^= 1
    home.path.write_bytes(bytes(data))
    go_back(home, one)
    with pytest.raises(StorageError, match="is not as segment"):
        home.run(dump)
    assert set(home.run(dump)) == {"a", "b"}, "its next life goes on with what there is"


def test_damage_in_the_history_is_noticed(home: Home) -> None:
    marks = [put(home, "a", f"{number}" * 5000) for number in range(3)]
    checkpoint(home)
    put(home, "a", "z")
    checkpoint(home)
    path = Path(f"{home.path}-history")
    data = bytearray(path.read_bytes())
    data[150] ^= 0xFF
    path.write_bytes(bytes(data))
    go_back(home, marks[0])
    with pytest.raises(StorageError, match="could not be restored"):
        home.run(dump)
    assert home.run(dump) == {"a": "z"}


def test_a_full_disk_costs_the_history_and_nothing_else(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shard.storage.segment as module

    put(home, "a", 1)
    checkpoint(home)
    put(home, "a", 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", full)
        checkpoint(home)
    assert files_of(home) == []
    assert home.run(dump) == {"a": 2}
    there = bookmark(home)
    put(home, "a", 3)
    checkpoint(home)
    go_back(home, there)
    assert home.run(dump) == {"a": 2}


def test_a_bookmark_waits_until_its_commit_lasts(home: Home) -> None:
    from tests.shard.storage.test_syncing import BlockedDisk

    disk = BlockedDisk()
    slow = Home(home.folder.with_name("slow"), disk, sync_threads=1)

    async def body(s: Storage) -> str:
        s.kv.put("a", 1)
        return await s.getCurrentBookmark()

    outcome = slow.start(body)
    slow.until(lambda: disk.arrived)
    slow.turn(20)
    assert outcome == []
    disk.proceed.release(1000)
    slow.until(lambda: outcome, within=1_000_000)
    assert read_bookmark(outcome[0]).frame > 0
    slow.close()


def test_other_events_run_while_a_bookmark_is_waited_for(home: Home) -> None:
    """As with sync(): specification, the table of what lets other events in."""
    order: list[str] = []

    async def body(s: Storage) -> None:
        s.kv.put("a", 1)
        await s.getCurrentBookmark()
        order.append("bookmark")

    first = home.start(body)
    second = home.start(lambda s: order.append("other"))
    home.until(lambda: first and second)
    assert order == ["other", "bookmark"]


# --- against a list of snapshots -----------------------------------------------------------------


class RecoveryMachine(RuleBasedStateMachine):
    """Any writes, checkpoints, restarts, crashes and restorations: each bookmark is its state."""

    power = False

    @initialize(seed=st.integers(0, 1 << 30))
    def start(self, seed: int) -> None:
        self.folder = tempfile.mkdtemp()
        self.rng = random.Random(seed)
        self.home = Home(
            Path(self.folder) / "data", ForgetfulDisk(), wal_checkpoint_bytes=64 * 1024
        )
        self.model: dict[str, Any] = {}
        self.states: list[tuple[str, dict[str, Any]]] = []
        self.times = [(self.home.now_ms, dict(self.model))]

    def teardown(self) -> None:
        self.home.close()
        shutil.rmtree(self.folder)

    def mark(self) -> None:
        found = bookmark(self.home)
        if self.states:
            last, state = self.states[-1]
            assert found > last or (found == last and state == self.model)
        self.states.append((found, dict(self.model)))

    @rule(key=st.sampled_from("abcdef"), size=st.sampled_from((1, 300, 5000, 30_000)),
          keep=st.booleans())  # fmt: skip
    def write(self, key: str, size: int, keep: bool) -> None:
        self.home.now_ms += 2000
        value = f"{self.rng.random()}" * (size // 18 + 1)
        self.home.run(lambda s: s.kv.put(key, value))
        self.home.settle()
        self.model = {**self.model, key: value}
        self.times.append((self.home.now_ms, dict(self.model)))
        if keep:
            self.mark()

    @rule()
    def delete_all(self) -> None:
        self.home.now_ms += 2000
        self.home.run(lambda s: s.deleteAll())
        self.home.settle()
        self.model = {}
        self.times.append((self.home.now_ms, {}))
        self.mark()

    @rule()
    def move_the_log(self) -> None:
        checkpoint(self.home)

    @rule(how=st.sampled_from(["sleep", "restart", "crash", "power cut"]))
    def leave(self, how: str) -> None:
        self.home.settle()
        if how == "power cut":
            self.home.crash(self.rng)
        else:
            getattr(self.home, how)()

    @precondition(lambda self: self.states)
    @rule(data=st.data(), how=st.sampled_from(["abort", "restart", "crash", "power cut"]))
    def go_back(self, data: st.DataObject, how: str) -> None:
        to, state = data.draw(st.sampled_from(self.states))
        before = dict(self.model)
        undo = self.home.run(lambda s: s.onNextSessionRestoreBookmark(to))
        if how == "power cut":
            self.home.crash(self.rng)
        else:
            getattr(self.home, how)()
        self.home.now_ms += 2000
        assert self.home.run(dump) == state
        self.model = dict(state)
        self.times.append((self.home.now_ms, dict(state)))
        self.states.append((undo, before))
        self.mark()

    @rule(data=st.data())
    def go_back_in_time(self, data: st.DataObject) -> None:
        nth = data.draw(st.integers(0, len(self.times) - 1))
        at_ms, state = self.times[nth]
        found = at_time(self.home, at_ms)
        go_back(self.home, found)
        self.home.now_ms += 2000
        assert self.home.run(dump) == state
        self.model = dict(state)
        self.times.append((self.home.now_ms, dict(state)))

    @rule()
    def look(self) -> None:
        assert self.home.run(dump) == self.model


TestRecovery = RecoveryMachine.TestCase
TestRecovery.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# --- crashes in the middle -----------------------------------------------------------------------


class Stopped(BaseException):
    pass


class DyingDisk(ForgetfulDisk):
    """The process dies at the n-th call, or just before the n-th call is carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(5, "the process is dead")

    def sync_data(self, fd: int, path: str) -> None:
        self._count()
        super().sync_data(fd, path)

    def sync_folder(self, path: str) -> None:
        self._count()
        super().sync_folder(path)

    def replace(self, path: str, new_path: str) -> None:
        self._count()
        super().replace(path, new_path)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS // 3))
def test_a_crash_in_a_checkpoint_leaves_every_state(tmp_path: Path, seed: int, power: bool) -> None:
    """Whatever of the checkpoint was done, and whatever of that the disk has."""
    rng = random.Random(seed)
    disk = DyingDisk()
    small = rng.random() < 0.5  # then files take turns, and what is older is gone
    home = Home(tmp_path / "data", disk, pitr_max_bytes=1 << (21 if small else 26))
    states: list[tuple[str, dict[str, Any]]] = []
    model: dict[str, Any] = {}
    for _ in range(rng.randint(3, 8)):
        for _ in range(rng.randint(1, 5)):
            key, value = rng.choice("abcd"), rng.randbytes(rng.choice((5, 8000, 60_000)))
            model = {**model, key: value}
            states.append((put(home, key, value), model))
        home.settle()
        disk.left = rng.randint(0, 8)
        database = session_of(home).ready()
        database.lend()
        with contextlib.suppress(OSError):
            database.checkpoint(home.now_ms)
        disk.left = None
        home.crash(rng if power else None)
        assert home.run(dump) == model
    reachable = states[-4:] if small else states
    for to, state in rng.sample(reachable, min(6, len(reachable))):
        undo = go_back(home, to)
        assert home.run(dump) == state
        go_back(home, undo)
        assert home.run(dump) == model
    home.close()


@pytest.mark.parametrize("seed", range(10))
def test_a_crash_in_a_restoration_leaves_the_old_state_or_the_new(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    home = Home(tmp_path / "data", ForgetfulDisk())
    old = put(home, "a", "old" * 3000)
    checkpoint(home)
    put(home, "a", "new" * 5000)
    home.run(lambda s: s.onNextSessionRestoreBookmark(old))
    home.abort()
    home.start(dump)  # restored, and not waited for
    home.turn(3)
    home.crash(rng)
    # Before the commit had reached the disk nobody was told: it is there, or it is done again.
    assert home.run(dump) == {"a": "old" * 3000}
    assert not Path(f"{home.path}-restore").exists()
    home.close()
