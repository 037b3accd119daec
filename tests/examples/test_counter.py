"""The counter example over real processes: calls within a shard and between two."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.running import ROOT, RunningCluster, limpet_up

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with limpet_up(ROOT / "examples/counter", shards=2) as cluster:
        yield cluster


def get(cluster: RunningCluster, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{cluster.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_each_name_has_a_counter_of_its_own(cluster: RunningCluster) -> None:
    for number in range(8):
        name = f"own-{number}"
        assert get(cluster, f"/increment?name={name}&by={number + 1}") == (200, str(number + 1))
    for number in range(8):
        assert get(cluster, f"/?name=own-{number}") == (200, str(number + 1))


def test_an_apps_own_exception_keeps_its_class_between_processes(cluster: RunningCluster) -> None:
    for number in range(4):
        status, text = get(cluster, f"/decrement?name=low-{number}")
        assert status == 409
        assert text == f"low-{number} is at 0: it cannot go 1 lower\n"


def test_counters_call_each_other(cluster: RunningCluster) -> None:
    get(cluster, "/increment?name=giver&by=20")
    for number in range(4):
        status, text = get(cluster, f"/move?name=giver&to=taker-{number}&amount=5")
        assert (status, json.loads(text)) == (
            200,
            {"giver": 15 - 5 * number, f"taker-{number}": 5},
        )
    assert get(cluster, "/move?name=giver&to=taker-0&amount=1")[0] == 409


def test_a_counter_calls_the_function_it_was_given(cluster: RunningCluster) -> None:
    for number in range(4):
        assert get(cluster, f"/count?name=told-{number}&to=3") == (200, "1\n2\n3\n")


def test_a_request_without_a_name_is_told_so(cluster: RunningCluster) -> None:
    assert get(cluster, "/")[0] == 400
    assert get(cluster, "/elsewhere?name=a")[0] == 404
