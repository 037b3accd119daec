"""What objects print and log carries their name."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from common import logs
from common.settings import Settings
from local.cluster import Cluster
from shard import app_output
from tests.shard.outside_servers import write_app

APP = """
import asyncio, logging
import structlog
from workers import DurableObject, Response, WorkerEntrypoint

class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        print("made")

    async def fetch(self, request):
        print("one", 2)
        print("two\\nlines")
        print("begun", end="")
        await asyncio.sleep(0)
        await asyncio.to_thread(print, "in a thread")
        logging.getLogger("app").warning("to logging")
        structlog.get_logger("app").warning("to structlog")
        return Response("ok")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("in the entry point")
        logging.getLogger("app").warning("from the entry point")
        await self.env.ROOM.getByName("lobby").fetch(request)
        return await self.env.ROOM.getByName("ha\\nll").fetch(request)
"""


@contextmanager
def printing(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Not a fixture: pytest sets ``sys.stdout`` anew between a fixture and its test."""
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        app_output.install()
        yield out
        app_output.uninstall()
        assert sys.stdout is out


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    out = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure(Settings.load({}, {"log_format": "json"}), role="shard", index=0, stream=out)
    yield out
    root.handlers[:], root.level = before
    structlog.reset_defaults()


async def test_lines_of_objects_carry_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    app = write_app(tmp_path, APP, "Room")
    with printing(monkeypatch) as printed:
        async with Cluster(app, shards=1) as cluster, cluster.client.get("/") as response:
            assert await response.text() == "ok"
    assert printed.getvalue().splitlines() == [
        "in the entry point",
        *(
            f"[{name}] {text}"
            for name in ("Room('lobby')", "Room('ha\\nll')")
            for text in ("made", "one 2", "two", "lines", "begunin a thread")
        ),
    ]
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [(each["event"], each.get("object")) for each in lines if each["logger"] == "app"] == [
        ("from the entry point", None),
        ("to logging", "Room('lobby')"),
        ("to structlog", "Room('lobby')"),
        ("to logging", "Room('ha\\nll')"),
        ("to structlog", "Room('ha\\nll')"),
    ]


def test_a_line_that_another_goes_on_with_is_broken() -> None:
    out = io.StringIO()
    stream = app_output.NamedOutput(out)
    stream.write("half")
    stream.write(" whole\n")
    assert out.getvalue() == "half whole\n"
    assert stream.getvalue() == out.getvalue()
