"""`limpet scale`, and shards without a supervisor that come and go: clients stay connected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.running import ROOT, RunningCluster, free_port, limpet_up, until

pytestmark = pytest.mark.processes

APP = ROOT / "tests" / "history" / "app"
ROOMS = 24


def limpet(cluster: RunningCluster, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.cli", *words, f"--run-dir={cluster.folder / 'run'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Members:
    """One client in each of many rooms, so that every shard has some."""

    def __init__(self, port: int) -> None:
        self.said = 0
        self._open = ExitStack()
        self.clients: list[ClientConnection] = [
            self._open.enter_context(
                connect(f"ws://127.0.0.1:{port}/room{each}/m{each}", proxy=None)
            )
            for each in range(ROOMS)
        ]

    def talk(self) -> None:
        """Everybody says something, and hears that it was the next message of a gapless row."""
        self.said += 1
        for client in self.clients:
            client.send(str(self.said))
        for number, client in enumerate(self.clients):
            assert json.loads(client.recv(timeout=20)) == [f"m{number}", self.said, None]

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def cluster() -> Iterator[RunningCluster]:
    with limpet_up(APP, shards=2) as cluster:
        yield cluster


def members_of(folder: Path) -> set[int]:
    return set(json.loads((folder / "run" / "membership").read_text())["shards"])


def test_up_and_down(cluster: RunningCluster) -> None:
    people = Members(cluster.port)
    for count in (4, 1, 2):
        people.talk()
        done = limpet(cluster, "scale", str(count))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{count} shards after" in done.stdout
        people.talk()
        assert members_of(cluster.folder) == set(range(count))
        healthy = limpet(cluster, "health")
        assert healthy.returncode == 0, healthy.stderr
    people.close()


def test_what_has_been_scaled_is_kept_running_and_reloaded(cluster: RunningCluster) -> None:
    people = Members(cluster.port)
    assert limpet(cluster, "scale", "3").returncode == 0
    people.talk()
    pid = cluster.pids("shard")[2]
    os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.pids("shard")[2] != pid, "a new shard 2")
    people.talk()
    done = limpet(cluster, "reload")
    assert "shard 2 runs the new code" in done.stdout
    people.talk()
    people.close()


def test_what_makes_no_sense_is_refused(cluster: RunningCluster) -> None:
    for words in (["0"], ["257"], ["two"], []):
        refused = limpet(cluster, "scale", *words)
        assert refused.returncode == 2
        assert "Error" in refused.stderr
    same = limpet(cluster, "scale", "2")
    assert (same.returncode, same.stdout) == (0, "there are 2 shards already\n")


def test_a_shard_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "wrangler.jsonc").write_text((APP / "wrangler.jsonc").read_text())
    entry = tmp_path / "entry.py"
    entry.write_text((APP / "entry.py").read_text())
    with limpet_up(tmp_path, shards=2) as cluster:
        people = Members(cluster.port)
        entry.write_text("import nothing_of_that_name\n")
        done = limpet(cluster, "scale", "3")
        assert done.returncode == 1
        assert "nothing_of_that_name" in done.stderr
        assert "The cluster goes on with 2 shards." in done.stderr
        people.talk()
        assert members_of(cluster.folder) == {0, 1}
        people.close()


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.cli", "scale", "3", f"--run-dir={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no cluster runs in" in done.stderr


class Bare:
    """A gateway and shards as containers run them: no supervisor, any number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.shards: list[subprocess.Popen[str]] = []
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "APP": str(APP),
            "PORT": str(self.port),
            "RUN_DIR": str(folder / "run"),
            "DATA_DIR": str(folder / "data"),
            "SHARDS": "2",
            "LEAVE_TIMEOUT_S": "1",
        }
        self._log = (folder / "log").open("w")
        self.gateway = self._start("gateway")
        for _ in range(2):
            self.add()
        until(self._is_up, "a gateway that serves")

    def _start(self, role: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", role],
            env=self._environ,
            cwd=self.folder,
            stdout=self._log,
            stderr=self._log,
            text=True,
        )

    def _is_up(self) -> bool:
        return "gateway.ready" in (self.folder / "log").read_text()

    def add(self) -> None:
        """Start one more shard."""
        self.shards.append(self._start("shard"))

    def index_of(self, shard: subprocess.Popen[str]) -> int:
        for lock in (self.folder / "run").glob("shard-*.lock"):
            if int(lock.read_text().split()[1]) == shard.pid:
                return int(lock.name.removeprefix("shard-").removesuffix(".lock"))
        raise AssertionError("it has no number")

    def wait_members(self, count: int) -> None:
        until(lambda: len(members_of(self.folder)) == count, f"{count} members")

    def close(self) -> None:
        for process in (self.gateway, *self.shards):
            process.terminate()
        for process in (self.gateway, *self.shards):
            assert process.wait(30) in (0, -signal.SIGKILL)
        self._log.close()


@contextmanager
def bare() -> Iterator[Bare]:
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
        processes = Bare(Path(folder))
        try:
            yield processes
        finally:
            processes.close()


def test_shards_without_a_supervisor_come_and_go() -> None:
    with bare() as processes:
        people = Members(processes.port)
        people.talk()
        processes.add()
        processes.wait_members(3)
        people.talk()
        leaving = processes.shards[0]
        index = processes.index_of(leaving)
        leaving.terminate()
        assert leaving.wait(30) == 0
        assert index not in members_of(processes.folder)
        people.talk()
        people.close()


def test_one_that_dies_is_struck_off_and_its_objects_move() -> None:
    with bare() as processes:
        people = Members(processes.port)
        people.talk()
        # What has been handled is known to be only a moment later.
        dying = processes.shards[1]
        index = processes.index_of(dying)
        os.kill(dying.pid, signal.SIGSTOP)
        os.kill(dying.pid, signal.SIGKILL)
        processes.wait_members(1)
        assert index not in members_of(processes.folder)
        open_ones = [each for each in people.clients if each.close_code is None]
        assert open_ones
        people.said += 1
        for client in open_ones:
            client.send(str(people.said))
            assert json.loads(client.recv(timeout=20))[1:] == [people.said, None]
        people.close()
