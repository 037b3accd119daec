"""The chat example over real processes, whose shards die in the middle of a conversation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.running import ROOT, RunningCluster, limpet_up, until

pytestmark = pytest.mark.processes

APP = ROOT / "examples" / "chat"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with limpet_up(APP, shards=2, idle_timeout_s=0.5) as cluster:
        yield cluster


class Guest:
    """A member of a room."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.last_id = 0

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            news: dict[str, Any] = json.loads(await self.ws.recv())
        if news["type"] == "message":
            assert news["id"] == self.last_id + 1, "lost, repeated or out of order"
            self.last_id = news["id"]
        return news

    async def say(self, text: str) -> None:
        await self.ws.send(json.dumps({"type": "message", "text": text}))


async def join(cluster: RunningCluster, room: str, name: str) -> Guest:
    ws = await connect(f"ws://127.0.0.1:{cluster.port}/rooms/{room}", proxy=None)
    await ws.send(json.dumps({"type": "join", "name": name}))
    return Guest(ws)


async def test_the_page(cluster: RunningCluster) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{cluster.port}/", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        page = answer.read()
    assert b"<title>Chat</title>" in page
    assert b"innerHTML" not in page, "what people say is text"


async def test_a_conversation_and_its_history(cluster: RunningCluster) -> None:
    ada = await join(cluster, "tea", "Ada")
    assert (await ada.hear())["members"] == ["Ada"]
    bob = await join(cluster, "tea", "Bob")
    assert [(await each.hear())["members"] for each in (ada, bob)] == [["Ada", "Bob"]] * 2
    await ada.say("Hello")
    heard = [await each.hear() for each in (ada, bob)]
    assert [(news["name"], news["text"]) for news in heard] == [("Ada", "Hello")] * 2
    await ada.ws.send("ping")
    assert await ada.ws.recv() == "pong"
    await bob.ws.send("nonsense")
    assert (await bob.hear())["type"] == "error"
    await bob.ws.close()
    assert (await ada.hear())["members"] == ["Ada"]
    eve = await join(cluster, "tea", "Eve")
    assert (await eve.hear())["text"] == "Hello"
    for guest in (ada, eve):
        await guest.ws.close()


async def test_nobody_is_disconnected_when_the_shards_are_killed_or_reloaded(
    cluster: RunningCluster,
) -> None:
    rooms = [f"room{number}" for number in range(6)]
    guests = {room: [await join(cluster, room, name) for name in ("Ada", "Bob")] for room in rooms}
    for ada, bob in guests.values():
        assert [(await ada.hear())["type"], (await ada.hear())["type"]] == ["joined"] * 2
        assert (await bob.hear())["type"] == "joined"

    async def talk(text: str) -> None:
        for ada, bob in guests.values():
            await ada.say(text)
            await bob.say(f"{text} too")
        for ada, bob in guests.values():
            for guest in (ada, bob):
                said = {(await guest.hear())["text"] for _ in range(2)}
                assert said == {text, f"{text} too"}

    await talk("before")
    for pid in cluster.pids("shard"):
        os.kill(pid, signal.SIGKILL)
    # What is said into the link of a process that has just died counts as lost with it: wait until
    # the gateway knows.
    until(lambda: cluster.output.count('"shard.lost"') == 2, "the gateway to notice")
    await talk("while they are away")
    reload = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "local.cli",
        "reload",
        f"--run-dir={cluster.folder / 'run'}",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    await talk("while it reloads")
    output, _ = await reload.communicate()
    assert reload.returncode == 0, output.decode()
    assert output.decode().count("runs the new code") == 2
    await talk("after the reload")
    late = await join(cluster, "room0", "Eve")
    assert len([await late.hear() for _ in range(8)]) == 8
    for pair in guests.values():
        for guest in pair:
            await guest.ws.close()
    await late.ws.close()
