"""Real processes on a disk that misbehaves: only the object concerned notices, and it recovers.

The faults are injected below the processes, see ``tests/faults/disk.c``; a full disk is a small
file system of its own where the test may mount one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disk import RealDisk, needs_compiler, real_disk
from tests.running import RunningCluster, limpet_up, until

pytestmark = [pytest.mark.processes, needs_compiler]

APP = """
from workers import DurableObject, Response, WorkerEntrypoint

class Room(DurableObject):
    def put(self, number, size):
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (n, pad)")
        self.ctx.storage.sql.exec("INSERT INTO t VALUES (?, ?)", number, "x" * size)
        self.ctx.storage.kv.put("n", number)
        return number

    def get(self):
        last = self.ctx.storage.kv.get("n")
        if last is None:
            return []
        return [row.n for row in self.ctx.storage.sql.exec("SELECT n FROM t ORDER BY n")]

    def where(self):
        return str(self.ctx.id)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        what, name, *args = request.url.split("/")[3:]
        try:
            room = self.env.ROOM.getByName(name)
            return Response.json(await getattr(room, what)(*map(int, args)))
        except Exception as error:
            told = {"error": str(error), "retryable": getattr(error, "retryable", False)}
            return Response.json(told, status=503)
"""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class World:
    """A cluster of one shard, and its disk."""

    def __init__(self, cluster: RunningCluster, disk: RealDisk) -> None:
        self.cluster = cluster
        self.disk = disk

    def ask(self, path: str) -> Any:
        """The value of a call, or what its error says."""
        url = f"http://127.0.0.1:{self.cluster.port}/{path}"
        try:
            with OPENER.open(url, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())

    def file(self, name: str) -> Path:
        """The database of an object."""
        object_id = self.ask(f"where/{name}")
        return next((self.cluster.folder / "data").rglob(f"{object_id}.sqlite"))

    def asleep(self, file: Path) -> bool:
        """No process of the cluster has the file open."""
        pid = self.cluster.pids("shard")[0]
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(file) in os.readlink(each):
                    return False
        return True

    def failures(self) -> list[dict[str, Any]]:
        """What the log says of failures."""
        lines = [
            json.loads(each) for each in self.cluster.output.splitlines() if each.startswith("{")
        ]
        return [each for each in lines if each["event"] == "storage.failed"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("disk")
    app = write_app(folder / "app")
    with (
        pytest.MonkeyPatch.context() as patch,
        real_disk(folder / "faults", patch) as disk,
        limpet_up(app, shards=1, idle_timeout_s=0.3, wal_checkpoint_bytes=65_536) as cluster,
    ):
        yield World(cluster, disk)


def write_app(folder: Path) -> Path:
    folder.mkdir()
    project = {
        "name": "disk",
        "main": "entry.py",
        "durable_objects": {"bindings": [{"name": "ROOM", "class_name": "Room"}]},
        "migrations": [{"tag": "v1", "new_sqlite_classes": ["Room"]}],
    }
    (folder / "wrangler.jsonc").write_text(json.dumps(project))
    (folder / "entry.py").write_text(APP)
    return folder


FAULTS = {
    "EIO-sync": (("sync",), errno.EIO, False),
    "EIO-write": (("write",), errno.EIO, True),
    "ENOSPC-write": (("write",), errno.ENOSPC, True),
    "EROFS": (("write", "open", "truncate"), errno.EROFS, True),
    "EDQUOT-write": (("write",), errno.EDQUOT, True),
    "EIO-everything": (("write", "sync", "truncate", "open"), errno.EIO, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_the_disk_harms_one_object_for_as_long_as_it_lasts(
    world: World, fault: str
) -> None:
    kinds, error, retryable = FAULTS[fault]
    name, other = f"{fault}-a", f"{fault}-b"
    assert world.ask(f"put/{name}/1/10") == 1
    assert world.ask(f"put/{other}/1/10") == 1
    file = world.file(name)
    before = len(world.failures())
    with world.disk.failing(*kinds, match=file.stem, error=error):
        for _ in range(3):
            told = world.ask(f"put/{name}/2/20000")
            assert told["retryable"] is retryable, told
            assert file.name in told["error"]
            assert world.ask(f"put/{other}/2/10") == 2, "another object noticed"
            assert world.ask(f"get/{other}")[0] == 1
    assert world.disk.hits
    failures = world.failures()[before:]
    assert {each["object"] for each in failures} == {f"Room('{name}')"}
    assert {each["file"] for each in failures} == {str(file)}
    # The cause is gone. A commit with an unknown outcome may be there or not.
    kept = world.ask(f"get/{name}")
    assert kept[0] == 1
    assert set(kept[1:]) <= {2}
    assert world.ask(f"put/{name}/3/20000") == 3
    assert world.ask(f"get/{name}") == [*kept, 3]


def test_a_file_that_may_not_be_opened(world: World) -> None:
    assert world.ask("put/denied/1/10") == 1
    file = world.file("denied")
    until(lambda: world.asleep(file), "the object's sleep")
    with world.disk.failing("open", match=file.stem, error=errno.EACCES):
        told = world.ask("get/denied")
        assert told["retryable"]
        assert file.name in told["error"]
    assert world.ask("get/denied") == [1]
    assert world.ask("put/denied/2/10") == 2


def test_a_slow_disk_delays_its_own_object_alone(world: World) -> None:
    assert world.ask("put/slow/1/10") == 1
    assert world.ask("put/quick/1/10") == 1
    took: list[float] = []

    def put() -> None:
        began = time.monotonic()
        assert world.ask("put/slow/2/10") == 2
        took.append(time.monotonic() - began)

    with world.disk.failing("sync", match=world.file("slow").stem, delay_ms=2000):
        slow = threading.Thread(target=put)
        slow.start()
        longest = 0.0
        number = 2
        while slow.is_alive():
            began = time.monotonic()
            assert world.ask(f"put/quick/{number}/10") == number
            longest = max(longest, time.monotonic() - began)
            number += 1
        slow.join()
    assert took[0] >= 2
    assert number > 20
    assert longest < 1, f"another object waited for {longest:.2f} s"
    assert world.ask("get/slow") == [1, 2]


def test_a_damaged_file_is_said_to_be_and_a_good_copy_works_again(world: World) -> None:
    assert world.ask("put/hurt/1/200000") == 1
    file = world.file("hurt")
    until(lambda: world.asleep(file), "the object's sleep")
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    log = Path(f"{file}-wal").read_bytes()
    file.write_bytes(b"\xff" * file.stat().st_size)
    Path(f"{file}-wal").write_bytes(b"")
    told = world.ask("get/hurt")
    assert told["retryable"] is False
    assert "damaged" in told["error"]
    assert file.name in told["error"]
    assert world.ask("put/well/1/10") == 1
    shutil.copy(copy, file)
    Path(f"{file}-wal").write_bytes(log)
    copy.unlink()
    assert world.ask("get/hurt") == [1]
    assert world.ask("put/hurt/2/10") == 2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder]
        if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "data"
    with limpet_up(write_app(tmp_path / "app"), shards=1, data_dir=data) as cluster:
        world = World(cluster, None)  # type: ignore[arg-type]
        assert world.ask("put/reader/1/10") == 1
        number = 0
        while not isinstance(told := world.ask(f"put/eater/{number + 1}/400000"), dict):
            number = told
        assert told["retryable"], told
        assert "full" in told["error"]
        assert number > 5
        while not isinstance(world.ask(f"put/other{number}/1/3000"), dict):
            number += 1
        assert world.ask("get/reader") == [1], "reading goes on"
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
        kept = world.ask("get/eater")
        assert kept == list(range(1, len(kept) + 1))
        assert world.ask(f"put/eater/{len(kept) + 1}/400000") == len(kept) + 1
        assert world.ask("put/reader/2/10") == 2
        assert world.ask(f"put/other{number}/1/3000") == 1
