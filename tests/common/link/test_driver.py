"""Links over memory, on virtual time. Every test leaves no task and no timer behind."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import msgpack
import pytest

from common.errors import LinkClosedByPeer, LinkDown, LinkError, ProtocolError
from common.link import driver
from common.link.driver import (
    CLOSE_TIMEOUT_S,
    HELLO_TIMEOUT_S,
    KEEP_BUFFER_BYTES,
    READ_BUFFER_BYTES,
    Link,
)
from common.link.lifecycle import LinkState
from common.link.memory import KERNEL_BYTES, connect
from common.link.records import CLOSE, FRAMES, PAUSE, Record
from common.link.session import BATCH_TARGET_BYTES, CONGESTED_BYTES, Hello
from common.link.wire import HEAD, encode
from local.virtual_time import on_virtual_time
from tests.common.link.support import Line, Recorder, hello, open_pair, take

ONE_MB = 1 << 20


async def idle() -> None:
    """Until nothing can run: virtual time does not move before."""
    await asyncio.sleep(0.001)


async def ended(line: Line) -> None:
    """Until both links are gone; each side must have been told exactly once."""
    await idle()
    for recorder in line.gateway_events, line.shard_events:
        assert recorder.events[0] == "up"
        assert recorder.events[-1] == "down"
        assert recorder.events.count("down") == 1
    assert len(line.closed) == 1


async def opened(**options: Any) -> Line:
    line = Line(**options)
    await idle()
    assert line.gateway.is_open
    assert line.shard.is_open
    return line


async def close(line: Line) -> None:
    line.gateway.close(LinkDown("test over"))
    await ended(line)


class Stranger(asyncio.Protocol):
    """A peer that is no link: it collects what it is sent."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


# --- up and down ---------------------------------------------------------------------------------


@on_virtual_time
async def test_both_ends_are_told_that_the_link_is_up_and_who_is_there() -> None:
    line = await opened(gateway=hello("gateway", index=4))
    assert line.gateway_events.events == line.shard_events.events == ["up"]
    assert line.shard_events.peer == hello("gateway", index=4)
    assert repr(line.shard) == "<Link to gateway-4 open>"
    await close(line)


@on_virtual_time
async def test_all_of_one_turn_is_one_write_and_one_call() -> None:
    line = await opened()
    writes = []
    write = line.gateway_end.write
    line.gateway_end.write = lambda data: (writes.append(data), write(data))[1]  # type: ignore[method-assign,func-returns-value]
    for number in range(100):
        line.gateway.unicast(number, "x")
    line.gateway.urgent([PAUSE, [1]])
    await idle()
    assert len(writes) == 1
    assert line.shard_events.messages == [(PAUSE, [1]), *[(n, "x") for n in range(100)]]
    await close(line)


@on_virtual_time
async def test_a_link_that_is_closed_says_why_and_delivers_what_was_queued() -> None:
    line = await opened()
    line.gateway.unicast(1, "last words")
    line.gateway.close(LinkDown("the gateway is upgraded"))
    line.gateway.close(LinkDown("not heard"))
    line.gateway.unicast(1, "too late")
    assert not line.gateway.is_open
    await ended(line)
    assert line.shard_events.messages == [(1, "last words")]
    assert isinstance(line.shard_events.error, LinkClosedByPeer)
    assert str(line.shard_events.error) == "the gateway is upgraded"
    assert str(line.gateway_events.error) == "the gateway is upgraded"


@on_virtual_time
async def test_both_ends_may_close_at_once() -> None:
    line = await opened()
    line.gateway.close(LinkDown("one"))
    line.shard.close(LinkDown("other"))
    await ended(line)


@on_virtual_time
async def test_a_stream_that_ends_without_goodbye_is_a_peer_that_died() -> None:
    line = await opened()
    line.gateway_end.close()
    await ended(line)
    assert str(line.shard_events.error) == "the connection ended (end of stream)"
    assert type(line.shard_events.error) is LinkDown


@on_virtual_time
async def test_a_reset_is_told_with_its_cause() -> None:
    line = await opened()
    line.gateway_end.abort()
    await ended(line)
    assert "reset by peer" in str(line.shard_events.error)


@pytest.mark.parametrize("steps", range(16))
@pytest.mark.parametrize("side", ["gateway", "shard"])
def test_a_line_cut_at_any_moment_is_told_once_to_whoever_was_told_of_the_link(
    steps: int, side: str
) -> None:
    @on_virtual_time
    async def scenario() -> None:
        line = Line()
        busy = asyncio.create_task(produce(line))
        for _ in range(steps):
            await asyncio.sleep(0)
        (line.gateway_end if side == "gateway" else line.shard_end).cut(OSError("cut"))
        await busy
        await idle()
        for link, recorder in (
            (line.gateway, line.gateway_events),
            (line.shard, line.shard_events),
        ):
            assert link.session.state is LinkState.CLOSED
            assert recorder.events.count("down") == recorder.events.count("up")
            if recorder.events:
                assert recorder.events[-1] == "down"
                assert str(recorder.error) == "the connection ended (cut)"
        assert len(line.closed) == 1

    async def produce(line: Line) -> None:
        for number in range(8):
            if line.gateway.is_open:
                line.gateway.unicast(number, bytes(300_000))
                line.shard.unicast(number, "x")
            await asyncio.sleep(0)

    scenario()


@on_virtual_time
async def test_a_link_closed_before_its_transport_is_there_never_comes_up() -> None:
    recorder, stranger = Recorder(), Stranger()
    closed: list[LinkError] = []
    link = Link(hello(), recorder, prompt_acks=False, closed=closed.append)
    link.close(LinkDown("changed my mind"))
    connect(link, stranger)
    await idle()
    assert [str(error) for error in closed] == ["changed my mind"]
    assert recorder.events == []
    assert stranger.lost
    assert stranger.data == b""


@on_virtual_time
async def test_records_queued_after_the_end_do_not_pile_up() -> None:
    line = await opened()
    await close(line)
    for _ in range(20):
        line.gateway.unicast(1, bytes(BATCH_TARGET_BYTES))
    assert line.gateway.queued_bytes < 2 * BATCH_TARGET_BYTES


# --- the handshake -------------------------------------------------------------------------------


@on_virtual_time
async def test_a_peer_that_does_not_greet_is_left_after_a_time() -> None:
    recorder, stranger = Recorder(), Stranger()
    closed: list[LinkError] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    link = Link(hello(), recorder, prompt_acks=False, closed=closed.append)
    connect(link, stranger)
    await asyncio.sleep(HELLO_TIMEOUT_S - 0.1)
    assert not stranger.lost
    await asyncio.sleep(0.2)
    assert loop.time() - began == pytest.approx(HELLO_TIMEOUT_S + 0.1)
    assert stranger.lost
    assert b"no HELLO within 5 s" in stranger.data  # in GOODBYE
    assert [str(error) for error in closed] == ["no HELLO within 5 s"]
    assert recorder.events == []


@on_virtual_time
async def test_a_peer_that_greets_byte_by_byte_in_time_is_welcome() -> None:
    recorder = Recorder()
    other, _ = open_pair()
    other = type(other)(hello("shard"), lambda: None, prompt_acks=True)
    other.greet()
    link = Link(hello(), recorder, prompt_acks=False)
    _, end = connect(link, Stranger())
    for byte in take(other):
        end.write(bytes([byte]))
        await asyncio.sleep(0.01)
    assert recorder.events == ["up"]
    link.close(LinkDown("test over"))
    await idle()
    assert recorder.events == ["up", "down"]


@on_virtual_time
async def test_another_version_is_refused_and_both_sides_say_why() -> None:
    recorder, stranger = Recorder(), Stranger()
    link = Link(hello(), recorder, prompt_acks=False)
    _, end = connect(link, stranger)
    fields = {**hello("shard").fields(), "version": 9}
    end.writelines(encode(1, 0, [[2, fields]], []))
    await idle()
    assert recorder.events == []
    assert b"the peer speaks link version 9, this process 1" in stranger.data
    assert stranger.lost


# --- malformed input -----------------------------------------------------------------------------

NEXT = 2  # number of the gateway's next batch in a link that has just opened


def raw(body: bytes, blobs: bytes = b"") -> bytes:
    return HEAD.pack(len(body), len(blobs)) + body + blobs


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (raw(b"\xc1"), "not valid msgpack"),
        (raw(b""), "not valid msgpack"),
        (raw(msgpack.packb("x")), "sequence numbers"),
        (raw(msgpack.packb([NEXT, 0, [77]])), "unknown kind"),
        (raw(msgpack.packb([NEXT, 0, [CLOSE]])), "has 1 items, not 4"),
        (raw(msgpack.packb([NEXT, 0]), b"blob"), "belong to no record"),
        (raw(msgpack.packb([NEXT + 1, 0])), "batch 3 follows batch 1"),
        (raw(msgpack.packb([NEXT, 999])), "acknowledgement of batch 999"),
        (raw(msgpack.packb([0, 1, [CLOSE, 1, 1000, ""]])), "without a number"),
        (HEAD.pack(20 << 20, 0), "larger than 16777216"),
        (HEAD.pack(8, 2**32 - 1), "larger than 16777216"),
    ],
)
def test_malformed_input_closes_this_link_and_both_sides_say_why(data: bytes, text: str) -> None:
    @on_virtual_time
    async def scenario() -> None:
        line, bystander = await opened(), await opened()
        line.gateway_end.write(data)
        await ended(line)
        assert type(line.shard_events.error) is ProtocolError
        assert text in str(line.shard_events.error)
        assert type(line.gateway_events.error) is LinkClosedByPeer
        assert str(line.gateway_events.error) == str(line.shard_events.error)
        assert bystander.gateway.is_open
        await close(bystander)

    scenario()


@on_virtual_time
async def test_an_oversized_batch_is_refused_even_if_it_fits_the_read_buffer() -> None:
    line = await opened(shard=hello("shard", max_batch_bytes=1000))
    line.gateway.unicast(1, "x" * 1000)
    await ended(line)
    assert line.shard_events.messages == []
    assert "is larger than 1000" in str(line.shard_events.error)


class Failing(Recorder):
    """Raises for one message, or when the link comes up or goes down."""

    def __init__(self, error: Exception, where: str = "records") -> None:
        super().__init__()
        self.raised, self.where = error, where

    def link_up(self, link: Link, peer: Hello) -> None:
        super().link_up(link, peer)
        if self.where == "up":
            raise self.raised

    def link_records(self, link: Link, records: list[Record]) -> None:
        super().link_records(link, records)
        if self.where == "records" and self.messages[-1][-1] == "poison":
            raise self.raised

    def link_down(self, link: Link, error: LinkError) -> None:
        super().link_down(link, error)
        if self.where == "down":
            raise self.raised


@pytest.mark.parametrize("where", ["up", "records"])
@pytest.mark.parametrize(
    "error", [TypeError("not a number"), AttributeError("x"), KeyError(7), ProtocolError("no")]
)
def test_a_handler_that_raises_closes_only_its_link(error: Exception, where: str) -> None:
    @on_virtual_time
    async def scenario() -> None:
        line, bystander = Line(shard_handler=Failing(error, where)), await opened()
        await idle()
        line.gateway.unicast(1, "poison")
        await ended(line)
        assert type(line.shard_events.error) is ProtocolError
        assert str(error) in str(line.shard_events.error)
        assert str(line.gateway_events.error) == str(line.shard_events.error)
        assert bystander.shard.is_open
        await close(bystander)

    scenario()


@on_virtual_time
async def test_a_batch_whose_handler_failed_is_not_acknowledged_those_before_it_are() -> None:
    line = await opened(shard_handler=Failing(TypeError("no")))
    session = line.gateway.session
    line.gateway.unicast(1, "fine")
    handled = session.filling_seq
    line.gateway_end.writelines(session.take())
    line.gateway.unicast(1, "poison")
    line.gateway_end.writelines(session.take())  # both are read at once
    await ended(line)
    assert session.acked_seq == handled


@on_virtual_time
async def test_goodbye_acknowledges_what_a_lazy_side_has_handled() -> None:
    line = await opened()
    line.shard.unicast(1, "x")
    seq = line.shard.session.filling_seq
    await idle()
    assert line.shard.session.acked_seq < seq
    await close(line)
    assert line.shard.session.acked_seq == seq


@on_virtual_time
async def test_a_handler_that_fails_at_the_end_does_not_keep_the_dialler_waiting() -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    line = await opened(gateway_handler=Failing(TypeError("no"), "down"))
    line.gateway.close(LinkDown("over"))
    await ended(line)  # line.closed was called
    assert [type(context["exception"]) for context in errors] == [TypeError]


class Closing(Recorder):
    """Closes the link from within a call."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def link_up(self, link: Link, peer: Hello) -> None:
        super().link_up(link, peer)
        if self.where == "up":
            link.close(LinkDown("not you"))

    def link_records(self, link: Link, records: list[Record]) -> None:
        super().link_records(link, records)
        link.close(LinkDown("enough"))


@on_virtual_time
async def test_a_link_may_be_closed_from_link_up() -> None:
    line = Line(shard_handler=Closing("up"))
    line.gateway.unicast(1, "early")
    await ended(line)
    assert str(line.gateway_events.error) == "not you"
    assert line.shard_events.messages == []


@on_virtual_time
async def test_a_link_may_be_closed_from_link_records_and_gets_no_more() -> None:
    line = await opened(shard_handler=Closing("records"))
    session = line.gateway.session
    for text in ("one", "two"):
        line.gateway.unicast(1, text)
        line.gateway_end.writelines(session.take())
    await ended(line)
    assert str(line.gateway_events.error) == "enough"
    assert line.shard_events.messages == [(1, "one")]


@on_virtual_time
async def test_a_record_that_cannot_be_packed_ends_the_link_rather_than_being_lost() -> None:
    line = await opened()
    line.gateway.unicast(1, "x")
    line.gateway.send([CLOSE, 1, object(), ""])
    await ended(line)
    assert "a record could not be sent" in str(line.gateway_events.error)
    assert line.shard_events.messages == []


@on_virtual_time
async def test_a_text_with_a_lone_surrogate_arrives_without_it() -> None:
    line = await opened()
    line.shard.unicast(1, "a\ud800")
    line.shard.unicast(2, "b" * 20_000 + "\ud800")
    line.shard.unicast(3, "c")
    await idle()
    assert line.gateway_events.messages == [(1, "a\ufffd"), (2, "b" * 20_000 + "\ufffd"), (3, "c")]
    await close(line)


# --- the read buffer -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_any_fragmentation_gives_the_same_messages(seed: int) -> None:
    """Blobs of all sizes, below, at and far above the buffer's, byte by byte or all at once."""

    @on_virtual_time
    async def scenario() -> None:
        rng = random.Random(seed)
        gateway, _ = open_pair()
        recorder = Recorder()
        link = Link(hello("shard", window_bytes=1 << 30), recorder, prompt_acks=True)
        connect(link, Stranger())
        sender = type(gateway)(hello(window_bytes=1 << 30), lambda: None, prompt_acks=False)
        sender.greet()
        sender.peer = link.session.local
        data, expected = b"", []
        sizes = [0, 1, 8191, 8192, READ_BUFFER_BYTES - 40, READ_BUFFER_BYTES, READ_BUFFER_BYTES + 1]
        sizes += [3 * ONE_MB, KEEP_BUFFER_BYTES + 1, 6 * ONE_MB, 10, 20, 300_000]
        rng.shuffle(sizes)
        for number, size in enumerate(sizes):
            payload: str | bytes = rng.randbytes(size) if rng.random() < 0.7 else "é" * (size // 2)
            sender.unicast(number, payload)
            expected.append((number, payload))
            if rng.random() < 0.7:
                data += take(sender)
        data += take(sender)
        start = 0
        while start < len(data):
            room = link.get_buffer(-1)
            assert len(room) > 0
            most = len(room) if rng.random() < 0.5 else rng.choice([1, 7, 9, 1000, 70_000])
            count = min(most, len(room), len(data) - start)
            room[:count] = data[start : start + count]
            room.release()
            start += count
            link.buffer_updated(count)
        assert recorder.messages == expected
        link.close(LinkDown("test over"))
        await idle()

    scenario()


@on_virtual_time
async def test_a_buffer_that_grew_beyond_what_is_kept_is_given_back() -> None:
    line = await opened()
    line.gateway.unicast(1, bytes(KEEP_BUFFER_BYTES + 1))
    await idle()
    assert len(line.shard_events.messages) == 1
    assert len(line.shard.get_buffer(-1)) == READ_BUFFER_BYTES
    line.gateway.unicast(1, bytes(KEEP_BUFFER_BYTES // 2))
    await idle()
    assert len(line.shard.get_buffer(-1)) == KEEP_BUFFER_BYTES  # kept: the next needs it, too
    await close(line)


@on_virtual_time
async def test_a_blob_is_a_view_of_the_read_buffer_and_not_a_copy() -> None:
    class Looking(Recorder):
        def link_records(self, link: Link, records: list[Record]) -> None:
            view = records[0][2]
            assert isinstance(view, memoryview)
            assert view.obj is link.get_buffer(-1).obj
            super().link_records(link, records)

    line = await opened(shard_handler=Looking())
    payload = random.Random(1).randbytes(100_000)
    line.gateway.unicast(1, payload)
    await idle()
    assert line.shard_events.messages == [(1, payload)]
    await close(line)


# --- flow control --------------------------------------------------------------------------------


@on_virtual_time
async def test_a_stalled_peer_congests_the_link_and_its_return_makes_it_writable() -> None:
    line = await opened()
    line.shard_end.stall()
    sent: list[tuple[int, bytes]] = []
    while not line.gateway.session.congested:
        payload = f"{len(sent):06} ".encode() * 9000
        line.gateway.unicast(1, payload)
        sent.append((1, payload))
        await idle()
    assert line.gateway_events.events == ["up"]
    assert line.gateway.queued_bytes >= CONGESTED_BYTES
    line.shard_end.resume()
    await idle()
    assert line.gateway_events.events == ["up", "writable"]
    assert line.shard_events.messages == sent
    await close(line)


@on_virtual_time
async def test_congestion_within_one_turn_is_followed_by_writable() -> None:
    """A producer that was paused in the middle of the turn must be resumed."""
    line = await opened(shard=hello("shard", window_bytes=64 << 20))
    while not line.gateway.session.congested:
        line.gateway.unicast(1, bytes(100_000))
    await idle()
    assert line.gateway_events.events == ["up", "writable"]
    await close(line)


@on_virtual_time
async def test_two_directions_congested_at_once_come_free() -> None:
    line = await opened()
    line.shard_end.stall()
    line.gateway_end.stall()
    for _ in range(6):
        line.gateway.unicast(1, bytes(ONE_MB))
        line.shard.unicast(1, bytes(ONE_MB))
        await idle()
    assert line.gateway.session.congested
    assert line.shard.session.congested
    line.shard_end.resume()
    line.gateway_end.resume()
    await idle()
    assert len(line.gateway_events.messages) == len(line.shard_events.messages) == 6
    await close(line)


@on_virtual_time
async def test_a_queue_for_a_peer_that_does_not_read_ends_the_link_at_its_bound() -> None:
    line = await opened(max_queue_bytes=3 * ONE_MB)
    line.shard_end.stall()
    most = 0
    while line.gateway.is_open:
        line.gateway.unicast(1, bytes(100_000))
        await asyncio.sleep(0)
        most = max(most, line.gateway.queued_bytes)
    assert 3 * ONE_MB - 100_000 <= most <= 3 * ONE_MB
    await ended(line)
    assert type(line.gateway_events.error) is LinkDown
    assert re.fullmatch(
        r"the peer does not read: 32\d{5} bytes wait", str(line.gateway_events.error)
    )
    assert line.gateway.queued_bytes == 0


@on_virtual_time
async def test_the_bound_of_the_queue_is_windows_or_batches_if_nothing_else_is_said() -> None:
    line = await opened()
    local = line.gateway.session.local
    expected = max(8 * local.window_bytes, 4 * local.max_batch_bytes)
    assert line.gateway.session.max_queue_bytes == expected
    await close(line)


@on_virtual_time
async def test_what_needs_no_credit_is_bounded_as_well() -> None:
    small = hello("shard", max_batch_bytes=ONE_MB)
    line = await opened(shard=small)
    line.shard_end.stall()
    most = 0
    while line.gateway.is_open:
        line.gateway.urgent([PAUSE, list(range(10_000))])
        await asyncio.sleep(0)
        most = max(most, line.gateway_end.get_write_buffer_size())
    assert most < small.window_bytes + small.max_batch_bytes + driver.SLACK_BYTES + 100_000
    await ended(line)
    assert "the peer does not read" in str(line.gateway_events.error)


@on_virtual_time
async def test_a_close_does_not_wait_for_ever_for_a_peer_that_does_not_read() -> None:
    line = await opened()
    line.shard_end.stall()
    line.gateway.unicast(1, bytes(2 * KERNEL_BYTES))
    await idle()
    began = asyncio.get_running_loop().time()
    line.gateway.close(LinkDown("over"))
    await idle()
    assert line.gateway_events.events == ["up"]
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert line.gateway_events.events == ["up", "down"]
    assert str(line.gateway_events.error) == "over"
    assert asyncio.get_running_loop().time() - began < CLOSE_TIMEOUT_S + 0.1
    await ended(line)


@on_virtual_time
async def test_the_number_of_a_batch_that_arrives_is_the_one_that_was_told() -> None:
    line = await opened()
    line.gateway.unicast(1, "x")
    seq = line.gateway.session.filling_seq
    assert line.gateway.session.acked_seq < seq
    await idle()
    assert line.gateway.session.acked_seq == seq
    assert line.shard_events.messages == [(1, "x")]
    await close(line)


def test_frames_are_kind_zero() -> None:
    """The cheapest kind for the most frequent record."""
    assert FRAMES == 0


class TickingLoop:
    """The running loop, on which each look at the clock finds that 6 ms have passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now_s = loop.time()

    def time(self) -> float:
        self._now_s += 0.006
        return self._now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@on_virtual_time
async def test_a_flood_of_batches_is_handled_in_slices_between_which_others_run() -> None:
    """A turn handles what fits into its slice of time; order is kept and nothing is lost."""
    line = await opened()
    line.shard_end.stall()
    for number in range(12):
        line.gateway.unicast(1, str(number))
        await idle()
    line.shard._loop = TickingLoop(asyncio.get_running_loop())  # type: ignore[assignment]
    line.shard_end.resume()
    seen: list[int] = []
    while len(line.shard_events.messages) < 12:
        await asyncio.sleep(0)
        seen.append(len(line.shard_events.messages))
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert max(steps) <= 3, seen
    assert [payload for _, payload in line.shard_events.messages] == [str(n) for n in range(12)]
    await close(line)
