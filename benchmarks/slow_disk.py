"""A cluster of one gateway and one shard whose disk takes long.

    python -m benchmarks --scenarios slow-disk

Every sync of a file or folder takes 200 ms more than the disk itself. Writers keep many objects
busy; the settings are small, so that databases are closed, opened again and checkpointed all the
time. A probe in the shard's event loop notes how late its timers run, and clients of other objects,
which store nothing, measure how long an echo takes. The shard is :mod:`benchmarks.slow_shard`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from common.admin import socket_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STOP_TIMEOUT_S = 10.0

APP = "benchmarks/peers/limpet_store"
SETTINGS = {
    "SHARDS": "1",
    "GATEWAYS": "1",
    "MAX_OPEN_DATABASES": "48",
    "SYNC_THREADS": "32",
    "WAL_CHECKPOINT_BYTES": str(64 * 1024),
    "IDLE_TIMEOUT_S": "1",
    "LOG_LEVEL": "warning",
}
WRITERS = ("http", "--clients", "128", "--path", "/put/%d", "--keys", "64")
"""What the load generator does beside the echo clients."""


class _AdminConnection(http.client.HTTPConnection):
    """To a process' admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=STOP_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def read_lags_s(run_dir: Path) -> list[float]:
    """The lags of the shard's loop since this was called last.

    Raises:
        OSError, ValueError: the shard does not answer.
    """
    connection = _AdminConnection(socket_path(run_dir, "shard", 0))
    with contextlib.closing(connection):
        connection.request("GET", "/status")
        return [float(each) for each in json.loads(connection.getresponse().read())["lags_s"]]


def command(port: int, data_dir: Path, run_dir: Path) -> Sequence[str]:
    """The command that runs such a cluster until SIGTERM."""
    where = (str(port), str(data_dir), str(run_dir))
    return (sys.executable, "-m", "benchmarks.slow_disk", *where)


def run_cluster(port: str, data_dir: str, run_dir: str) -> int:
    """Run a shard and a gateway until SIGTERM."""
    where = {"PORT": port, "DATA_DIR": data_dir, "RUN_DIR": run_dir, "APP": APP}
    environ = {**os.environ, **SETTINGS, **where}
    modules = (("benchmarks.slow_shard", "shard"), ("gateway",))  # the word is for `meter`
    children = [
        subprocess.Popen([sys.executable, "-m", *module], env=environ) for module in modules
    ]

    def stop(number: int, frame: object) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        child.wait()
    return 0


if __name__ == "__main__":
    sys.exit(run_cluster(*sys.argv[1:]))
