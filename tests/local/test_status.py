"""Rules of `local.status`: a process is healthy if it says so, in time."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.admin import AdminServer, Health, socket_path
from common.file_lock import try_lock
from local import status
from local.status import ProcessState, complaints, find_processes, table

HERE = f"pid 1 on {socket.gethostname()}"


def state(role: str = "shard", holder: str = HERE, healthy: bool = True) -> ProcessState:
    return ProcessState(role, 0, holder, healthy, "starting")


class Window:
    """A shard's admin socket with an answer that a test can change."""

    def __init__(self) -> None:
        self.health = Health(ok=True, detail={"objects": 3})
        self.server = AdminServer(
            health=lambda: self.health, render_metrics=lambda: b"", status=dict
        )


@pytest.fixture
async def window(tmp_path: Path) -> AsyncIterator[Window]:
    window = Window()
    lock = try_lock(tmp_path / "shard-0.lock")
    assert lock is not None
    lock.write(1)
    await window.server.start(socket_path(tmp_path, "shard", 0))
    yield window
    await window.server.close()
    lock.release()


async def ask(run_dir: Path) -> list[ProcessState]:
    import asyncio

    return await asyncio.to_thread(find_processes, run_dir)


async def test_a_process_that_says_it_is_well_is_healthy(tmp_path: Path, window: Window) -> None:
    (found,) = await ask(tmp_path)
    assert (found.role, found.index, found.healthy) == ("shard", 0, True)
    assert found.detail == "objects 3"
    assert found.is_here
    assert complaints([found], "shard") == []


async def test_a_process_that_says_it_is_not_is_not(tmp_path: Path, window: Window) -> None:
    window.health = Health(ok=False, detail={"reason": "no link"})
    (found,) = await ask(tmp_path)
    assert complaints([found], None) == ["shard 0 is not healthy: reason no link"]


def test_a_process_that_is_gone_is_not_healthy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path(tmp_path, "gateway", 1)))
    (found,) = find_processes(tmp_path)
    assert (found.role, found.index, found.healthy) == ("gateway", 1, False)
    assert "does not answer" in found.detail


def test_a_process_that_does_not_answer_in_time_is_not_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "ANSWER_TIMEOUT_S", 0.01)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(socket_path(tmp_path, "shard", 0)))
        silent.listen()
        (found,) = find_processes(tmp_path)
    assert not found.healthy


def test_where_nothing_runs_nothing_is_healthy(tmp_path: Path) -> None:
    assert complaints(find_processes(tmp_path / "absent"), None)


def test_a_container_answers_for_its_own_process_alone() -> None:
    elsewhere = state(holder="pid 1 on another-container", healthy=False)
    assert complaints([state(), elsewhere], "shard") == []
    assert complaints([elsewhere], "shard") == ["no shard of the cluster runs here"]
    assert complaints([state(role="gateway")], "shard") == ["no shard of the cluster runs here"]


def test_the_table_has_a_line_for_each_process() -> None:
    lines = table([state(), state("gateway", healthy=False)]).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["process", "shard 0", "gateway 0"]
    assert "NOT OK" in lines[2]
