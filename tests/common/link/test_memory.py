"""What a transport promises its protocol: in memory as on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
import uvloop

from common.errors import LinkDown, LinkError
from common.link.driver import Link
from common.link.memory import HIGH_WATER_BYTES, KERNEL_BYTES, MemoryNetwork, connect
from local import virtual_time
from local.virtual_time import on_virtual_time
from tests.common.link.support import Recorder, hello

PATIENCE_S = 10
Scenario = Callable[["Joined"], Coroutine[Any, Any, None]]


class End:
    """A protocol's end of a line: what it was told, and a way to wait for it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.error: Exception | None = None
        self.stays_open_at_eof = False
        self.raises: Exception | None = None
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def told(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()

    def arrived(self, data: bytes) -> None:
        self.data += data
        self._changed.set()
        if self.raises is not None:
            raise self.raises

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.told("lost")

    def eof_received(self) -> bool:
        self.told("eof")
        return self.stays_open_at_eof

    def pause_writing(self) -> None:
        self.told("pause")

    def resume_writing(self) -> None:
        self.told("resume")


class Streaming(End, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.arrived(data)


class Buffered(End, asyncio.BufferedProtocol):
    """With a small buffer, so that much data needs many calls."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived(bytes(self.buffer[:nbytes]))


class Joined:
    """Two ends of one line."""

    def __init__(self, one: End, other: End) -> None:
        self.one, self.other = one, other

    async def close(self) -> None:
        for end in self.one, self.other:
            if "lost" not in end.events:
                end.transport.abort()
            await end.until(lambda end=end: "lost" in end.events)  # type: ignore[misc]


async def join_by_memory(one: Any, other: Any) -> None:
    connect(one, other)


async def join_by_sockets(one: Any, other: Any) -> None:
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    for protocol, end in zip((one, other), ends, strict=True):
        end.setblocking(False)
        await loop.create_unix_connection(lambda protocol=protocol: protocol, sock=end)  # type: ignore[misc]


Join = Callable[[Any, Any], Awaitable[None]]
KINDS: dict[str, tuple[Join, Callable[[Coroutine[Any, Any, None]], None]]] = {
    "memory": (join_by_memory, virtual_time.run),
    "asyncio": (join_by_sockets, virtual_time.run),
    "uvloop": (join_by_sockets, uvloop.run),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[Streaming, Buffered])
def run(request: pytest.FixtureRequest, kind: str) -> Callable[[Scenario], None]:
    """Run a scenario on a line of each kind, with both kinds of protocol."""
    join, run_coroutine = KINDS[kind]

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            joined = Joined(request.param(), request.param())
            await join(joined.one, joined.other)
            await scenario(joined)
            await joined.close()
            for end in joined.one, joined.other:
                assert end.events.count("lost") == 1
                assert end.events[-1] == "lost"

        run_coroutine(main())

    return run


Run = Callable[[Scenario], None]


def test_bytes_arrive_in_order_in_both_directions(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        there = b"".join(b"%d " % number for number in range(5000))
        for start in range(0, len(there), 777):
            line.one.transport.write(there[start : start + 777])
        line.other.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        await line.other.until(lambda: line.other.data == there)
        await line.one.until(lambda: line.one.data == b"abc")

    run(scenario)


def test_nothing_is_delivered_within_the_write(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.one.transport.write(b"x")
        assert line.other.data == b""
        await line.other.until(lambda: line.other.data == b"x")

    run(scenario)


def test_close_delivers_what_was_written_then_the_end_of_the_stream(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.one.transport.write(b"x" * 300_000)
        line.one.transport.close()
        line.one.transport.close()
        assert line.one.transport.is_closing()
        assert "lost" not in line.one.events
        await line.other.until(lambda: "lost" in line.other.events)
        assert line.other.data == b"x" * 300_000
        assert line.other.events == ["eof", "lost"]
        assert line.other.error is None
        await line.one.until(lambda: "lost" in line.one.events)
        assert line.one.error is None

    run(scenario)


def test_a_closed_end_reads_no_more(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.one.transport.close()
        line.other.transport.write(b"too late")
        await line.one.until(lambda: "lost" in line.one.events)
        assert line.one.data == b""

    run(scenario)


def test_close_waits_for_a_peer_that_does_not_read(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.transport.pause_reading()
        line.one.transport.write(b"x" * 4_000_000)
        line.one.transport.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert "lost" not in line.one.events
        line.other.transport.resume_reading()
        await line.one.until(lambda: "lost" in line.one.events)
        await line.other.until(lambda: "lost" in line.other.events)
        assert len(line.other.data) == 4_000_000

    run(scenario)


def test_abort_does_not_wait_and_the_peer_loses_its_connection_too(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.transport.pause_reading()
        line.one.transport.write(b"x" * 4_000_000)
        line.one.transport.abort()
        assert line.one.transport.is_closing()
        await line.one.until(lambda: "lost" in line.one.events)
        line.other.transport.resume_reading()
        await line.other.until(lambda: "lost" in line.other.events)

    run(scenario)


def test_an_abort_after_the_end_changes_nothing(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.stays_open_at_eof = True
        line.one.transport.close()
        await line.one.until(lambda: "lost" in line.one.events)
        await line.other.until(lambda: "eof" in line.other.events)
        line.one.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
        assert line.other.events == ["eof"]

    run(scenario)


def test_nothing_is_delivered_while_reading_is_paused(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.transport.pause_reading()
        assert not line.other.transport.is_reading()
        line.one.transport.write(b"x")
        line.other.transport.write(b"y")
        await line.one.until(lambda: line.one.data == b"y")
        assert line.other.data == b""
        line.other.transport.resume_reading()
        assert line.other.transport.is_reading()
        await line.other.until(lambda: line.other.data == b"x")

    run(scenario)


def test_a_writer_is_paused_when_much_waits_and_resumed_when_little_does(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.transport.pause_reading()
        line.one.transport.set_write_buffer_limits(1_000_000)
        for round_ in range(1, 3):
            while line.one.events.count("pause") < round_:
                line.one.transport.write(b"x" * 100_000)
                await asyncio.sleep(0)
            assert line.one.transport.get_write_buffer_size() > 1_000_000
            line.other.transport.resume_reading()
            await line.one.until(lambda: line.one.events[-1] == "resume")
            line.other.transport.pause_reading()
        assert line.one.events == ["pause", "resume"] * 2

    run(scenario)


def test_a_half_closed_line_still_carries_the_other_direction(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.other.stays_open_at_eof = True
        assert line.one.transport.can_write_eof()
        line.one.transport.write(b"question")
        line.one.transport.write_eof()
        await line.other.until(lambda: "eof" in line.other.events)
        assert line.other.data == b"question"
        line.other.transport.write(b"answer")
        await line.one.until(lambda: line.one.data == b"answer")

    run(scenario)


def test_another_protocol_can_take_over(run: Run) -> None:
    async def scenario(line: Joined) -> None:
        line.one.transport.write(b"first")
        await line.other.until(lambda: line.other.data == b"first")
        heir = Streaming()
        transport = line.other.transport
        transport.pause_reading()
        transport.set_protocol(heir)
        heir.connection_made(transport)
        assert transport.get_protocol() is heir
        transport.resume_reading()
        line.one.transport.write(b"second")
        await heir.until(lambda: heir.data == b"second")
        assert line.other.data == b"first"
        line.other = heir

    run(scenario)


def test_a_protocol_that_raises_loses_its_connection_and_the_loop_goes_on(
    run: Run, kind: str
) -> None:
    reported: list[dict[str, Any]] = []

    async def scenario(line: Joined) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        line.other.raises = LookupError("a bug")
        line.one.transport.write(b"x")
        await line.other.until(lambda: "lost" in line.other.events)
        await line.one.until(lambda: "lost" in line.one.events)
        assert isinstance(line.other.error, LookupError)

    run(scenario)
    assert isinstance(reported[0]["exception"], LookupError)


# --- only in memory ------------------------------------------------------------------------------


@on_virtual_time
async def test_a_stalled_end_gets_nothing_until_it_is_resumed() -> None:
    one, other = Streaming(), Streaming()
    near, far = connect(one, other)
    far.stall()
    near.write(b"x")
    near.close()
    await asyncio.sleep(1)
    assert other.data == b""
    assert other.events == []
    far.resume()
    await asyncio.sleep(1)
    assert other.data == b"x"
    assert other.events == ["eof", "lost"]


@on_virtual_time
async def test_a_cut_line_delivers_nothing_more_and_tells_both_ends_in_the_next_turn() -> None:
    one, other = Streaming(), Streaming()
    near, _ = connect(one, other)
    near.write(b"x")
    error = OSError("cut")
    near.cut(error)
    near.write(b"y")
    assert one.events == other.events == []
    await asyncio.sleep(1)
    assert one.events == other.events == ["lost"]
    assert one.error is other.error is error
    assert other.data == b""


@on_virtual_time
async def test_what_is_written_to_an_end_that_is_gone_is_not_kept() -> None:
    one, other = Streaming(), Streaming()
    one.stays_open_at_eof = True
    near, far = connect(one, other)
    far.close()
    await asyncio.sleep(1)
    assert one.events == ["eof"]
    near.write(bytes(2 * HIGH_WATER_BYTES))
    assert near.get_write_buffer_size() == 0
    near.close()
    await asyncio.sleep(1)
    assert one.events == ["eof", "lost"]


@on_virtual_time
async def test_an_end_that_is_closed_does_not_wait_for_one_that_is_closed_too() -> None:
    one, other = Streaming(), Streaming()
    near, far = connect(one, other)
    far.stall()
    near.write(bytes(2 * KERNEL_BYTES))
    near.close()
    await asyncio.sleep(1)
    assert one.events == ["pause"]
    far.close()
    await asyncio.sleep(1)
    assert one.events == ["pause", "lost"]
    assert other.events == ["lost"]


@on_virtual_time
async def test_both_ends_know_what_the_line_was_given() -> None:
    near, far = connect(Streaming(), Streaming(), peername="client")
    assert near.get_extra_info("peername") == far.get_extra_info("peername") == "client"
    assert near.get_extra_info("socket") is None
    near.abort()
    await asyncio.sleep(1)


@on_virtual_time
async def test_a_network_joins_by_name() -> None:
    network = MemoryNetwork()
    shard, gateway = Recorder(), Recorder()

    def accept() -> Link:
        return Link(hello("shard"), shard, prompt_acks=True)

    def dial() -> Link:
        return Link(hello("gateway"), gateway, prompt_acks=False)

    listener = await network.listen("shard-0", accept)
    with pytest.raises(LinkError, match="already listens as shard-0"):
        await network.listen("shard-0", accept)
    link = await network.dial("shard-0", dial)
    await asyncio.sleep(1)
    assert shard.events == gateway.events == ["up"]
    await listener.close()
    with pytest.raises(LinkDown, match="nobody listens as shard-0"):
        await network.dial("shard-0", dial)
    assert link.is_open  # links that are up stay up
    network.lines["shard-0"][0][0].cut()
    await asyncio.sleep(1)
    assert shard.events == gateway.events == ["up", "down"]
