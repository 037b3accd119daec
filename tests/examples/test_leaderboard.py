"""The leaderboard example over real processes: ranks, live updates, and what survives them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.running import ROOT, RunningCluster, limpet_up, until

pytestmark = pytest.mark.processes

APP = ROOT / "examples" / "leaderboard"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with limpet_up(APP, shards=2, idle_timeout_s=0.5) as cluster:
        yield cluster


def ask(cluster: RunningCluster, path: str, method: str = "GET", body: Any = None) -> Any:
    """A request's status, and its JSON."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.port}{path}", data=data, method=method
    )
    try:
        with OPENER.open(request, timeout=20) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def record(cluster: RunningCluster, board: str, *results: tuple[str, int]) -> Any:
    body = [{"player": player, "score": score} for player, score in results]
    return ask(cluster, f"/boards/{board}/scores", "POST", body)


def ranks(rows: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    return [(row["rank"], row["player"], row["score"]) for row in rows]


async def hear(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        news: dict[str, Any] = json.loads(await ws.recv())
    return news


def test_ranks_of_equal_scores_and_pages(cluster: RunningCluster) -> None:
    games = [("ann", 3), ("bob", 5), ("ann", 7), ("cid", 5), ("dan", 1), ("bob", 2)]
    status, places = record(cluster, "ranks", *games)
    assert status == 201
    assert places[0] == {"player": "ann", "rank": 1, "score": 7, "games": 2}
    standings = [(1, "ann", 7), (2, "bob", 5), (2, "cid", 5), (4, "dan", 1)]
    for query in ("", "?window=day", "?window=week&limit=100"):
        assert ranks(ask(cluster, f"/boards/ranks{query}")[1]) == standings
    assert ranks(ask(cluster, "/boards/ranks?limit=2&offset=1")[1]) == standings[1:3]


def test_a_player_and_the_neighbours(cluster: RunningCluster) -> None:
    record(cluster, "near", *((f"p{number}", number) for number in range(10)), ("p5", 1))
    status, found = ask(cluster, "/boards/near/players/p5")
    assert (status, found["rank"], found["games"]) == (200, 5, 2)
    assert [row["player"] for row in found["neighbours"]] == ["p7", "p6", "p5", "p4", "p3"]
    assert [game["score"] for game in found["last"]] == [1, 5]
    assert ask(cluster, "/boards/near/players/p5", "DELETE") == (204, None)
    assert ask(cluster, "/boards/near/players/p5")[0] == 404
    assert ask(cluster, "/boards/near/players/p5", "DELETE")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        [],
        [1],
        {"player": "ann"},
        {"player": "", "score": 1},
        {"player": "a" * 33, "score": 1},
        {"player": "ann", "score": 1.5},
        {"player": "ann", "score": True},
        {"player": "ann", "score": 2**53},
        [{"player": "ann", "score": 1}, {"player": "bob", "score": "2"}],
    ],
)
def test_a_bad_result_records_nothing(cluster: RunningCluster, body: Any) -> None:
    status, told = ask(cluster, "/boards/bad/scores", "POST", body)
    assert (status, list(told)) == (400, ["error"])
    assert ask(cluster, "/boards/bad") == (200, [])


@pytest.mark.parametrize("query", ["window=year", "limit=0", "limit=101", "limit=x", "offset=-1"])
def test_bad_queries_are_refused(cluster: RunningCluster, query: str) -> None:
    assert ask(cluster, f"/boards/bad?{query}")[0] == 400


@pytest.mark.parametrize("path", ["/elsewhere", "/boards/", "/boards/a/b", "/boards/a/players/x"])
def test_what_is_not_there(cluster: RunningCluster, path: str) -> None:
    assert ask(cluster, path)[0] == 404


async def test_watchers_see_each_change_of_the_top(cluster: RunningCluster) -> None:
    url = f"ws://127.0.0.1:{cluster.port}/boards/live%2Fboard"
    async with connect(url, proxy=None) as one, connect(url, proxy=None) as other:
        for ws in (one, other):
            assert await hear(ws) == {"board": "live/board", "players": 0, "top": []}
        await asyncio.to_thread(record, cluster, "live%2Fboard", ("<b>ann</b>", 3))
        for ws in (one, other):
            assert ranks((await hear(ws))["top"]) == [(1, "<b>ann</b>", 3)]


async def test_scores_and_watchers_survive_a_killed_shard(cluster: RunningCluster) -> None:
    async with connect(f"ws://127.0.0.1:{cluster.port}/boards/held", proxy=None) as ws:
        await hear(ws)
        await asyncio.to_thread(record, cluster, "held", ("ann", 3))
        await hear(ws)
        killed = cluster.pids("shard")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(
            until, lambda: not set(killed) & set(cluster.pids("shard")), "new shards"
        )
        status, places = await asyncio.to_thread(record, cluster, "held", ("bob", 5))
        assert (status, places[0]["rank"]) == (201, 1)
        assert ranks((await hear(ws))["top"]) == [(1, "bob", 5), (2, "ann", 3)]


def test_scores_survive_the_whole_cluster() -> None:
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
        data = Path(folder) / "data"
        for start in range(3):
            with limpet_up(APP, shards=1 + start % 2, data_dir=data) as cluster:
                standings = ask(cluster, "/boards/kept")[1]
                assert ranks(standings) == [(1 + n, f"p{start - 1 - n}", start - 1 - n)
                                            for n in range(start)]  # fmt: skip
                assert record(cluster, "kept", (f"p{start}", start))[0] == 201
                if start == 1:  # not even in good order
                    cluster.process.kill()
                    cluster.wait()


def test_the_page_never_takes_text_for_html(cluster: RunningCluster) -> None:
    with OPENER.open(f"http://127.0.0.1:{cluster.port}/", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        page = answer.read().decode()
    assert "<title>Leaderboard</title>" in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)
