"""The code in the documentation runs.

A fenced block of Python or JSON begins with a comment that names its file: ``# rooms/entry.py``.
The blocks of one page are written to a folder; each app there passes `limpet check`, and does here
what the text says. Files called ``test_*.py`` are run by pytest in a process of their own, as a
reader would.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from common.settings import Settings
from local import virtual_time
from local.check import check
from local.cluster import Cluster, LoopClock

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|json)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"(?:#|//) ([\w./-]+\.(?:py|jsonc))\n")


def blocks(page: Path) -> list[str]:
    return [found[2] for found in BLOCK.finditer(page.read_text("utf-8"))]


def write_files(page: Path, folder: Path) -> None:
    for block in blocks(page):
        name = FILE_NAME.match(block)
        assert name, f"{page.name}: the first line must name the file:\n{block}"
        path = folder / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, "utf-8")


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.name)
def test_every_app_would_be_served(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    apps = list(tmp_path.glob("*/wrangler.jsonc"))
    assert apps
    for app in apps:
        findings = list(check(Settings.load({}, {"app": app})))
        assert not [each for each in findings if each.level == "error"], findings
    modules = {path.parent for path in tmp_path.rglob("*.py")}
    assert modules == {app.parent for app in apps}, "each module belongs to an app"


@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.name)
def test_every_test_passes(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    for test in tmp_path.rglob("test_*.py"):
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
            cwd=test.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


Body = Callable[[Cluster], Coroutine[Any, Any, None]]


def app(page: str, name: str) -> Callable[[Body], Callable[[Path], None]]:
    """Run a test of that app of a page, in a cluster on virtual time."""

    def decorate(test: Body) -> Callable[[Path], None]:
        async def run_cluster(folder: Path) -> None:
            settings = {"data_dir": folder / "data", "sync_threads": 0}
            async with Cluster(folder / name, settings=settings) as cluster:
                await test(cluster)

        def run(tmp_path: Path) -> None:
            write_files(ROOT / page, tmp_path)
            virtual_time.run(run_cluster(tmp_path), check_leftovers=True)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


async def get(cluster: Cluster, path: str) -> Any:
    async with cluster.client.get(path) as answer:
        return await answer.text()


@app("README.md", "hello")
async def test_the_readme_app_counts_who_is_here(cluster: Cluster) -> None:
    async with cluster.client.ws_connect("/lobby") as one:
        await one.send_str("?")
        assert await one.receive_str() == "1 in lobby"
        async with cluster.client.ws_connect("/lobby") as other:
            await other.send_str("?")
            assert await other.receive_str() == "2 in lobby"
            assert await one.receive_str() == "2 in lobby"


@app("docs/writing-an-app.md", "bank")
async def test_a_transfer_moves_money_or_is_refused(cluster: Cluster) -> None:
    assert await get(cluster, "/pay-in?account=a&amount=5") == '{"balance": 5}'
    assert await get(cluster, "/transfer?account=a&to=b&amount=2") == '{"balance": 3}'
    assert "only 3" in await get(cluster, "/transfer?account=a&to=b&amount=9")
    assert await get(cluster, "/balance?account=b") == '{"balance": 2}'
    for shard in list(cluster.shards):
        await cluster.crash_shard(shard)
        await cluster.start_shard(shard)
    assert await get(cluster, "/balance?account=a") == '{"balance": 3}'


@app("docs/writing-an-app.md", "scores")
async def test_the_best_scores_are_kept(cluster: Cluster) -> None:
    for player, score in [("ann", 3), ("bob", 5), ("ann", 1), ("cid", 4), ("dan", 2)]:
        body = {"player": player, "score": score}
        async with cluster.client.post("/", json=body) as answer:
            top = await answer.json()
    assert top == [["bob", 5], ["cid", 4], ["ann", 3]]


@app("docs/writing-an-app.md", "notes")
async def test_a_note_goes_back(cluster: Cluster) -> None:
    now_ms = LoopClock(asyncio.get_running_loop()).wall_s() * 1000
    for text in ("first", "second"):
        async with cluster.client.put("/", data=text) as answer:
            assert (await answer.json())["text"] == text
        await asyncio.sleep(10)
    async with cluster.client.post("/", data=str(now_ms + 5000)) as answer:
        went = await answer.json()
    assert went["text"] == "first"
    assert len(went["undo"]) == 59


@app("docs/writing-an-app.md", "clock")
async def test_timers_run_when_they_are_due(cluster: Cluster) -> None:
    assert await get(cluster, "/ring") == "0 of 12"
    await asyncio.sleep(6)
    assert await get(cluster, "/") == "1 of 12"
    await asyncio.sleep(5)
    assert await get(cluster, "/") == "2 of 12"


@app("docs/writing-an-app.md", "proxy")
async def test_an_upstream_that_is_away_is_a_502(cluster: Cluster) -> None:
    async with cluster.client.get("/x") as answer:
        assert answer.status == 502
