"""`limpet objects` beside a running cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from tests.running import ROOT, RunningCluster, limpet_up

pytestmark = pytest.mark.processes

APP = ROOT / "examples" / "leaderboard"


def limpet_objects(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    data = cluster.folder / "data"
    return subprocess.run(
        [sys.executable, "-m", "local.cli", "objects", f"--app={APP}", f"--data-dir={data}",
         *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_objects_are_listed_with_their_names() -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with limpet_up(APP, shards=2) as cluster:
        for board in ("arcade", "caf%C3%A9"):
            url = f"http://127.0.0.1:{cluster.port}/boards/{board}/scores"
            opener.open(url, data=b'{"player": "Ada", "score": 5}', timeout=20).close()
        found = limpet_objects(cluster, "BOARDS", "--json")
        assert found.returncode == 0, found.stderr
        rows = [json.loads(line) for line in found.stdout.splitlines()]
        assert {(row["namespace"], row["name"]) for row in rows} == {
            ("BOARDS", "arcade"), ("BOARDS", "café"),
        }  # fmt: skip
        text = limpet_objects(cluster).stdout
        assert '"arcade"' in text
        assert rows[0]["id"] in text
        refused = limpet_objects(cluster, "OTHERS")
        assert (refused.returncode, "BOARDS" in refused.stderr) == (2, True)
