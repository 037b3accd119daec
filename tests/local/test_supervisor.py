"""Rules of `local.supervisor`, with real processes that only pretend to be gateways and shards.

The supervisor itself is run in a process of its own (`supervise.py`), as `limpet up` runs it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.running import PATIENCE_S, ROOT, is_running, until

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent


@dataclass
class Cluster:
    """A supervisor under test and the story its children tell."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    others: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def story(self) -> Path:
        return self.folder / "story"

    def start(self, behaviour: str = "serve", **settings: object) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RUN_DIR": str(self.folder / "run"),
            "DATA_DIR": str(self.folder / "data"),
            "RESTART_BACKOFF_MIN_S": "0.01",
            "STOP_TIMEOUT_S": "4",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / "supervise.py"), str(self.story), behaviour],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.others.append(process)
        self.process = process
        return process

    def start_and_wait(self, behaviour: str = "serve", **settings: object) -> None:
        process = self.start(behaviour, **settings)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            if line == "READY\n":
                return
            lines.append(line)
        raise AssertionError(f"the supervisor ended: {''.join(lines)}")

    def events(self, what: str) -> list[tuple[str, int]]:
        """Return (role, pid) of each event of that kind, oldest first."""
        if not self.story.exists():
            return []
        lines = [line.split() for line in self.story.read_text().splitlines()]
        return [(role, int(pid)) for kind, role, _, pid in lines if kind == what]

    def pids(self) -> list[int]:
        return [pid for _, pid in self.events("start")]

    def is_over(self) -> bool:
        return not any(is_running(pid) for pid in self.pids())

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        assert self.process is not None
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("c"))
    yield cluster
    for process in cluster.others:
        if process.poll() is None:
            process.kill()
        process.communicate()
    until(cluster.is_over, "every process to end with its supervisor")


def test_every_member_is_started_and_only_then_is_the_cluster_ready(cluster: Cluster) -> None:
    cluster.start_and_wait(shards=3, gateways=2)
    roles = sorted(role for role, _ in cluster.events("ready"))
    assert roles == ["gateway", "gateway", "shard", "shard", "shard"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_gateways_before_shards_and_leaves_nothing(
    cluster: Cluster, number: signal.Signals
) -> None:
    cluster.start_and_wait(shards=2, gateways=2)
    cluster.signal(number)
    code, _ = cluster.wait()
    assert code == 0
    assert [role for role, _ in cluster.events("term")] == ["gateway"] * 2 + ["shard"] * 2
    assert cluster.is_over()
    left = {path.name for path in (cluster.folder / "run").iterdir()}
    assert left == {"membership", "membership.lock", "supervisor.lock"}


def test_what_does_not_stop_in_time_is_cut_off(cluster: Cluster) -> None:
    cluster.start_and_wait("stubborn", shards=1, stop_timeout_s=0.4)
    cluster.signal(signal.SIGTERM)
    code, out = cluster.wait()
    assert code == 0
    assert "process.cut_off" in out
    assert cluster.is_over()


def test_a_second_interrupt_ends_everything_at_once(cluster: Cluster) -> None:
    cluster.start_and_wait("stubborn", shards=1, stop_timeout_s=3600)
    cluster.signal(signal.SIGINT)
    until(lambda: cluster.events("term"), "the gateway to hear of the stop")
    cluster.signal(signal.SIGINT)
    code, _ = cluster.wait()
    assert code == 0


def test_a_killed_member_is_started_again(cluster: Cluster) -> None:
    cluster.start_and_wait(shards=2)
    (victim, survivor) = [pid for role, pid in cluster.events("ready") if role == "shard"]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(cluster.events("ready")) == 4, "the shard to be back")
    assert is_running(survivor)
    cluster.signal(signal.SIGTERM)
    code, out = cluster.wait()
    assert code == 0
    assert "was ended by SIGKILL" in out


def test_what_a_killed_member_had_started_ends_with_it(cluster: Cluster) -> None:
    cluster.start_and_wait("parent", shards=1, gateways=1)
    below = int(cluster.story.with_suffix(".below").read_text())
    cluster.signal(signal.SIGTERM)
    cluster.wait()
    until(lambda: not is_running(below), "the grandchild to end")


def test_no_child_outlives_a_supervisor_that_was_killed(cluster: Cluster) -> None:
    cluster.start_and_wait(shards=2)
    cluster.signal(signal.SIGKILL)
    until(cluster.is_over, "every process to follow its supervisor")


def test_even_a_child_that_ignores_sigterm_follows_a_killed_supervisor(cluster: Cluster) -> None:
    cluster.start_and_wait("stubborn", shards=1)
    cluster.signal(signal.SIGKILL)
    until(cluster.is_over, "every process to follow its supervisor")


def test_a_new_supervisor_waits_for_the_children_of_a_killed_one(cluster: Cluster) -> None:
    cluster.start_and_wait("stubborn", shards=1)
    old = cluster.pids()
    cluster.signal(signal.SIGKILL)
    cluster.start_and_wait(shards=1)
    assert not any(is_running(pid) for pid in old)


def test_a_second_supervisor_is_refused_and_told_the_first_ones_pid(cluster: Cluster) -> None:
    cluster.start_and_wait(shards=1)
    first = cluster.process
    assert first is not None
    cluster.start(shards=1)
    code, out = cluster.wait()
    assert code == 2
    assert f"supervisor pid {first.pid}" in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("refuse", "the app is broken"), ("silent", "exited with code 3 before it was ready")],
)
def test_a_cluster_that_cannot_start_says_why_and_ends(
    cluster: Cluster, behaviour: str, reason: str
) -> None:
    cluster.start(behaviour, shards=2)
    code, out = cluster.wait()
    assert code == 1
    assert reason in out
    assert "Traceback" not in out


def test_a_stop_during_the_start_is_obeyed(cluster: Cluster) -> None:
    cluster.start(shards=4, gateways=4)
    until(lambda: cluster.events("start"), "a first process")
    cluster.signal(signal.SIGTERM)
    code, _ = cluster.wait()
    assert code == 0
