"""Backup, restore and verify: with a cluster of real processes under load, and without one."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import apsw
import pytest

from common.errors import ConfigError
from common.ownership import FlockOwnership
from common.settings import Settings
from local import manifest
from local.backup import backup
from local.object_files import Damaged, objects_of, partitions_in
from local.restoring import restore
from local.verification import verify_backup, verify_data
from shard.alarms.index_format import Entry, encode_all
from shard.still import RESTORING, refuse_half_restored
from shard.storage.epoch import boot_epoch
from tests.running import ROOT, RunningCluster, limpet_up, until
from tests.shard.storage.support import Home
from workers.storage import DurableObjectStorage

LEDGER = ROOT / "tests/apps/ledger"


def quiet(text: str) -> None:
    pass


def limpet(*arguments: object) -> tuple[int, str]:
    """Run the command as a person would; its exit code and what it said."""
    ran = subprocess.run(
        [sys.executable, "-m", "local.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


# --- with a cluster ------------------------------------------------------------------------------


class Writers:
    """Threads that write to objects and note what was acknowledged."""

    def __init__(self, port: int, names: list[str]) -> None:
        self.acknowledged = dict.fromkeys(names, 0)
        self.waits: list[float] = []
        self.errors: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(name,)) for name in names]
        for thread in self._threads:
            thread.start()

    def _write(self, name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            began_at = time.monotonic()
            connection.request("POST", f"/{name}")
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                self.errors.append(text.decode())
                continue
            self.acknowledged[name] = json.loads(text)
            self.waits.append(time.monotonic() - began_at)
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def told(cluster: RunningCluster, name: str) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    connection.request("GET", f"/{name}")
    found: list[int] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@pytest.mark.processes
def test_a_backup_under_load_has_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    """And no transaction is half there; nobody waits noticeably; verify finds nothing wrong."""
    names = [f"room{number}" for number in range(12)]
    with limpet_up(LEDGER, shards=2, wal_checkpoint_bytes=262_144) as cluster:
        data, run = cluster.folder / "data", cluster.folder / "run"
        writers = Writers(cluster.port, names)
        until(lambda: min(writers.acknowledged.values()) > 25, "some writes")
        quiet_waits = sorted(writers.waits)
        writers.waits.clear()
        before = dict(writers.acknowledged)
        code, said = limpet("backup", tmp_path / "b", "--data-dir", data, "--run-dir", run)
        assert code == 0, said
        assert f"backed up {len(names)} objects" in said
        waits = sorted(writers.waits)
        code, said = limpet("verify", "--data-dir", data, "--run-dir", run)
        assert (code, said.count("nothing wrong")) == (0, 1), said
        writers.stop()
        assert writers.errors == []
        for pid in cluster.pids("shard"):
            os.kill(pid, signal.SIGKILL)
        print(f"quiet: median {statistics.median(quiet_waits) * 1000:.1f} ms, "
              f"longest {quiet_waits[-1] * 1000:.1f}; during the backup: "
              f"{statistics.median(waits) * 1000:.1f}, {waits[-1] * 1000:.1f}")  # fmt: skip
    code, said = limpet("verify", tmp_path / "b")
    assert code == 0, said
    code, said = limpet("restore", tmp_path / "b", "--data-dir", tmp_path / "data")
    assert code == 0, said
    with limpet_up(LEDGER, shards=3, data_dir=tmp_path / "data") as elsewhere:
        for name in names:
            number, count, last = told(elsewhere, name)
            assert number == count == last, "half a transaction"
            assert before[name] <= number <= writers.acknowledged[name]
        writers = Writers(elsewhere.port, names[:2])
        until(lambda: min(writers.acknowledged.values()) > before[names[0]], "further writes")
        writers.stop()
        assert writers.errors == []


@pytest.mark.processes
def test_a_backup_outlives_the_shards_that_die_meanwhile(tmp_path: Path) -> None:
    """What was copied from a partition whose shard has died is copied again."""
    names = [f"room{number}" for number in range(20)]
    settings = {"wal_checkpoint_bytes": 65_536, "restart_backoff_min_s": 0.01}
    with limpet_up(LEDGER, shards=2, **settings) as cluster:
        data, run = cluster.folder / "data", cluster.folder / "run"
        writers = Writers(cluster.port, names)
        until(lambda: min(writers.acknowledged.values()) > 5, "some writes")
        before = dict(writers.acknowledged)
        command = ["backup", str(tmp_path / "b"), f"--data-dir={data}", f"--run-dir={run}"]
        making = subprocess.Popen(
            [sys.executable, "-m", "local.cli", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until(lambda: (tmp_path / "b").is_dir() and len(list((tmp_path / "b").iterdir())) > 4,
              "the first copies")  # fmt: skip
        for pid in cluster.pids("shard"):
            os.kill(pid, signal.SIGKILL)
        said, _ = making.communicate(timeout=60)
        assert making.returncode == 0, said
        writers.stop()
    assert verify_backup(tmp_path / "b", quiet) == (20, [])
    restore(
        Settings.load({}, {"data_dir": tmp_path / "data"}), tmp_path / "b", quiet,
        replace_objects=False,
    )  # fmt: skip
    with limpet_up(LEDGER, shards=1, data_dir=tmp_path / "data") as elsewhere:
        for name in names:
            number, count, last = told(elsewhere, name)
            assert number == count == last, "half a transaction"
            assert before[name] <= number


@pytest.mark.processes
def test_a_running_cluster_is_not_restored_into_and_is_recognised(tmp_path: Path) -> None:
    with limpet_up(LEDGER, shards=1) as cluster:
        data, run = cluster.folder / "data", cluster.folder / "run"
        writers = Writers(cluster.port, ["a"])
        until(lambda: writers.acknowledged["a"] > 3, "some writes")
        writers.stop()
        assert limpet("backup", tmp_path / "b", "--data-dir", data, "--run-dir", run)[0] == 0
        code, said = limpet("restore", tmp_path / "b", "--replace", "--data-dir", data)
        assert code == 2
        assert "a cluster uses it" in said
        code, said = limpet("backup", tmp_path / "c", "--data-dir", data, "--run-dir", tmp_path)
        assert code == 2
        assert "--run-dir" in said
        other = tmp_path / "other"
        other.mkdir()
        (other / "0001").mkdir()
        (other / "0001/x").mkdir()
        (other / "0001/x/a.sqlite").touch()
        code, said = limpet("verify", "--data-dir", other, "--run-dir", run)
        assert code == 2
        assert "keeps its data in" in said


# --- without one ---------------------------------------------------------------------------------


def put(number: int, s: DurableObjectStorage) -> None:
    s.kv.put("n", number)


def fill(tmp_path: Path, count: int = 5) -> Settings:
    """A data directory with some objects, whose logs have contents."""
    for number in range(count):
        home = Home(tmp_path / "data", name=f"n{number}")
        home.run(partial(put, number))
        home.settle()
        home.slot.evict()
        home.turn(5)
        home.engine.shut()
        home.loop.close()
    return Settings.load({}, {"data_dir": tmp_path / "data", "run_dir": tmp_path / "run"})


def contents(data_dir: Path, count: int = 5) -> list[int]:
    found = []
    for number in range(count):
        home = Home(data_dir, name=f"n{number}")
        home.generation = 1
        found.append(home.run(lambda s: s.kv.get("n")))
        home.close()
    return found


def test_a_backup_of_a_stopped_cluster_comes_back(tmp_path: Path) -> None:
    settings = fill(tmp_path)
    made = backup(settings, tmp_path / "b", quiet)
    assert (made.objects, made.running, made.damaged) == (5, False, [])
    assert made.namespaces == {"app-Room": 5}
    assert not list((tmp_path / "b").rglob("*-wal"))
    assert verify_backup(tmp_path / "b", quiet) == (5, [])
    assert verify_data(settings, quiet) == (5, [])
    elsewhere = Settings.load({}, {"data_dir": tmp_path / "new", "run_dir": tmp_path / "run"})
    restore(elsewhere, tmp_path / "b", quiet, replace_objects=False)
    assert contents(tmp_path / "new") == [0, 1, 2, 3, 4], "also with a lower generation"


def test_a_data_directory_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    settings = fill(tmp_path)
    backup(settings, tmp_path / "b", quiet)
    held = FlockOwnership(settings.data_dir)
    held.acquire(partitions_in(settings.data_dir)[:1])
    with pytest.raises(ConfigError, match="A cluster uses it"):
        backup(settings, tmp_path / "c", quiet)
    with pytest.raises(ConfigError, match="A cluster uses it"):
        verify_data(settings, quiet)
    with pytest.raises(ConfigError, match="Stop the cluster"):
        restore(settings, tmp_path / "b", quiet, replace_objects=True)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    settings = fill(tmp_path, 1)
    backup(settings, tmp_path / "b", quiet)
    with pytest.raises(ConfigError, match="there is a backup already"):
        backup(settings, tmp_path / "b", quiet)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/diary.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        backup(settings, tmp_path / "c", quiet)
    with pytest.raises(ConfigError, match="within DATA_DIR"):
        backup(settings, settings.data_dir / "b", quiet)


def test_an_unfinished_backup_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fill(tmp_path)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            backup(settings, tmp_path / "b", quiet)
    for attempt in (
        lambda: restore(settings, tmp_path / "b", quiet, replace_objects=True),
        lambda: verify_backup(tmp_path / "b", quiet),
        lambda: backup(settings, tmp_path / "b", quiet),
    ):
        with pytest.raises(ConfigError, match="not finished"):
            attempt()


def test_objects_are_not_overwritten_unless_told(tmp_path: Path) -> None:
    settings = fill(tmp_path)
    backup(settings, tmp_path / "b", quiet)
    fill(tmp_path, 7)
    extra = tmp_path / "data/0001/alarms.index"
    extra.parent.mkdir(exist_ok=True)
    extra.touch()
    with pytest.raises(ConfigError, match="there are 7 objects already"):
        restore(settings, tmp_path / "b", quiet, replace_objects=False)
    said: list[str] = []
    restore(settings, tmp_path / "b", said.append, replace_objects=True)
    assert sum(len(objects_of(settings.data_dir, p)) for p in partitions_in(settings.data_dir)) == 5
    assert not extra.exists(), "the index of alarms is made anew"
    aside = [each for each in settings.data_dir.iterdir() if each.name.startswith(".replaced-")]
    assert len(list(aside[0].rglob("*.sqlite"))) == 7
    assert str(aside[0]) in said[-1]
    assert contents(settings.data_dir) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("what", ["changed", "missing", "list"])
def test_a_damaged_backup_is_not_restored(tmp_path: Path, what: str) -> None:
    settings = fill(tmp_path)
    backup(settings, tmp_path / "b", quiet)
    victim = sorted((tmp_path / "b").rglob("*.sqlite"))[2]
    if what == "missing":
        victim.unlink()
    else:
        path = tmp_path / "b/objects.jsonl" if what == "list" else victim
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(bytes(data))
    elsewhere = Settings.load({}, {"data_dir": tmp_path / "new", "run_dir": tmp_path / "run"})
    with pytest.raises(Damaged, match=r"checksum is wrong|missing"):
        restore(elsewhere, tmp_path / "b", quiet, replace_objects=False)
    assert not list((tmp_path / "new").rglob("*.sqlite"))
    assert not (tmp_path / "new" / RESTORING).exists()
    if what != "list":
        count, wrong = verify_backup(tmp_path / "b", quiet)
        assert (count, len(wrong)) == (5, 1)
        assert victim.name in wrong[0]


@pytest.mark.parametrize("dies_at", [0, 3, 7, 9])
def test_an_interrupted_restoration_goes_on(
    tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any of its moves; meanwhile no shard starts, and no other backup is put in."""
    settings = fill(tmp_path)
    backup(settings, tmp_path / "b", quiet)
    backup(settings, tmp_path / "other", quiet)
    fill(tmp_path, 7)
    moves = 0
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if moves > dies_at:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        try:
            restore(settings, tmp_path / "b", quiet, replace_objects=True)
        except KeyboardInterrupt:
            assert (settings.data_dir / RESTORING).exists()
            with pytest.raises(ConfigError, match="was interrupted"):
                refuse_half_restored(settings.data_dir)
            shutil.rmtree(tmp_path / "other")
            (tmp_path / "data-b").mkdir()
            backup(fill(tmp_path / "data-b", 1), tmp_path / "other", quiet)
            with pytest.raises(ConfigError, match="Finish it first"):
                restore(settings, tmp_path / "other", quiet, replace_objects=True)
    restore(settings, tmp_path / "b", quiet, replace_objects=True)
    refuse_half_restored(settings.data_dir)
    assert sum(len(objects_of(settings.data_dir, p)) for p in partitions_in(settings.data_dir)) == 5
    assert contents(settings.data_dir) == [0, 1, 2, 3, 4]


def first_object(settings: Settings) -> Path:
    return objects_of(settings.data_dir, partitions_in(settings.data_dir)[0])[0].path


def test_a_damaged_object_is_named_and_the_others_are_backed_up(tmp_path: Path) -> None:
    settings = fill(tmp_path)
    victim = first_object(settings)
    Path(f"{victim}-wal").unlink(missing_ok=True)
    victim.write_bytes(b"\0" * 20_000)
    count, wrong = verify_data(settings, quiet)
    assert count == 5
    assert len(wrong) == 1
    assert str(victim) in wrong[0]
    made = backup(settings, tmp_path / "b", quiet)
    assert made.objects == 4
    assert victim.name in made.damaged[0]
    code, said = limpet("verify", "--data-dir", settings.data_dir, "--run-dir", settings.run_dir)
    assert code == 1
    assert victim.name in said


def change(path: Path, sql: str, *bindings: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, bindings)
    connection.close()


def test_verify_sees_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    settings = fill(tmp_path)
    partitions = partitions_in(settings.data_dir)
    files = [objects_of(settings.data_dir, each)[0].path for each in partitions]
    change(files[0], "PRAGMA user_version = 9")
    change(files[1], "UPDATE _cf_META SET value = 99 WHERE key = 'generation'")
    change(files[1], "UPDATE _cf_META SET value = ? WHERE key = 'epoch'", boot_epoch())
    stranger = files[2].with_name(f"{'0' * 64}.sqlite")
    shutil.copy(files[2], stranger)
    Path(f"{files[3]}-history").write_bytes(b"")
    _, wrong = verify_data(settings, quiet)
    text = "\n".join(sorted(wrong))
    assert "format 9, not 1" in text
    assert "generation 99" in text
    assert f"{stranger}: it lies in partition" in text
    assert len(wrong) == 3


def test_verify_compares_alarms_with_their_index(tmp_path: Path) -> None:
    settings = fill(tmp_path, 3)
    files = [objects_of(settings.data_dir, each)[0] for each in partitions_in(settings.data_dir)]
    for number, file in enumerate(files):
        change(file.path, "INSERT INTO _cf_META VALUES ('alarm', 5000)")
        raw = bytes.fromhex(file.path.stem)
        due_ms = [4000, 6000, None][number]
        entries = [Entry("app-Room", raw, None, due_ms)]
        index = settings.data_dir / file.name.split("/")[0] / "alarms.index"
        index.write_bytes(encode_all(entries, complete=True)[0])
    _, wrong = verify_data(settings, quiet)
    assert len(wrong) == 2
    assert "later in the index" in wrong[0]
    assert "not in the index" in wrong[1]
