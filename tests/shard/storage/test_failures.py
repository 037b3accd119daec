"""When the disk misbehaves: only the object concerned is reset, and it works again afterwards."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageError, StorageUnavailable, Unavailable
from tests.shard.storage.support import GENERATION, ForgetfulDisk, Home
from workers.storage import DurableObjectStorage as Storage


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can become longer than *room* bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_at_the_commit(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    outcome: list[Any] = []
    with full_disk(40_000):
        home.run(lambda s: s.kv.put("b", "x" * 60_000))
        home.turn(5)
        assert home.slot.activation is None, "it was not reset"
        # A second try is refused in the same way, while reading works.
        assert home.run(lambda s: s.kv.get("a")) == 1
    home.run(lambda s: s.kv.put("b", "x" * 60_000))
    home.settle()
    assert home.run(lambda s: len(s.kv.get("b"))) == 60_000
    assert outcome == []


def test_a_full_disk_says_so_to_whoever_waits(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    lost: list[Any] = []
    with full_disk(40_000):

        def body(s: Storage) -> None:
            s.kv.put("b", "x" * 60_000)
            home.gate.push(lambda: lost.append("told"), lost.append)

        home.run(body)
        home.turn(5)
    assert isinstance(lost[0], StorageUnavailable)
    assert lost[0].retryable
    assert str(home.path) in str(lost[0])
    assert home.run(lambda s: s.kv.get("b")) is None


def test_a_folder_that_cannot_be_written(home: Home) -> None:
    if os.geteuid() == 0:
        home.folder.rmdir()
        home.folder.write_text("a file where the folder should be")
    else:
        home.folder.chmod(0o500)
    with pytest.raises(StorageUnavailable):
        home.run(lambda s: s.kv.put("a", 1))
    if home.folder.is_file():
        home.folder.unlink()
    else:
        home.folder.chmod(0o700)
    home.run(lambda s: s.kv.put("a", 1))
    assert home.run(lambda s: s.kv.get("a")) == 1


@pytest.mark.parametrize("left", [0, 700, 5738, 8192])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_file_that_was_being_made_when_the_power_failed(
    home: Home, left: int, zeros: bool
) -> None:
    """Its log was told to nobody, whatever is left of that."""
    home.run(lambda s: s.kv.put("a", "x" * 20_000))
    home.sleep()
    home.engine.shut()
    image = home.path.read_bytes()
    # A file's new length may be on disk before its contents.
    torn = image[:left] + bytes(len(image) - left) if zeros else image[:left]
    home.path.write_bytes(torn)
    home._start()
    assert home.run(lambda s: s.kv.get("a")) is None
    home.run(lambda s: s.kv.put("a", 1))
    home.restart()
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_a_file_that_was_cut_short_is_not_taken_for_one_that_was_being_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=65_536)
    fill(home, checkpointed=True)
    home.sleep()
    home.engine.shut()
    log = Path(f"{home.path}-wal")
    before = log.read_bytes()
    os.truncate(home.path, 5000)
    home._start()
    with pytest.raises(StorageError, match="damaged"):
        home.run(lambda s: s.kv.get("a"))
    assert log.read_bytes() == before
    home.close()


def test_a_file_that_is_not_a_database(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.sleep()
    home.engine.shut()
    home.path.write_bytes(b"not a database, and long enough to be taken for one" * 1000)
    home._start()
    with pytest.raises(StorageError, match="damaged") as caught:
        home.run(lambda s: s.kv.get("a"))
    assert not caught.value.retryable
    assert str(home.path) in str(caught.value)


DELETIONS = ("database", "log", "both", "folder", "replaced")


def displace(path: Path, what: str) -> None:
    if what == "folder":
        shutil.rmtree(path.parent)
    elif what == "replaced":
        shutil.copy(path, f"{path}.x")
        Path(f"{path}.x").replace(path)
    if what in ("database", "both"):
        path.unlink()
    if what in ("log", "both"):
        Path(f"{path}-wal").unlink()


def fill(home: Home, *, checkpointed: bool) -> None:
    """Half of the data in the database's file, if so, and half of it in the log."""

    def body(s: Storage) -> None:
        s.sql.exec("CREATE TABLE t (n)")
        s.sql.exec("INSERT INTO t VALUES (1)")
        s.kv.put("a", "x" * 100_000)

    home.run(body)
    home.settle()
    if checkpointed:
        assert not Path(f"{home.path}-wal").stat().st_size
    home.run(lambda s: s.sql.exec("INSERT INTO t VALUES (2)"))
    home.settle()


def contents(home: Home) -> Any:
    def body(s: Storage) -> Any:
        assert s.sql.exec("PRAGMA quick_check").one().quick_check == "ok"
        return [row.n for row in s.sql.exec("SELECT n FROM t ORDER BY n")], len(s.kv.get("a"))

    return home.run(body)


@pytest.mark.parametrize("what", DELETIONS)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_files_deleted_under_us_are_put_back_when_a_commit_finds_out(
    tmp_path: Path, what: str, checkpointed: bool
) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=65_536 if checkpointed else 1 << 20)
    fill(home, checkpointed=checkpointed)
    displace(home.path, what)
    lost: list[Any] = []

    def body(s: Storage) -> None:
        s.sql.exec("INSERT INTO t VALUES (3)")
        home.gate.push(lambda: lost.append("told"), lost.append)

    home.run(body)
    home.settle()
    assert isinstance(lost[0], StorageError)
    assert str(home.path) in str(lost[0])
    # The commit whose outcome nobody was told may be there or not; everything else is.
    numbers, size = contents(home)
    assert (numbers[:2], size) == ([1, 2], 100_000)
    home.run(lambda s: s.sql.exec("INSERT INTO t VALUES (4)"))
    home.restart()
    assert contents(home) == ([*numbers, 4], 100_000)
    home.close()


@pytest.mark.parametrize("what", DELETIONS)
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_files_deleted_under_us_are_put_back_when_they_are_closed(
    tmp_path: Path, what: str, checkpointed: bool, how: str
) -> None:
    home = Home(tmp_path / "data", wal_checkpoint_bytes=65_536 if checkpointed else 1 << 20)
    fill(home, checkpointed=checkpointed)
    displace(home.path, what)
    if how == "sleep":
        home.sleep()
    else:
        home.engine.shut()
    home.engine.shut()
    home._start()
    assert contents(home) == ([1, 2], 100_000)
    left = sorted(each.name.removeprefix(home.path.stem) for each in home.path.parent.iterdir())
    left = [each for each in left if not each.startswith(".sqlite-history")]
    assert left[:2] == [".sqlite", ".sqlite-wal"]
    assert left[2:] == ([".sqlite.replaced"] if what == "replaced" else [])
    home.close()


def test_an_object_whose_files_are_being_put_back_says_so(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    home.path.unlink()
    jobs: list[Any] = []
    syncer: Any = home.engine.syncer
    syncer.run = lambda work, done: jobs.append((work, done))
    home.sleep()
    with pytest.raises(StorageUnavailable, match="put back") as refused:
        home.run(lambda s: s.kv.get("a"))
    assert refused.value.retryable
    for work, done in jobs:
        work()
        done(None)
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_after_a_failed_sync_nothing_is_built_on_what_may_be_lost(tmp_path: Path) -> None:
    """The kernel takes pages that could not be written for clean: they must be written anew."""
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk)
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    durable = Path(f"{home.path}-wal").stat().st_size
    disk.error = OSError(errno.EIO, "Input/output error")
    home.run(lambda s: s.kv.put("a", 2))
    home.turn(10)
    assert Path(f"{home.path}-wal").stat().st_size == durable
    disk.error = None
    home.run(lambda s: s.kv.put("b", 1))
    home.settle()
    assert home.run(lambda s: [s.kv.get("a"), s.kv.get("b")]) == [1, 1]
    home.close()


def test_commits_are_fenced_once_the_partition_has_gone(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    home.generation = None
    home.run(lambda s: s.kv.put("a", 2))
    home.turn(3)
    assert home.slot.activation is None
    with pytest.raises(Unavailable):
        home.run(lambda s: s.kv.get("a"))
    home.generation = GENERATION + 2
    assert home.run(lambda s: s.kv.get("a")) == 1


@pytest.mark.parametrize("displaced", [False, True])
def test_a_former_owner_touches_no_file_any_more(tmp_path: Path, displaced: bool) -> None:
    """The next owner has them: what this one does not know to be on disk may be the other's."""
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk)
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    home.run(lambda s: s.kv.put("a", 2))
    disk.error = OSError(errno.EIO, "Input/output error")
    home.generation = None  # while the commit is under way
    if displaced:
        displace(home.path, "replaced")
    log = Path(f"{home.path}-wal")
    before = home.path.stat().st_ino, log.stat().st_size
    home.settle()
    assert home.slot.activation is None
    assert (home.path.stat().st_ino, log.stat().st_size) == before
    home.close()


def test_a_file_of_a_later_owner_is_not_touched(home: Home) -> None:
    home.generation = GENERATION + 1
    home.run(lambda s: s.kv.put("a", 1))
    home.sleep()
    home.generation = GENERATION
    with pytest.raises(Unavailable):
        home.run(lambda s: s.kv.get("a"))
    # After a power cut generations begin anew, and say nothing of files of before.
    home.engine.shut()
    home.epoch = "another boot"
    home._start()
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_an_error_of_the_app_resets_nothing(home: Home) -> None:
    def body(s: Storage) -> None:
        s.kv.put("a", 1)
        for query in ("nonsense", "SELECT * FROM nope", "INSERT INTO _cf_KV VALUES (1, 2)"):
            with pytest.raises(Exception):  # noqa: B017, PT011
                s.sql.exec(query)

    home.run(body)
    assert home.run(lambda s: s.kv.get("a")) == 1
    assert home.lives == 1
