"""Asks the processes of a cluster how they are: `limpet status` and `limpet health`.

Plain blocking sockets and few imports: a container's health check runs this every few seconds.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.admin import socket_path
from common.file_lock import holder

ANSWER_TIMEOUT_S = 3.0
"""How long a process may take to answer: one that is busier than that is not healthy."""

_SUFFIX = ".admin.sock"


@dataclass(frozen=True, slots=True, order=True)
class ProcessState:
    """What is known of one process.

    Attributes:
        role: "gateway" or "shard".
        index: its number among those of its role.
        holder: who claimed that number last: "pid 4711 on host-a".
        healthy: whether it says that it can do its work.
        detail: what else it says, or why it could not be asked.
    """

    role: str
    index: int
    holder: str
    healthy: bool
    detail: str

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host (in this container), as far as names tell."""
        return self.holder.endswith(f" on {socket.gethostname()}")


def find_processes(run_dir: Path) -> list[ProcessState]:
    """Ask every process that has a socket in `run_dir`. One that is gone shows as unhealthy."""
    return sorted(_ask(path) for path in run_dir.glob(f"*-*{_SUFFIX}"))


def complaints(processes: Iterable[ProcessState], role: str | None) -> list[str]:
    """Return what is wrong, a line each; nothing if all is well.

    Args:
        processes: those of the cluster.
        role: if given, only this host's processes of that role count, and there must be one.
    """
    asked = [p for p in processes if role is None or (p.role == role and p.is_here)]
    if not asked:
        return [f"no {role or 'process'} of the cluster runs here"]
    return [f"{p.role} {p.index} is not healthy: {p.detail}" for p in asked if not p.healthy]


def table(processes: Sequence[ProcessState]) -> str:
    """Return the processes as lines for people."""
    rows = [("process", "health", "holder", "")]
    for each in processes:
        health = "ok" if each.healthy else "NOT OK"
        rows.append((f"{each.role} {each.index}", health, each.holder, each.detail))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _ask(path: Path) -> ProcessState:
    role, _, index = path.name.removesuffix(_SUFFIX).partition("-")
    who = holder(path.with_name(f"{role}-{index}.lock")) or "unknown"
    try:
        status, said = _get(path, "/health")
    except (OSError, http.client.HTTPException, ValueError) as error:
        healthy, detail = False, f"does not answer ({str(error) or type(error).__name__})"
    else:
        healthy = status == http.HTTPStatus.OK
        detail = ", ".join(f"{name} {value}" for name, value in said.items() if name != "ok")
    return ProcessState(role, int(index) if index.isdigit() else -1, who, healthy, detail)


def _get(path: Path, target: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_TIMEOUT_S)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(ANSWER_TIMEOUT_S)
        connection.sock.connect(str(path))
        connection.request("GET", target)
        response = connection.getresponse()
        said = json.loads(response.read())
        return response.status, said if isinstance(said, dict) else {}


def shard_states(run_dir: Path, shards: Iterable[int]) -> dict[int, dict[str, object]]:
    """Ask shards for their figures; those of one that does not answer are empty."""
    states: dict[int, dict[str, object]] = {}
    for index in shards:
        try:
            states[index] = _get(socket_path(run_dir, "shard", index), "/status")[1]
        except (OSError, http.client.HTTPException, ValueError):
            states[index] = {}
    return states
