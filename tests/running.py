"""A whole cluster in real processes, started by `limpet up` as a person would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; fail with its description."""
    give_up_at = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {patience_s:g} s in vain for: {what}"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RunningCluster:
    """`limpet up`, and what it said."""

    def __init__(self, folder: Path, app: Path | None, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = int(settings.get("port") or free_port())
        given = {
            "port": str(self.port),
            "run_dir": str(folder / "run"),
            "data_dir": str(folder / "data"),
            "log_format": "json",
            **({"app": str(app)} if app else {}),
            **settings,
        }
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.cli", "up", *flags],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        """Everything that the cluster's processes have printed."""
        return "".join(self._lines)

    def wait_until_ready(self) -> None:
        """Return when the banner is there."""
        give_up_at = time.monotonic() + PATIENCE_S
        while "Limpet is ready" not in self.output and self.process.poll() is None:
            assert time.monotonic() < give_up_at, f"the cluster is not ready:\n{self.output}"
            time.sleep(0.005)
        assert self.process.poll() is None, f"the cluster ended:\n{self.output}"

    def pids(self, role: str) -> list[int]:
        """Return the pids of the role's processes, by their locks, in the order of their index."""
        locks = sorted((self.folder / "run").glob(f"{role}-*.lock"))
        return [int(lock.read_text().split()[1]) for lock in locks]

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        """End what still runs, and wait for it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def limpet_up(app: Path | None = None, **settings: object) -> Iterator[RunningCluster]:
    """Run a cluster with these settings (`shards=2`); it is ready when this is entered."""
    # Not pytest's folder: its path would be too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
        cluster = RunningCluster(
            Path(folder), app, {name: str(value) for name, value in settings.items()}
        )
        try:
            cluster.wait_until_ready()
            yield cluster
        finally:
            cluster.close()
