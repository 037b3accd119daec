"""What an author is told of a mistake: what is wrong, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from local.cluster import Cluster
from tests.running import ROOT, free_port
from tests.scenarios.worlds import World, eventually, scenario
from tests.shard.outside_servers import write_app

MISTAKES = ROOT / "tests" / "apps" / "mistakes"


async def lines(world: World, event: str, path: str) -> list[dict[str, Any]]:
    """The log's lines of that event about one mistake, once there is one."""

    def about() -> list[dict[str, Any]]:
        named = (f"/{path}", f"Room('{path}')")
        return [
            line
            for line in world.logged(event)
            if str(line.get("url", "")).endswith(named[0]) or line.get("object") == named[1]
        ]

    async def some() -> bool:
        return bool(about())

    await eventually(some, True)
    return about()


async def mistake(world: World, path: str, event: str = "entry.handler_failed") -> dict[str, Any]:
    """Make it: the client gets a bare 500; return the one log line about it."""
    async with world.client.get(f"/{path}") as response:
        assert response.status == 500
        assert await response.text() == "Internal Server Error"
    (line,) = await lines(world, event, path)
    return line


@scenario(MISTAKES)
async def test_a_misspelt_binding_is_corrected(world: World) -> None:
    line = await mistake(world, "misspelt")
    assert "env has no binding 'ROMS': did you mean 'ROOMS'?" in line["exception"]
    assert "self.env.ROMS" in line["exception"]  # the line of the app's own code


@scenario(MISTAKES)
async def test_a_misspelt_method_is_corrected(world: World) -> None:
    line = await mistake(world, "misspelt-method")
    assert "Method conut does not exist" in line["exception"]
    assert "Room has a method 'count'." in line["exception"]


@scenario(MISTAKES)
async def test_a_handler_that_returns_nothing_is_named(world: World) -> None:
    line = await mistake(world, "nothing")
    assert "Default.fetch() must return a Response, but it returned None" in line["exception"]


@scenario(MISTAKES)
async def test_an_objects_handler_that_returns_nothing_is_named(world: World) -> None:
    line = await mistake(world, "object-nothing", "object.handler_failed")
    assert line["object"] == "Room('object-nothing')"
    assert "fetch() returned None" in line["exception"]


@scenario(MISTAKES)
async def test_an_exception_is_logged_with_object_event_and_traceback(world: World) -> None:
    line = await mistake(world, "object-raises", "object.handler_failed")
    assert (line["object"], line["on"]) == ("Room('object-raises')", "fetch")
    assert "there is no such chair" in line["exception"]
    assert "in broken" in line["exception"]


@scenario(MISTAKES)
async def test_a_call_that_was_not_awaited_says_so(world: World) -> None:
    """Whatever is done with it in place of its result."""
    for path in ("unawaited-call", "unawaited-value"):
        line = await mistake(world, path)
        assert "not awaited" in line["exception"], path
        assert "count()" in line["exception"].splitlines()[-1]
        assert "room.count()" in line["exception"]  # the line of the app's own code


@scenario(MISTAKES)
async def test_a_fetch_that_was_not_awaited_says_so(world: World) -> None:
    line = await mistake(world, "unawaited-fetch")
    assert "Default.fetch() must return a Response" in line["exception"]
    assert "fetch(): not awaited yet" in line["exception"]


@scenario(MISTAKES)
async def test_a_storage_call_that_was_not_awaited_says_so(world: World) -> None:
    line = await mistake(world, "unawaited-storage")
    assert "a storage call was not awaited" in line["exception"]
    assert "self.ctx.storage.get" in line["exception"]


@pytest.mark.processes
def test_a_call_that_blocks_is_logged_with_its_line(process_pool: Any) -> None:
    """Object, handler, file, line: it holds up its whole shard (memory worlds have no watch)."""
    import asyncio

    import aiohttp

    from tests.scenarios.worlds import ProcessWorld

    cluster = process_pool.cluster(MISTAKES, {"shards": 2, "lag_warning_s": 0.1})

    async def main() -> dict[str, Any]:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{cluster.port}") as client:
            world = ProcessWorld(client, cluster)
            async with client.get("/blocks") as response:
                assert response.status == 200
            return (await lines(world, "loop.blocked", "blocks"))[0]

    line = asyncio.run(main())
    assert line["object"] == "Room('blocks')"
    assert line["handler"] == "Room.fetch"
    assert line["line"] == "time.sleep(0.5)"
    assert line["at"].startswith("entry.py:")


@pytest.fixture
def without_its_class(tmp_path: Path) -> Path:
    write_app(tmp_path, "from workers import DurableObject\nclass Roam(DurableObject): ...", "Room")
    return tmp_path


async def test_a_class_that_is_missing_is_named_before_anything_runs(
    without_its_class: Path,
) -> None:
    with pytest.raises(ConfigError) as raised:
        async with Cluster(without_its_class):
            pass
    text = str(raised.value)
    assert "binding ROOM names the class 'Room'" in text
    assert "its classes: Roam" in text
    assert "wrangler.jsonc" in text


@pytest.mark.processes
def test_limpet_up_refuses_an_app_without_its_class(
    without_its_class: Path, tmp_path: Path
) -> None:
    flags = [f"--port={free_port()}", f"--app={without_its_class}"]
    done = subprocess.run(
        [sys.executable, "-m", "local.cli", "up", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "'Room'" in said
    assert "Roam" in said
    assert "Traceback" not in said
