"""Reading the process table."""

from __future__ import annotations

import pytest

from benchmarks.meter import (
    TICKS_PER_S,
    CpuReading,
    Process,
    cpu_between,
    parse_pss_bytes,
    parse_stat,
    role_from_command,
    survivors,
    tree_of,
)


def process(pid: int, parent_pid: int, session_id: int = 0) -> Process:
    return Process(pid, parent_pid, session_id, cpu_s=0.0, started_at_ticks=0)


def test_a_command_name_may_hold_spaces_and_brackets() -> None:
    """proc(5): the name is in parentheses and is whatever the process called itself."""
    found = parse_stat("42 (a) b (c) S 7 8 9 0 0 0 0 0 0 0 150 50 0 0 20 0 1 0 777 0")
    assert found == Process(42, 7, 9, 200 / TICKS_PER_S, 777)


def test_the_tree_is_the_root_its_descendants_and_its_session() -> None:
    processes = [process(1, 0), process(10, 1, 10), process(11, 10), process(12, 11)]
    orphan, child_of_orphan, stranger = process(13, 1, 10), process(14, 13), process(15, 1)
    table = {p.pid: p for p in (*processes, orphan, child_of_orphan, stranger)}
    assert tree_of(10, table) == [10, 11, 12, 13, 14]


def test_a_later_process_with_the_same_pid_is_no_survivor() -> None:
    old = [Process(5, 1, 5, 0.0, 100), Process(6, 1, 6, 0.0, 100), process(7, 1)]
    table = {5: Process(5, 1, 5, 9.0, 100), 6: Process(6, 1, 6, 0.0, 200)}
    assert survivors(old, table) == [5]


def test_the_tree_of_a_process_that_is_gone_is_empty() -> None:
    assert tree_of(99, {1: process(1, 0)}) == []


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/usr/bin/python3", "-m", "shard"], "shard"),
        (["/usr/bin/python3", "-m", "gateway.main", "--shards", "2"], "gateway"),
        (["/home/shard/bin/python", "-c", "pass"], None),
        (["python", "/srv/app/shard/__main__.py"], "shard"),
        (["limpet: gateway"], "gateway"),
        (["workerd", "serve"], None),
        ([], None),
    ],
)
def test_the_role_is_read_from_the_command_line(command: list[str], role: str | None) -> None:
    assert role_from_command(command) == role


def test_cpu_between_two_readings_adds_up_by_role_and_new_processes_count_from_zero() -> None:
    roles = {1: "gateway", 2: "shard", 3: "shard"}
    before = CpuReading({1: 1.0, 2: 2.0}, roles)
    after = CpuReading({1: 1.5, 2: 2.25, 3: 0.25}, roles)
    assert cpu_between(before, after) == {"gateway": 0.5, "shard": 0.5}


def test_pss_is_read_in_bytes() -> None:
    assert parse_pss_bytes("Rss: 9 kB\nPss:       12 kB\nPss_Anon: 3 kB\n") == 12 * 1024
    with pytest.raises(ValueError, match="Pss"):
        parse_pss_bytes("Rss: 9 kB\n")
