"""The index is never later than the truth, whatever is killed, loses power or has a bad disk."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageUnavailable
from common.ids import IdFactory
from shard.alarms import survey
from shard.alarms.alarm import Alarm
from shard.alarms.index_format import decode
from shard.alarms.keeper import REWRITE_FROM, AlarmKeeper
from shard.alarms.schedule import Schedule
from shard.storage.disk import Disk
from tests.shard.storage.support import ForgetfulDisk, Home
from workers.exceptions import JsException

DUE_MS = 2_000_000_000_000


class FixedClock:
    def monotonic_s(self) -> float:
        return 1000.0

    def wall_s(self) -> float:
        return 1_800_000_000.0


class AlarmHome(Home):
    """A shard of one object that keeps its alarm, and rings nothing."""

    keeper: AlarmKeeper

    def _start(self) -> None:
        super()._start()
        self.schedule = Schedule(100, 0)
        self.keeper = AlarmKeeper(
            self.engine, self.schedule, lambda key: True, FixedClock(), lambda: 0.0, lambda: None
        )
        self.engine.alarms = self.keeper
        self.partition = self.object_id.partition
        for partition in self.keeper.expect([self.partition]):
            self.keeper.load(self.keeper.read(partition))

    def survey(self) -> bool:
        """Make the index anew if it is not complete; whether it was not."""
        if not self.keeper.incomplete:
            return False
        found = survey.Survey(self.keeper.incomplete.pop())
        survey.list_objects(self.folder, found, ["app-Room"])
        while found.left:
            entries = survey.read_some(found, self.engine.is_open)
            self.keeper.surveyed(found.partition, entries)
        file = self.keeper.complete(found.partition)
        assert file is not None
        file.sync(file.size)
        return True

    @property
    def alarm(self) -> Alarm | None:
        return self.keeper._parts[self.partition].alarms.get(self.object_id.raw)

    @property
    def scheduled_ms(self) -> int | None:
        """When the shard would look at the object."""
        alarm = self.alarm
        return alarm.due_ms if alarm is not None and alarm.stamp else None

    @property
    def index(self) -> Path:
        return self.folder / f"{self.partition:04d}" / "alarms.index"

    @property
    def indexed_ms(self) -> int | None:
        """What the index has on disk, or in the kernel's cache."""
        if not self.index.exists():
            return None
        contents = decode(self.index.read_bytes())
        assert not contents.damaged
        entry = contents.entries.get(self.object_id.raw)
        return None if entry is None else entry.due_ms

    def set(self, due_ms: int | None) -> None:
        """Set or delete the alarm."""

        def body(storage: Any) -> None:
            if due_ms is None:
                storage.deleteAlarm()
            else:
                storage.setAlarm(due_ms)

        self.run(body)

    def stored(self) -> int | None:
        due_ms: int | None = self.run(get_alarm)
        return due_ms


def put(storage: Any, number: int) -> None:
    storage.kv.put("a", number)


async def get_alarm(storage: Any) -> Any:
    return await storage.getAlarm()


Make = Callable[..., AlarmHome]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    homes: list[AlarmHome] = []

    def make(disk: Disk | None = None, **settings: Any) -> AlarmHome:
        homes.append(AlarmHome(tmp_path / f"data{len(homes)}", disk, **settings))
        return homes[-1]

    yield make
    for home in homes:
        home.close()
        home.keeper.close()


class SlowDisk(Disk):
    """Says when a file is synced, and fails if it is told to."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.failing = ""

    def sync_data(self, fd: int, path: str) -> None:
        name = Path(path).name
        kind = "index" if name == "alarms.index" else "object"
        if self.failing == kind:
            raise OSError(errno.EIO, "the disk is broken", path)
        self.synced.append(kind)


# --- what is written when


def test_without_an_alarm_nothing_is_written(make: Make) -> None:
    home = make()
    home.run(lambda s: s.kv.put("a", 1))
    home.run(lambda s: s.deleteAlarm())
    home.settle()
    assert not home.index.exists()


def test_a_commit_that_does_not_change_the_alarm_does_not_touch_the_index(make: Make) -> None:
    disk = SlowDisk()
    home = make(disk)
    home.set(DUE_MS)
    home.settle()
    before = home.index.read_bytes(), disk.synced.count("index")
    for number in range(20):
        home.run(partial(put, number=number))
        home.settle()
    assert (home.index.read_bytes(), disk.synced.count("index")) == before


def test_one_that_is_set_is_in_the_index_before_its_commit_is_told(make: Make) -> None:
    disk = SlowDisk()
    home = make(disk)
    told: list[list[str]] = []

    def body(storage: Any) -> None:
        storage.setAlarm(DUE_MS)
        home.gate.push(lambda: told.append(list(disk.synced)))

    home.run(body)
    assert home.indexed_ms == DUE_MS
    assert told == []
    home.settle()
    (synced,) = told
    assert {"index", "object"} <= set(synced)


def test_one_that_moves_later_or_goes_is_changed_once_that_is_durable(make: Make) -> None:
    disk = SlowDisk()
    home = make(disk)
    home.set(DUE_MS)
    home.settle()
    for due_ms in (DUE_MS + 500, None):
        before = home.indexed_ms
        seen: list[Any] = []
        home.set(due_ms)
        seen.append(home.indexed_ms)
        home.settle()
        assert seen == [before]
        assert (home.indexed_ms, home.scheduled_ms) == (due_ms, due_ms)
    assert home.alarm is None


def test_one_set_earlier_while_a_later_one_is_under_way_stays_earlier(make: Make) -> None:
    home = make()
    home.set(DUE_MS)
    home.settle()
    home.run(lambda s: s.setAlarm(DUE_MS + 500))
    home.run(lambda s: s.setAlarm(DUE_MS - 500))
    home.run(lambda s: s.setAlarm(DUE_MS + 900))
    assert home.indexed_ms == DUE_MS - 500
    home.settle()
    assert (home.indexed_ms, home.scheduled_ms) == (DUE_MS + 900, DUE_MS + 900)


def test_an_index_that_has_become_long_is_written_anew(make: Make) -> None:
    home = make(durability="normal")
    home.durability = "normal"
    for number in range(3 * REWRITE_FROM):
        home.set(DUE_MS - number)
    assert decode(home.index.read_bytes()).records <= REWRITE_FROM + 1
    home.restart()
    assert home.scheduled_ms == DUE_MS - 3 * REWRITE_FROM + 1
    assert not home.keeper.incomplete


def test_an_index_that_takes_nothing_refuses_the_alarm(make: Make) -> None:
    """Else it would be later than the truth. The object works on without one."""
    home = make()
    home.run(lambda s: s.kv.put("a", 1))
    home.index.mkdir()
    (home.index / "in the way").touch()
    activation = home.slot.activation
    assert activation is not None
    home.run(lambda s: s.setAlarm(DUE_MS))
    assert isinstance(activation.death, StorageUnavailable)
    assert "alarms.index" in str(activation.death)
    home.settle()
    assert home.stored() is None
    assert home.scheduled_ms is None
    assert home.run(lambda s: s.kv.get("a")) == 1


@pytest.mark.parametrize("failing", ["object", "index"])
def test_after_a_failed_sync_the_objects_file_is_asked_again(make: Make, failing: str) -> None:
    """Whatever the lost commit was to do, the shard looks no later than the truth."""
    for due_ms in (DUE_MS - 500, DUE_MS + 500, None):
        disk = SlowDisk()
        home = make(disk)
        home.set(DUE_MS)
        home.settle()
        disk.failing = failing
        home.set(due_ms)
        home.turn(10)
        disk.failing = ""
        scheduled_ms = home.scheduled_ms
        truth_ms = home.stored()
        if truth_ms is not None:
            assert scheduled_ms is not None
            assert scheduled_ms <= truth_ms
        assert home.scheduled_ms == truth_ms, "to open it is to know"


def test_an_index_whose_sync_has_failed_is_written_anew(make: Make) -> None:
    disk = SlowDisk()
    home = make(disk)
    home.set(DUE_MS)
    home.settle()
    disk.failing = "index"
    home.run(lambda s: s.setAlarm(DUE_MS - 5))
    home.turn(10)
    disk.failing = ""
    before = home.index.stat().st_ino
    home.set(DUE_MS - 10)
    home.settle()
    assert home.index.stat().st_ino != before
    assert home.indexed_ms == DUE_MS - 10


# --- starts


def test_a_restart_reads_the_index_and_no_object(make: Make) -> None:
    home = make()
    home.set(DUE_MS)
    home.restart()
    assert home.scheduled_ms == DUE_MS
    assert not home.keeper.incomplete
    assert home.engine.open_databases == 0
    assert home.alarm is not None
    assert home.alarm.name == "a"


@pytest.mark.parametrize("what", ["missing", "empty", "cut", "garbled", "zeros", "foreign"])
def test_an_index_that_is_not_in_order_is_made_anew(make: Make, what: str) -> None:
    home = make()
    home.set(DUE_MS)
    home.settle()
    whole = home.index.read_bytes()
    home.sleep()
    match what:
        case "missing":
            home.index.unlink()
        case "empty":
            home.index.write_bytes(b"")
        case "cut":
            home.index.write_bytes(whole[:-3])
        case "garbled":
            home.index.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        case "zeros":
            home.index.write_bytes(whole + bytes(100))
        case _:
            home.index.write_bytes(b"something else altogether")
    home.restart()
    assert home.survey()
    assert home.scheduled_ms == DUE_MS
    home.restart()
    assert not home.survey(), "it was made for good"
    assert home.scheduled_ms == DUE_MS


def test_one_that_was_not_finished_is_made_anew(make: Make) -> None:
    """A crash in the middle of it: what was set meanwhile is in an index that is not complete."""
    home = make()
    home.set(DUE_MS)
    home.sleep()
    home.index.unlink()
    home.restart()
    other = AlarmHome(home.folder, name=_neighbour(home))
    other.keeper.close()
    other.engine.alarms = home.keeper
    other.set(DUE_MS + 77)
    other.settle()
    assert not decode(home.index.read_bytes()).complete
    other.close()
    home.restart()
    assert home.scheduled_ms is None
    assert home.survey()
    assert home.scheduled_ms == DUE_MS
    assert len(home.keeper._parts[home.partition].alarms) == 2


def _neighbour(home: Home) -> str:
    """A name whose object is in the same partition."""
    ids = IdFactory("app-Room")
    return next(
        name
        for name in map(str, range(100_000))
        if ids.from_name(name).partition == home.object_id.partition
    )


def test_an_object_that_was_opened_meanwhile_knows_better_than_the_survey(make: Make) -> None:
    home = make()
    home.set(DUE_MS)
    home.sleep()
    home.index.unlink()
    home.restart()
    found = survey.Survey(home.keeper.incomplete.pop())
    survey.list_objects(home.folder, found, ["app-Room"])
    entries = survey.read_some(found, home.engine.is_open)
    assert [entry.due_ms for entry in entries] == [DUE_MS]
    home.set(DUE_MS + 500)
    home.keeper.surveyed(home.partition, entries)
    assert home.scheduled_ms == DUE_MS + 500


def test_a_survey_is_not_in_the_way_of_an_object_in_use(make: Make) -> None:
    home = make()
    home.set(DUE_MS)
    home.settle()
    assert home.run(get_alarm) == DUE_MS
    assert survey._read(str(home.path)) == ("a", DUE_MS)
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    home.sleep()
    Path(f"{home.path}-wal").unlink()  # all of it was in there
    assert survey._read(str(home.path)) == (None, None)


def test_a_file_that_cannot_be_read_leaves_the_index_unfinished(make: Make) -> None:
    """Unless it is damaged: then nobody will ever read it."""
    home = make()
    home.set(DUE_MS)
    home.sleep()
    found = survey.Survey(home.partition)
    survey.list_objects(home.folder, found, ["app-Room"])
    path = home.path
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    assert survey.read_some(found, home.engine.is_open) == []
    assert found.unread == 1
    path.rmdir()
    path.write_bytes(b"no database at all" * 1000)
    found = survey.Survey(home.partition)
    survey.list_objects(home.folder, found, ["app-Room"])
    assert survey.read_some(found, home.engine.is_open) == []
    assert found.unread == 0
    path.unlink()
    path.with_suffix(".away").rename(path)


def test_a_namespaces_folder_that_nobody_knows_is_searched_too(make: Make) -> None:
    """Its class may come back: its alarms are kept, and do not ring."""
    home = make()
    home.set(DUE_MS)
    home.sleep()
    home.index.unlink()
    home.restart()
    found = survey.Survey(home.partition)
    survey.list_objects(home.folder, found, [])
    assert [key for key, _ in found.left] == ["app-Room"]


def test_a_partition_that_was_left_rings_nothing(make: Make) -> None:
    home = make()
    home.set(DUE_MS)
    home.sleep()
    alarm = home.alarm
    assert alarm is not None
    home.keeper.leave([home.partition])
    assert home.schedule.waiting == 0
    assert not home.keeper.holds(alarm)
    assert home.schedule.release(1e15, 1e9, 10) == []
    for partition in home.keeper.expect([home.partition]):
        home.keeper.load(home.keeper.read(partition))
    assert home.scheduled_ms == DUE_MS


# --- crashes


class Lives:
    """An object that sets and deletes its alarm at random, and is told when that is durable."""

    def __init__(self, home: AlarmHome, rng: random.Random) -> None:
        self.home = home
        self.rng = rng
        self.told_ms: int | None = None

    def live(self) -> None:
        """One life, up to the moment before a crash."""
        home, rng = self.home, self.rng
        self.told_ms = home.stored()
        home.settle()
        for _ in range(rng.randrange(1, 6)):
            home.run(undone if rng.random() < 0.2 else self.change)
            if rng.random() < 0.5:
                home.turn(rng.randrange(10))
        if rng.random() < 0.3:
            home.settle()

    def change(self, storage: Any) -> None:
        due_ms = self.rng.choice([None, DUE_MS + self.rng.randrange(-1000, 1000)])
        if due_ms is None:
            storage.deleteAlarm()
        else:
            storage.setAlarm(due_ms)
        self.home.gate.push(partial(setattr, self, "told_ms", due_ms))


def undone(storage: Any) -> None:
    def inner() -> None:
        storage.setAlarm(DUE_MS - 5000)
        raise JsException("undo it")

    with contextlib.suppress(JsException):
        storage.transactionSync(inner)


@pytest.mark.parametrize("power", [False, True], ids=["process", "power"])
def test_whatever_dies_an_alarm_is_looked_at_in_time(make: Make, power: bool) -> None:
    """Seeded: sets, deletions, rollbacks and crashes at any moment.

    What was told to be durable is looked at in time by the index alone, after a kill even what was
    not. What was not told before a power cut is known when the object is next opened.
    """
    for seed in range(60):
        rng = random.Random(seed)
        home = make(ForgetfulDisk())
        lives = Lives(home, rng)
        for _ in range(6):
            lives.live()
            told_ms = lives.told_ms
            home.crash(rng if power else None)
            home.survey()
            known_ms = home.scheduled_ms
            truth_ms = home.stored()
            if truth_ms is not None and (truth_ms == told_ms or not power):
                assert known_ms is not None, f"seed {seed}: it is lost"
                assert known_ms <= truth_ms, f"seed {seed}: it is late"
            assert home.scheduled_ms == truth_ms, f"seed {seed}"
