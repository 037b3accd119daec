"""CPU time and memory of a tree of processes, read from /proc (Linux only)."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROLES = ("gateway", "shard")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    parent_pid: int
    session_id: int
    cpu_s: float
    started_at_ticks: int
    """Since the machine's start; with the pid it names a process for good."""


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU seconds (user and system) of each process at one moment, with its role."""

    by_pid: Mapping[int, float]
    role_of_pid: Mapping[int, str]


def parse_stat(text: str) -> Process:
    """Parse /proc/PID/stat (proc(5)); the command name may itself hold spaces and brackets."""
    pid, rest = text.split(" ", 1)
    fields = rest[rest.rindex(")") + 2 :].split()
    return Process(
        pid=int(pid),
        parent_pid=int(fields[1]),
        session_id=int(fields[3]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        started_at_ticks=int(fields[19]),
    )


def process_table() -> dict[int, Process]:
    """All processes that are there now, by pid."""
    table: dict[int, Process] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            process = parse_stat((entry / "stat").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        table[process.pid] = process
    return table


def tree_of(root_pid: int, table: Mapping[int, Process]) -> list[int]:
    """Return the root, its descendants, and whatever else lives in the session that it leads."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for process in table.values():
        children[process.parent_pid].append(process.pid)
    found: set[int] = set()
    pending = [root_pid, *(p.pid for p in table.values() if p.session_id == root_pid)]
    while pending:
        pid = pending.pop()
        if pid in table and pid not in found:
            found.add(pid)
            pending.extend(children[pid])
    return sorted(found)


def survivors(of: Iterable[Process], table: Mapping[int, Process]) -> list[int]:
    """Return the pids of those processes that are still there: the same, not a later namesake."""
    return [
        old.pid
        for old in of
        if (now := table.get(old.pid)) is not None and now.started_at_ticks == old.started_at_ticks
    ]


def role_from_command(arguments: Sequence[str]) -> str | None:
    """`gateway` or `shard` where the command line runs that module; None otherwise.

    It knows `-m shard`, `-m shard.main`, a script `…/shard/__main__.py`, and a title that the
    process gave itself, such as `limpet: shard 1`.
    """
    for place, argument in enumerate(arguments):
        if place == 0 and argument.startswith("/"):
            continue  # the interpreter: its path says nothing
        words = argument.replace("/", " ").replace(".", " ").replace(":", " ").split()
        for role in ROLES:
            if role in words:
                return role
    return None


def role_of(pid: int, root_pid: int) -> str:
    """Return what a process is there for; `supervisor` or `server` for the root of the tree."""
    try:
        arguments = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        arguments = []
    if pid == root_pid:
        return "supervisor" if "local" in arguments else "server"
    return role_from_command(arguments) or "other"


def read_cpu(root_pid: int) -> CpuReading:
    """Return the CPU time of every process in the tree."""
    table = process_table()
    pids = tree_of(root_pid, table)
    return CpuReading(
        by_pid={pid: table[pid].cpu_s for pid in pids},
        role_of_pid={pid: role_of(pid, root_pid) for pid in pids},
    )


def cpu_between(before: CpuReading, after: CpuReading) -> dict[str, float]:
    """CPU seconds used between two readings, by role.

    A process that began in between counts from zero. One that ended in between is missing from
    `after` and counts nothing: a server that loses processes under load shows it as errors.
    """
    by_role: defaultdict[str, float] = defaultdict(float)
    for pid, cpu_s in after.by_pid.items():
        by_role[after.role_of_pid[pid]] += cpu_s - before.by_pid.get(pid, 0.0)
    return dict(by_role)


def parse_pss_bytes(text: str) -> int:
    """Return the proportional set size, in bytes, from /proc/PID/smaps_rollup."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss: line")


def read_pss_bytes(root_pid: int) -> int:
    """Return the memory of the whole tree in bytes: pages that processes share count once."""
    total = 0
    for pid in tree_of(root_pid, process_table()):
        try:
            total += parse_pss_bytes((PROC / str(pid) / "smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
