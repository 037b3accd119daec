"""Alarms of real processes: kills with -9, a lost index, and many at once."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT, RunningCluster, limpet_up, until

pytestmark = pytest.mark.processes

BELLS = ROOT / "tests" / "apps" / "bells"


def ask(cluster: RunningCluster, path: str, method: str = "GET") -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.port}{path}", method=method)
    with opener.open(request, timeout=60) as answer:
        return json.loads(answer.read())


def set_alarms(
    cluster: RunningCluster, names: list[str], at_ms: float, **options: float
) -> dict[str, int]:
    more = "".join(f"&{key}={value:g}" for key, value in options.items())
    url = f"/set?names={','.join(names)}&at_ms={int(at_ms)}{more}"
    due: dict[str, int] = ask(cluster, url, "POST")
    return due


def rung(cluster: RunningCluster, names: list[str]) -> dict[str, Any]:
    reports: dict[str, Any] = ask(cluster, f"/rung?names={','.join(names)}")
    return reports


def all_ended(cluster: RunningCluster, names: list[str]) -> bool:
    return all(each["ended"] for each in rung(cluster, names).values())


def check(cluster: RunningCluster, due: dict[str, int]) -> None:
    """Each has rung for what it was set for, none of them early, and knew its name."""
    for name, report in rung(cluster, list(due)).items():
        assert report["ended"] >= 1, name
        assert report["due"] is None, name
        for scheduled_ms, at_ms, own_name in report["began"]:
            assert scheduled_ms == due[name]
            assert at_ms >= scheduled_ms, f"{name} rang early"
            assert own_name == name


def now_ms() -> float:
    return time.time() * 1000


def kill_shards(cluster: RunningCluster) -> None:
    old = cluster.pids("shard")
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    until(lambda: set(cluster.pids("shard")).isdisjoint(old), "the shards' successors")


def test_a_kill_loses_no_alarm_that_waits_or_runs() -> None:
    """At random moments, while alarms become due and handlers are in the middle of their work."""
    seed = int(os.environ.get("ALARMS_SEED", random.randrange(1 << 30)))
    print(f"ALARMS_SEED={seed}")
    rng = random.Random(seed)
    quick = [f"quick-{number}" for number in range(40)]
    slow = [f"slow-{number}" for number in range(10)]
    with limpet_up(BELLS, shards=2) as cluster:
        start_ms = now_ms() + 1_500
        due = set_alarms(cluster, quick, start_ms, apart_ms=100)
        due |= set_alarms(cluster, slow, start_ms, apart_ms=300, work_ms=800)
        until(lambda: now_ms() > start_ms, "the first alarm")
        for _ in range(3):
            pause_until = time.monotonic() + rng.uniform(0.2, 0.8)
            until(lambda end=pause_until: time.monotonic() > end, "the moment of the kill")  # type: ignore[misc]
            kill_shards(cluster)
        until(lambda: all_ended(cluster, list(due)), "every alarm")
        check(cluster, due)


@pytest.mark.parametrize("damage", ["deleted", "garbled", "cut"])
def test_an_index_that_was_lost_while_nothing_ran_is_made_anew(tmp_path: Path, damage: str) -> None:
    names = [f"bell-{number}" for number in range(12)]
    with limpet_up(BELLS, shards=2, data_dir=tmp_path) as cluster:
        due = set_alarms(cluster, names[:6], now_ms() + 500_000)  # to come
        set_alarms(cluster, names[:6], now_ms() + 3_000)
        due = set_alarms(cluster, names, now_ms() + 3_000)
    indexes = list(tmp_path.glob("*/alarms.index"))
    assert len(indexes) >= 6
    for index in indexes:
        match damage:
            case "deleted":
                index.unlink()
            case "garbled":
                index.write_bytes(os.urandom(200))
            case _:
                index.write_bytes(index.read_bytes()[:-1])
    until(lambda: now_ms() > max(due.values()), "their time, with nobody there")
    with limpet_up(BELLS, shards=3, data_dir=tmp_path) as cluster:
        until(lambda: all_ended(cluster, names), "every alarm")
        check(cluster, due)
        until(lambda: len(list(tmp_path.glob("*/alarms.index"))) >= len(indexes), "the new indexes")


def test_alarms_are_in_the_status_and_the_metrics() -> None:
    with limpet_up(BELLS, shards=1) as cluster:
        set_alarms(cluster, ["a", "b"], now_ms() + 3_600_000)
        set_alarms(cluster, ["c"], now_ms())
        until(lambda: all_ended(cluster, ["c"]), "the alarm")
        metrics = admin(cluster, "metrics")
        for line in ("limpet_alarms{", "limpet_alarm_runs_total{"):
            (found,) = [each for each in metrics.splitlines() if each.startswith(line)]
            assert found.split()[-1] == ("2.0" if line == "limpet_alarms{" else "1.0")


class AdminConnection(http.client.HTTPConnection):
    """To a process's own socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def admin(cluster: RunningCluster, path: str) -> str:
    with closing(AdminConnection(cluster.folder / "run" / "shard-0.admin.sock")) as connection:
        connection.request("GET", f"/{path}")
        return connection.getresponse().read().decode()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_alarms_within_one_second(capsys: pytest.CaptureFixture[str]) -> None:
    """Of sleeping objects on one shard, with the disk waited for; prints how late they were."""
    count, at_once = 10_000, 250
    with limpet_up(BELLS, shards=1) as cluster:
        names = [str(number) for number in range(count)]
        start_ms = now_ms() + 90_000
        due: dict[str, int] = {}
        for at in range(0, count, at_once):
            part = names[at : at + at_once]
            due |= set_alarms(cluster, part, start_ms + at * 1000 / count, apart_ms=1000 / count)
        assert now_ms() < start_ms - 15_000, "they were not set in time"
        assert max(due.values()) - min(due.values()) < 1000
        until(lambda: now_ms() > start_ms, "their time", 120)
        until(lambda: len(ask(cluster, "/late")) >= count, "every alarm", 120)
        late_ms = ask(cluster, "/late")
        for at in range(0, count, at_once):
            part = names[at : at + at_once]
            check(cluster, {name: due[name] for name in part})
    assert len(late_ms) == count, "one rang twice"
    assert late_ms[0] >= 0
    with capsys.disabled():
        print(
            f"\n{count} alarms within one second, one shard: late "
            + ", ".join(
                f"p{percent} {late_ms[min(count - 1, count * percent // 100)]:.0f} ms"
                for percent in (50, 90, 99, 100)
            )
        )
