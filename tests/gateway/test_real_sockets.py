"""Rows of the table that depend on real TCP and on uvloop: a gateway process, a scripted shard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from common.close_reasons import LOST_TEXT
from common.link.records import BODY, BODY_CREDIT, BODY_STREAM, CLOSE, CLOSED, Record
from common.link.unix import UnixTransport
from tests.gateway.support import (
    CLOSE_REASON,
    SWITCH,
    FakeShard,
    close_frame,
    frame,
    handshake,
    server_close,
    server_text,
)

pytestmark = pytest.mark.processes

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOING = server_close(1001, "The gateway is stopping")
COUNT_1 = server_text("[Durable Object] currentlyConnectedWebSockets: 1")
LOST = [1006, LOST_TEXT, False]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def start(run_dir: Path, port: int, **more: str) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "RUN_DIR": str(run_dir),
        "PORT": str(port),
        "SHARDS": "1",
        "STOP_TIMEOUT_S": "5",
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        env=environ,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )


class Real:
    """A gateway process with its shard, which runs here."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, shard: FakeShard) -> None:
        self.process = process
        self.port = port
        self.shard = shard
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def upgraded(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        before = len(self.shard.sockets)
        reader, writer = await self.connect()
        writer.write(handshake())
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        await self.shard.until(lambda: len(self.shard.sockets) > before)
        return reader, writer

    async def closed(self) -> list[object]:
        """What the object was told of the only connection."""
        [record] = await self.shard.next_of(CLOSED)
        return record[2:]


@contextlib.asynccontextmanager
async def real(tmp_path: Path, **more: str) -> AsyncIterator[Real]:
    port = free_port()
    shard = FakeShard()
    listener = await shard.listen(UnixTransport(tmp_path))
    process = start(tmp_path, port, **more)
    try:
        await shard.until(lambda: shard.link is not None)
        running = Real(process, port, shard)
        yield running
        for writer in running.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    finally:
        process.kill()
        _, said = process.communicate()
        await listener.close()
    assert b"Traceback" not in said, said.decode()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.read(-1)


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_from_start_to_sigterm(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        reader, writer = await r.upgraded()
        r.process.send_signal(signal.SIGTERM)
        assert await reader.readexactly(len(GOING)) == GOING
        writer.write(close_frame(1001))
        assert await read_all(reader) == b""
        assert await r.closed() == [1001, "", True]
        assert await asyncio.to_thread(r.process.wait, 10) == 0


async def test_a_port_in_use(tmp_path: Path) -> None:
    """One message for people, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(tmp_path, taken.getsockname()[1])
        _, said = await asyncio.to_thread(process.communicate, None, 20)
    assert process.returncode == 2
    assert b"Traceback" not in said
    assert b"cannot listen" in said


async def test_several_gateways_share_a_port(tmp_path: Path) -> None:
    async with real(tmp_path, GATEWAYS="2") as r:
        second = start(tmp_path, r.port, GATEWAYS="2")
        try:
            first_link = r.shard.link
            await r.shard.until(lambda: r.shard.link is not first_link)
            for _ in range(20):
                reader, writer = await r.connect()
                writer.write(GET)
                assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        finally:
            second.terminate()
            assert await asyncio.to_thread(second.wait, 10) == 0
            second.communicate()


async def test_the_closing_handshake(tmp_path: Path) -> None:
    """TCP ends at once after the second Close, by either side."""
    async with real(tmp_path) as r:
        reader, writer = await r.upgraded()
        writer.write(frame("x") + close_frame(1000, "bye"))
        assert await read_all(reader) == COUNT_1 + server_close(1000, CLOSE_REASON)
        assert await r.closed() == [1000, "bye", True]
        reader, writer = await r.upgraded()
        number = max(r.shard.sockets)
        r.shard.send([CLOSE, number, 4000, "enough"])
        assert await reader.readexactly(10) == server_close(4000, "enough")
        writer.write(close_frame(4000))
        assert await read_all(reader) == b""
        assert (await r.shard.next_of(CLOSED, 2))[1][2:] == [4000, "", True]


async def test_frames_in_the_packet_of_the_handshake(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        reader, writer = await r.connect()
        writer.write(GET + handshake() + frame("x") + frame("y")[:3])
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        writer.write(frame("y")[3:])
        assert await reader.readexactly(len(COUNT_1) * 2) == COUNT_1 * 2


async def test_a_violation_in_the_middle_of_a_flood(tmp_path: Path) -> None:
    """The client reads our Close although it goes on sending for megabytes."""
    async with real(tmp_path) as r:
        reader, writer = await r.upgraded()
        writer.write(b"\x82\xff" + (33554433).to_bytes(8, "big"))
        for _ in range(100):
            writer.write(b"x" * 100_000)
        text = "Message is too large: 33554433 > 33554432"
        assert await read_all(reader) == server_close(1009, text)
        assert await r.closed() == [1006, text, False]


async def test_a_refusal_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        reader, writer = await r.connect()
        writer.write(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n")
        for _ in range(50):
            writer.write(b"x" * 100_000)
        assert (await read_all(reader)).startswith(b"HTTP/1.1 414 ")


async def test_ways_to_vanish(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        for count, way in enumerate(("eof", "reset", "frame"), start=1):
            reader, writer = await r.upgraded()
            if way == "eof":
                writer.write_eof()
                assert await read_all(reader) == b""
            elif way == "reset":
                reset(writer)
            else:
                writer.write(frame("hello")[:7])
                writer.write_eof()
            closed = await r.shard.next_of(CLOSED, count)
            assert closed[-1][2:] == LOST
        assert r.shard.count == 0


async def test_an_upgrade_and_the_end_of_stream_together(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        reader, writer = await r.connect()
        writer.write(handshake())
        writer.write_eof()
        assert await read_all(reader) == SWITCH
        assert await r.closed() == LOST


async def test_a_vanished_client_is_noticed(tmp_path: Path) -> None:
    async with real(tmp_path, PING_INTERVAL_S="1", PING_TIMEOUT_S="0.5") as r:
        reader, _ = await r.upgraded()
        assert await reader.readexactly(2) == b"\x89\x00"
        assert await r.closed() == LOST
        with contextlib.suppress(ConnectionResetError):
            assert await read_all(reader) == b""


async def test_a_client_that_never_reads(tmp_path: Path) -> None:
    """It is closed; another client of the same gateway does not notice any of it."""
    async with real(tmp_path, CONNECTION_BUFFER_BYTES="100000", CLOSE_TIMEOUT_S="0.5") as r:
        _, slow = await r.upgraded()
        slow.transport.pause_reading()  # type: ignore[attr-defined]
        number = max(r.shard.sockets)
        reader, writer = await r.upgraded()
        assert r.shard.link is not None
        while not r.shard.of_kind(CLOSED):
            for _ in range(20):
                r.shard.link.unicast(number, b"x" * 50_000)
            writer.write(frame("x"))
            await reader.readexactly(len(COUNT_1))
        assert await r.closed() == [1006, "The client reads too slowly", False]
        slow.transport.abort()


async def test_large_messages_both_ways(tmp_path: Path) -> None:
    async with real(tmp_path) as r:
        link = r.shard.link
        assert link is not None
        r.shard.on_message = link.unicast
        reader, writer = await r.upgraded()
        for message in (b"x" * 5_000_000, "é" * 1_000_000, "y" * 32_000_000):
            writer.write(frame(message))
            head = await reader.readexactly(10)
            raw = message.encode() if isinstance(message, str) else message
            assert head[0] == (0x81 if isinstance(message, str) else 0x82)
            assert await reader.readexactly(len(raw)) == raw


async def test_a_streamed_answer_to_a_reader_that_is_slow(tmp_path: Path) -> None:
    """The shard gets credit as fast as the client reads, and the whole body arrives."""
    async with real(tmp_path, BODY_WINDOW_BYTES="65536") as r:
        kept: list[Record] = []
        r.shard.on_request = kept.append
        reader, writer = await r.connect()
        writer.write(GET)
        await r.shard.until(lambda: bool(kept))
        request_id = kept[0][1]
        r.shard.respond(request_id, 200, [["Content-Length", "20000000"]], mode=BODY_STREAM)
        await reader.readuntil(b"\r\n\r\n")
        size = 20_000_000

        async def send() -> None:
            for sent in range(0, size, 65536):
                await r.shard.until(partial(allowed, sent))
                r.shard.send([BODY, request_id, b"x" * min(65536, size - sent)])

        def allowed(sent: int) -> bool:
            credit: int = sum(record[2] for record in r.shard.of_kind(BODY_CREDIT))
            return sent < 65536 + credit

        sending = asyncio.create_task(send())
        received = 0
        while received < size:
            received += len(await reader.read(200_000))
        await sending
