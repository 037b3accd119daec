"""When the disk misbehaves: only the object concerned is reset, and it works again afterwards."""

from __future__ import annotations

import errno
import os
import resource
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


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_deleted_under_us_is_noticed_before_anything_is_told(
    home: Home, suffix: str
) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    Path(f"{home.path}{suffix}").unlink()
    lost: list[Any] = []

    def body(s: Storage) -> None:
        s.kv.put("a", 2)
        home.gate.push(lambda: lost.append("told"), lost.append)

    home.run(body)
    home.turn(10)
    assert isinstance(lost[0], StorageError)
    home.run(lambda s: s.kv.put("a", 3))
    home.settle()
    assert home.run(lambda s: s.kv.get("a")) == 3


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
