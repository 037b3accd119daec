"""Streamed bodies under credit: bounded on both sides, and always one end (DESIGN G6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.link.records import BODY, BODY_ABORT, BODY_CREDIT, BODY_END, Record
from local import virtual_time
from local.virtual_time import on_virtual_time
from shard.bodies import CHUNK_BYTES, BodyError, InboundBody, OutboundBody, link_lost
from tests.shard.kit import turns, until

WINDOW = 256 * 1024


class Line:
    """Keeps what is sent; ``deliver`` hands it to the other side."""

    queued_bytes = 0

    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[Record] = []

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        assert self.is_open
        self.sent.append(record)

    urgent = send

    def kinds(self) -> list[int]:
        return [record[0] for record in self.sent]


class Source:
    """Gives pieces; knows how many were pulled and whether it was closed."""

    def __init__(self, *pieces: Any, hang: bool = False) -> None:
        self.pieces = list(pieces)
        self.hang = hang
        self.pulled = 0
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self.pulled == len(self.pieces):
            if self.hang:
                await asyncio.get_running_loop().create_future()
            raise StopAsyncIteration
        piece = self.pieces[self.pulled]
        self.pulled += 1
        if isinstance(piece, Exception):
            raise piece
        await asyncio.sleep(0)
        return piece

    async def aclose(self) -> None:
        self.closed += 1


def outbound(source: Source, window: int = WINDOW) -> tuple[Line, OutboundBody]:
    line = Line()
    return line, OutboundBody(line, 7, source, window)


def payload(line: Line) -> bytes:
    return b"".join(record[2] for record in line.sent if record[0] == BODY)


# --- out ------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_body_is_sent_in_pieces_and_ended_once() -> None:
    data = bytes(range(256)) * 600
    source = Source(data, "text", b"", bytearray(b"x"))
    line, body = outbound(source)
    await body.run()
    assert payload(line) == data + b"textx"
    assert all(len(record[2]) <= CHUNK_BYTES for record in line.sent if record[0] == BODY)
    assert line.kinds().count(BODY_END) == 1
    assert line.sent[-1] == [BODY_END, 7]
    assert source.closed == 1


@on_virtual_time
async def test_never_more_than_the_credit_is_under_way() -> None:
    source = Source(*[b"x" * 100_000] * 20)
    line, body = outbound(source, window=150_001)
    running = asyncio.create_task(body.run())
    granted = 150_001
    while not running.done():
        await turns()
        assert len(payload(line)) == min(granted, 2_000_000)
        granted += 77_777
        body.credit(77_777)
    assert len(payload(line)) == 2_000_000


@on_virtual_time
async def test_without_credit_the_source_is_not_pulled() -> None:
    source = Source(*[b"x" * 1000] * 100)
    _, body = outbound(source, window=2500)
    running = asyncio.create_task(body.run())
    await turns(200)
    assert source.pulled == 3
    body.stop()
    await running


@pytest.mark.parametrize("where", ["in the source", "for credit", "before it began"])
def test_stop_ends_it_wherever_it_waits(where: str) -> None:
    async def main() -> None:
        source = Source(b"x" * 100, hang=True)
        line, body = outbound(source, window=0 if where == "for credit" else WINDOW)
        running = asyncio.create_task(body.run())
        if where != "before it began":
            await turns()
        body.stop()
        await running
        assert line.kinds()[-1] == BODY_ABORT
        assert line.kinds().count(BODY_ABORT) == 1
        assert source.closed == 1

    virtual_time.run(main(), check_leftovers=True)


@on_virtual_time
async def test_an_error_of_the_source_aborts_the_body_and_is_raised() -> None:
    """F6."""
    source = Source(b"one", ValueError("midway"))
    line, body = outbound(source)
    with pytest.raises(ValueError, match="midway"):
        await body.run()
    assert payload(line) == b"one"
    assert line.sent[-1] == [BODY_ABORT, 7, "ValueError: midway"]
    assert source.closed == 1


@on_virtual_time
async def test_what_is_no_piece_of_a_body_aborts_it() -> None:
    line, body = outbound(Source(object()))
    with pytest.raises(TypeError):
        await body.run()
    assert line.sent[-1][0] == BODY_ABORT


@on_virtual_time
async def test_a_sender_that_is_cancelled_leaves_no_reader_waiting() -> None:
    """F8: its object was reset."""
    line, body = outbound(Source(b"one", hang=True))
    running = asyncio.create_task(body.run())
    await turns()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert line.sent[-1][0] == BODY_ABORT


@on_virtual_time
async def test_a_link_that_is_down_is_sent_nothing() -> None:
    source = Source(*[b"x"] * 10, hang=True)
    line, body = outbound(source)
    running = asyncio.create_task(body.run())
    await turns(2)
    line.is_open = False
    body.stop()
    await running
    assert BODY_ABORT not in line.kinds()
    assert source.closed == 1


# --- in -------------------------------------------------------------------------------------------


def credited(line: Line) -> int:
    return sum(record[2] for record in line.sent if record[0] == BODY_CREDIT)


@on_virtual_time
async def test_reading_gives_the_pieces_and_the_credit_back() -> None:
    line = Line()
    body = InboundBody(line, 7)
    pieces = [b"a" * 1000, b"b" * 70_000, b"c"]
    for piece in pieces:
        body.feed(piece)
    reader = aiter(body)
    read = [await anext(reader) for _ in pieces]
    assert read == pieces
    assert credited(line) == 71_001
    body.end()
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


@on_virtual_time
async def test_nothing_is_credited_before_it_is_read() -> None:
    line = Line()
    body = InboundBody(line, 7)
    body.feed(b"x" * 100_000)
    await turns()
    assert line.sent == []


@on_virtual_time
async def test_a_reader_that_waits_is_woken_by_piece_end_and_abort() -> None:
    for end in ("feed", "end", "abort"):
        body = InboundBody(Line(), 7)
        reading = asyncio.create_task(_one(body))
        await turns()
        match end:
            case "feed":
                body.feed(b"x")
                assert await reading == b"x"
            case "end":
                body.end()
                assert await reading is None
            case "abort":
                body.abort(BodyError("no"))
                with pytest.raises(BodyError, match="no"):
                    await reading


async def _one(body: InboundBody) -> bytes | None:
    return await anext(aiter(body), None)


@on_virtual_time
async def test_what_came_before_an_abort_is_read_first() -> None:
    body = InboundBody(Line(), 7)
    body.feed(b"x")
    body.abort(link_lost())
    body.feed(b"late")
    assert await _one(body) == b"x"
    with pytest.raises(BodyError, match="sender of the body is gone"):
        await _one(body)
    assert body.over


@on_virtual_time
async def test_an_abort_after_the_end_changes_nothing() -> None:
    body = InboundBody(Line(), 7)
    body.feed(b"x")
    body.end()
    body.abort(link_lost())
    assert await _one(body) == b"x"
    assert await _one(body) is None


@on_virtual_time
async def test_a_discarded_body_lets_its_sender_run_to_the_end() -> None:
    line = Line()
    body = InboundBody(line, 7)
    body.feed(b"x" * 1000)
    body.discard()
    body.feed(b"x" * 500)
    assert credited(line) == 1500
    assert not body.over
    with pytest.raises(BodyError, match="discarded"):
        await _one(body)
    body.end()
    assert body.over


@on_virtual_time
async def test_a_cancelled_reader_does_not_take_a_piece_along() -> None:
    body = InboundBody(Line(), 7)
    reading = asyncio.create_task(_one(body))
    await turns()
    reading.cancel()
    body.feed(b"x")
    await asyncio.gather(reading, return_exceptions=True)
    assert await _one(body) == b"x"


# --- both ends ------------------------------------------------------------------------------------


@given(
    pieces=st.lists(st.integers(0, 2000), max_size=12),
    window=st.integers(100, 3000),
    read_every=st.integers(1, 7),
    stop_after=st.none() | st.integers(0, 12),
)
@settings(max_examples=60)
def test_any_body_arrives_whole_within_its_window(  # noqa: C901
    pieces: list[int], window: int, read_every: int, stop_after: int | None
) -> None:
    """What is sent and not yet read never exceeds the window; the reader sees one end."""

    async def main() -> None:  # noqa: C901
        data = [bytes([number]) * size for number, size in enumerate(pieces)]
        line, sender = outbound(Source(*data), window)
        back = Line()
        receiver = InboundBody(back, 7)
        running = asyncio.create_task(sender.run())
        received = bytearray()
        passed = 0

        def relay() -> None:
            nonlocal passed
            for record in line.sent[passed:]:
                if record[0] == BODY:
                    receiver.feed(record[2])
                elif record[0] == BODY_END:
                    receiver.end()
                else:
                    receiver.abort(BodyError(record[2]))
            passed = len(line.sent)
            for record in back.sent:
                sender.credit(record[2])
            back.sent.clear()
            assert len(payload(line)) - len(received) <= window

        async def read() -> str:
            count = 0
            try:
                async for piece in receiver:
                    received.extend(piece)
                    count += 1
                    if count == stop_after:
                        sender.stop()
                    await turns(read_every)
            except BodyError:
                return "aborted"
            return "complete"

        reading = asyncio.create_task(read())
        for _ in range(200_000):
            relay()
            if reading.done():
                break
            await asyncio.sleep(0)
        await running
        whole = b"".join(data)
        if await reading == "complete":
            assert bytes(received) == whole
        else:
            assert whole.startswith(bytes(received))

    virtual_time.run(main(), check_leftovers=True)


@on_virtual_time
async def test_the_end_of_a_body_that_nobody_reads_is_seen_later() -> None:
    line, sender = outbound(Source(b"x"))
    receiver = InboundBody(Line(), 7)
    await sender.run()
    for record in line.sent:
        receiver.feed(record[2]) if record[0] == BODY else receiver.end()
    await until(lambda: True)
    assert [piece async for piece in receiver] == [b"x"]
