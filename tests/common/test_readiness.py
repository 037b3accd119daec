from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.readiness import READY_FD, Failed, Readiness, Ready, Report, parse_report, read_report


async def read_all(fd: int) -> Report | None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    try:
        return await read_report(reader)
    finally:
        transport.close()


def pair() -> tuple[Readiness, int]:
    read_fd, write_fd = os.pipe()
    environ = {READY_FD: str(write_fd)}
    readiness = Readiness.from_environ(environ)
    assert environ == {}
    return readiness, read_fd


async def test_ready_reaches_the_parent_with_its_info() -> None:
    readiness, fd = pair()
    readiness.ready({"index": 3})
    assert await read_all(fd) == Ready({"index": 3})


async def test_failure_reaches_the_parent_with_all_its_lines() -> None:
    readiness, fd = pair()
    readiness.failed("PORT=0: no\n  -> set it ü")
    assert await read_all(fd) == Failed("PORT=0: no\n  -> set it ü")


async def test_only_the_first_word_counts() -> None:
    readiness, fd = pair()
    readiness.failed("broken")
    readiness.ready()
    assert await read_all(fd) == Failed("broken")


async def test_the_longest_message_neither_blocks_nor_breaks_the_line() -> None:
    readiness, fd = pair()
    readiness.failed("\0" * 100_000)
    report = await read_all(fd)
    assert isinstance(report, Failed)
    assert set(report.message) == {"\0"}


async def test_a_child_that_ends_without_a_word() -> None:
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    assert await read_all(read_fd) is None


async def test_a_flood_instead_of_a_report_is_a_failure() -> None:
    reader = asyncio.StreamReader(limit=100)
    reader.feed_data(b"x" * 1000)
    assert isinstance(await read_report(reader), Failed)


def test_without_a_parent_that_waits_nothing_happens() -> None:
    readiness = Readiness.from_environ({})
    readiness.ready()
    readiness.failed("x")


def test_a_parent_that_is_gone_is_no_error() -> None:
    readiness, fd = pair()
    os.close(fd)
    readiness.ready()


def test_programs_the_child_starts_do_not_inherit_the_descriptor() -> None:
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    readiness = Readiness.from_environ({READY_FD: str(write_fd)})
    assert not os.get_inheritable(write_fd)
    readiness.ready()
    os.close(read_fd)


@pytest.mark.parametrize(
    "line", [b"\n", b"x\n", b"[]", b"{}", b'{"ready": 1}', b'{"error": {}}', b"[" * 50_000, b"\xff"]
)
def test_nonsense_is_a_failure(line: bytes) -> None:
    assert isinstance(parse_report(line), Failed)


@given(st.binary())
def test_any_bytes_are_some_report(line: bytes) -> None:
    assert isinstance(parse_report(line), Failed | Ready)
