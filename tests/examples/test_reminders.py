"""The reminders example: on virtual time, and over real processes that are killed and restarted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from local.cluster import Cluster
from local.virtual_time import on_virtual_time
from tests.running import ROOT, RunningCluster, limpet_up, until

APP = ROOT / "examples" / "reminders"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
DAY_S = 86_400


# --- on virtual time


async def add(cluster: Cluster, name: str, **wanted: Any) -> Any:
    async with cluster.client.post(f"/lists/{name}", data=json.dumps(wanted)) as response:
        assert response.status == 201, await response.text()
        return await response.json()


async def see(cluster: Cluster, name: str) -> tuple[list[str], list[str]]:
    """What is to come, and what has rung, the first first."""
    async with cluster.client.get(f"/lists/{name}") as response:
        lists = await response.json()
    past = [row["text"] for row in reversed(lists["past"])]
    return [row["text"] for row in lists["to_come"]], past


@on_virtual_time
async def test_reminders_come_in_the_order_of_their_times() -> None:
    async with Cluster(APP) as cluster:
        for text, in_s in (("later", 3 * DAY_S), ("tea", 240), ("soon", 60), ("also soon", 60)):
            await add(cluster, "home", text=text, in_s=in_s)
        await add(cluster, "office", text="meeting", in_s=120)
        assert await see(cluster, "home") == (["soon", "also soon", "tea", "later"], [])
        await asyncio.sleep(59.5)
        assert (await see(cluster, "home"))[1] == []
        await asyncio.sleep(1)
        assert await see(cluster, "home") == (["tea", "later"], ["soon", "also soon"])
        await asyncio.sleep(240)
        assert await see(cluster, "home") == (["later"], ["soon", "also soon", "tea"])
        assert await see(cluster, "office") == ([], ["meeting"])


@on_virtual_time
async def test_a_date_is_as_good_as_a_time_from_now() -> None:
    async with Cluster(APP) as cluster:
        at_s = int(cluster.clock.wall_s()) + 3600
        at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at_s))
        assert (await add(cluster, "a", text="at", at=at))["due_ms"] == at_s * 1000
        await add(cluster, "a", text="long ago", at="2001-01-01T00:00:00Z")
        await asyncio.sleep(1)
        assert await see(cluster, "a") == (["at"], ["long ago"])
        await asyncio.sleep(3600)
        assert await see(cluster, "a") == ([], ["long ago", "at"])


@on_virtual_time
async def test_one_that_is_dropped_does_not_come() -> None:
    async with Cluster(APP) as cluster:
        first = await add(cluster, "a", text="first", in_s=60)
        await add(cluster, "a", text="second", in_s=120)
        async with cluster.client.delete(f"/lists/a/{first['id']}") as response:
            assert response.status == 204
        async with cluster.client.delete(f"/lists/a/{first['id']}") as response:
            assert response.status == 404
        await asyncio.sleep(300)
        assert await see(cluster, "a") == ([], ["second"])


@on_virtual_time
async def test_a_repeated_one_comes_again_and_what_was_missed_comes_once() -> None:
    async with Cluster(APP, shards=1) as cluster:
        row = await add(cluster, "a", text="water the plants", in_s=60, every_s=60)
        await asyncio.sleep(185)
        assert len((await see(cluster, "a"))[1]) == 3
        await cluster.stop_shard(0)
        await asyncio.sleep(600)
        await cluster.start_shard(0)
        await asyncio.sleep(2)
        assert len((await see(cluster, "a"))[1]) == 4
        async with cluster.client.get("/lists/a") as response:
            (to_come,) = (await response.json())["to_come"]
        assert (to_come["due_ms"] - row["due_ms"]) % 60_000 == 0
        assert 0 < to_come["due_ms"] - cluster.clock.wall_s() * 1000 <= 60_000


@on_virtual_time
async def test_what_is_no_reminder_is_refused_with_words() -> None:
    async with Cluster(APP) as cluster:
        for body, words in (
            ("no JSON", "JSON"),
            ("[]", "JSON object"),
            ('{"text": " ", "in_s": 5}', "text"),
            ('{"text": "x"}', "in_s"),
            ('{"text": "x", "in_s": 5, "at": "2030-01-01T00:00:00Z"}', "either"),
            ('{"text": "x", "in_s": -1}', "in_s"),
            ('{"text": "x", "in_s": true}', "in_s"),
            ('{"text": "x", "in_s": NaN}', "in_s"),
            ('{"text": "x", "in_s": 1e300}', "in_s"),
            ('{"text": "x", "at": "2030-01-01T00:00:00"}', "at"),
            ('{"text": "x", "at": "soon"}', "at"),
            ('{"text": "x", "at": 5}', "at"),
            ('{"text": "x", "in_s": 5, "every_s": 0}', "every_s"),
            (json.dumps({"text": "x" * 501, "in_s": 5}), "500"),
        ):
            async with cluster.client.post("/lists/a", data=body) as response:
                assert response.status == 400, body
                assert words in (await response.json())["error"]
        for method, path, status in (
            ("GET", "/elsewhere", 404),
            ("GET", "/lists/", 404),
            ("PUT", "/lists/a", 405),
            ("DELETE", "/lists/a/x", 405),
            ("GET", f"/lists/{'x' * 65}", 400),
        ):
            async with cluster.client.request(method, path) as response:
                assert response.status == status, path
        assert await see(cluster, "a") == ([], [])


@on_virtual_time
async def test_the_page_is_served_and_puts_text_on_the_screen_as_text() -> None:
    async with Cluster(APP) as cluster:
        async with cluster.client.get("/") as response:
            page = await response.text()
            assert response.content_type == "text/html"
        assert "textContent" in page
        assert "innerHTML" not in page


# --- over real processes


def ask(cluster: RunningCluster, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.port}{path}", data=data)
    with OPENER.open(request, timeout=30) as answer:
        return json.loads(answer.read())


def past(cluster: RunningCluster, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ask(cluster, f"/lists/{name}")["past"]
    return rows


@pytest.mark.processes
def test_reminders_survive_kills_and_restarts(tmp_path: Path) -> None:
    """One that is watched while its shard is killed, and one whose time comes with nobody there."""
    with limpet_up(APP, shards=2, data_dir=tmp_path) as cluster:
        with connect(f"ws://127.0.0.1:{cluster.port}/lists/watched", proxy=None) as watcher:
            assert json.loads(watcher.recv(20)) == {"to_come": [], "past": []}
            soon = ask(cluster, "/lists/watched", {"text": "<b>soon</b>", "in_s": 2})
            assert len(json.loads(watcher.recv(20))["to_come"]) == 1
            for pid in cluster.pids("shard"):
                os.kill(pid, signal.SIGKILL)
            news = json.loads(watcher.recv(30))
        assert news["to_come"] == []
        (rang,) = news["past"]
        assert rang["text"] == "<b>soon</b>"
        assert rang["rang_ms"] >= rang["due_ms"] == soon["due_ms"]
        later = ask(cluster, "/lists/alone", {"text": "later", "in_s": 1.5})
    until(lambda: time.time() * 1000 > later["due_ms"], "its time, with nobody there")
    with limpet_up(APP, shards=3, data_dir=tmp_path) as cluster:
        until(lambda: past(cluster, "alone"), "the reminder")
        (rang,) = past(cluster, "alone")
        assert rang["due_ms"] == later["due_ms"]
        assert len(past(cluster, "watched")) == 1
