"""`limpet reload` and SIGHUP: new code under connected clients, or the old if the new is broken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.running import ROOT, RunningCluster, limpet_up, until

pytestmark = pytest.mark.processes

APP = """
from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

VERSION = "one"

class Room(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        if request.url.endswith("regular"):
            server.accept()
            server.addEventListener("message", lambda event: server.send(VERSION))
        else:
            self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    def webSocketMessage(self, ws, message):
        ws.send(VERSION)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.ROOM.getByName("room").fetch(request)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "tests" / "history" / "app" / "wrangler.jsonc", tmp_path)
    (tmp_path / "entry.py").write_text(APP)
    return tmp_path


@pytest.fixture
def cluster(app: Path) -> Iterator[RunningCluster]:
    with limpet_up(app, shards=2) as cluster:
        yield cluster


def join(cluster: RunningCluster, path: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{cluster.port}/{path}", proxy=None)


def ask(client: ClientConnection) -> str:
    client.send("which?")
    return str(client.recv(20))


def reload(cluster: RunningCluster) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.cli", "reload", f"--run-dir={cluster.folder / 'run'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_new_code_takes_over_under_a_held_socket(cluster: RunningCluster, app: Path) -> None:
    with join(cluster) as held, join(cluster, "regular") as regular:
        assert (ask(held), ask(regular)) == ("one", "one")
        (app / "entry.py").write_text(APP.replace('"one"', '"two"'))
        assert ask(held) == "one"
        assert reload(cluster).returncode == 0
        assert ask(held) == "two"
        with pytest.raises(ConnectionClosed) as closed:
            regular.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        (app / "entry.py").write_text(APP.replace('"one"', '"three"'))
        cluster.process.send_signal(signal.SIGHUP)
        until(lambda: ask(held) == "three", "the new code after SIGHUP")


def test_code_that_does_not_load_changes_nothing(cluster: RunningCluster, app: Path) -> None:
    pids = cluster.pids("shard")
    with join(cluster) as held, join(cluster, "regular") as regular:
        assert (ask(held), ask(regular)) == ("one", "one")
        (app / "entry.py").write_text("this is no Python\n")
        failed = reload(cluster)
        assert failed.returncode == 1
        assert "The old code keeps serving." in failed.stderr
        assert "entry.py" in failed.stderr
        assert (ask(held), ask(regular)) == ("one", "one")
        assert cluster.pids("shard") == pids


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.cli", "reload", f"--run-dir={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no cluster runs in" in done.stderr
