"""The peers: how each is started, known to be ready, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import meter, slow_disk, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOST = "127.0.0.1"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_BYTES = 2_000


class ServerFailedError(Exception):
    """A server did not become ready, or ended while it was being measured."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a start command is made from."""

    port: int
    data_dir: Path
    app: str
    """Name of the program to serve: `websocket_server`, `room`, `store`, `slow_disk` or `rpc`."""
    run_dir: Path
    """For sockets: its path is short."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender. `command` may raise MissingToolError; `prepare` installs what it needs.

    `apps` are the programs it has, None for all.
    """

    name: str
    title: str
    command: Callable[[Start], Sequence[str]]
    prepare: Callable[[], object]
    apps: frozenset[str] | None = None


LIMPET_APPS = {
    "websocket_server": "examples/websocket_server",
    "room": "benchmarks/peers/limpet_room",
    "store": "benchmarks/peers/limpet_store",
    "rpc": "benchmarks/peers/limpet_rpc",
}


def limpet_command(shards: int) -> Callable[[Start], Sequence[str]]:
    """`limpet up` with so many shard processes, in this interpreter's environment."""

    def command(start: Start) -> Sequence[str]:
        if start.app == "slow_disk":
            return slow_disk.command(start.port, start.data_dir, start.run_dir)
        app = tools.limpet_app(LIMPET_APPS[start.app])
        return (
            *(sys.executable, "-m", "local", "up", "--app", app, "--port", str(start.port)),
            *("--shards", str(shards), "--data-dir", str(start.data_dir)),
            *("--run-dir", str(start.run_dir)),  # never that of a cluster in use
        )

    return command


def workerd_command(start: Start) -> Sequence[str]:
    """Serve the reference program on workerd; one program serves all apps."""
    return (
        *(str(tools.workerd()), "serve", str(tools.PEERS / "workerd" / "config.capnp")),
        *("--socket-addr", f"http={HOST}:{start.port}"),
        *("--directory-path", f"disk={start.data_dir}"),
    )


def aiohttp_command(start: Start) -> Sequence[str]:
    """Serve with one aiohttp process; one program serves both apps."""
    return (tools.python_with_aiohttp(), str(tools.PEERS / "aiohttp_echo.py"), str(start.port))


def limpet_peer(shards: int) -> Peer:
    """Limpet with so many shards."""
    return Peer(
        name=f"limpet-{shards}",
        title=f"Limpet, {shards} shard{'s' if shards > 1 else ''}",
        command=limpet_command(shards),
        prepare=lambda: tools.limpet_app(LIMPET_APPS["websocket_server"]),
    )


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        limpet_peer(1),
        limpet_peer(2),
        Peer("workerd", "workerd", workerd_command, tools.workerd),
        Peer(
            "aiohttp",
            "aiohttp alone",
            aiohttp_command,
            tools.python_with_aiohttp,
            apps=frozenset({"websocket_server", "room"}),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens and the root of its process tree."""

    port: int
    root_pid: int
    run_dir: Path


def free_port() -> int:
    """Return a port that nothing listens on, below the ephemeral range that the clients use."""
    for _ in range(1_000):
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ServerFailedError("no free port between 20000 and 30000")


def answers(port: int) -> bool:
    """Whether an HTTP GET is answered, and not with a server error (a host still starting)."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/websocket")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the server answers; ServerFailedError with its last words if it does not."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not answers(port):
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            what = f"ended with {code}" if code is not None else "was not ready in time"
            tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            raise ServerFailedError(f"{what}; its last words: {tail or '(none)'}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the root; what is left of its tree after its end, or after a while, is killed."""
    table = meter.process_table()
    tree = [table[pid] for pid in meter.tree_of(process.pid, table)]
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    for pid in meter.survivors(tree, meter.process_table()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(peer: Peer, app: str) -> Iterator[Server]:
    """Run a fresh server of the peer, in a session and a data directory of its own.

    Raises:
        ServerFailedError: it does not start.
        MissingToolError: what it needs is not there.
    """
    with (
        tempfile.TemporaryDirectory(prefix="limpet-bench-") as scratch,
        tempfile.TemporaryDirectory(prefix="data-", dir=tools.disk_folder()) as data_dir,
    ):
        port, log = free_port(), Path(scratch) / "server.log"
        command = peer.command(Start(port, Path(data_dir), app, Path(scratch) / "run"))
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                command,
                cwd=tools.REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_ready(process, port, log)
            yield Server(port, process.pid, Path(scratch) / "run")
        finally:
            stop(process)
