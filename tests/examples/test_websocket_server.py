"""The reference program over real processes: its answers, and its count however a client leaves."""

from __future__ import annotations

import asyncio
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.running import RunningCluster, limpet_up

pytestmark = pytest.mark.processes

COUNT = "[Durable Object] currentlyConnectedWebSockets: "
REASON = "Durable Object is closing WebSocket"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with limpet_up(shards=2, ping_interval_s=1, ping_timeout_s=0.5) as cluster:
        yield cluster


def client(cluster: RunningCluster, **options: Any) -> connect:
    # Loopback must not go through a proxy that the environment may name.
    return connect(f"ws://127.0.0.1:{cluster.port}/websocket", proxy=None, **options)


async def count(websocket: ClientConnection) -> int:
    await websocket.send("how many?")
    answer = await websocket.recv()
    assert isinstance(answer, str)
    assert answer.startswith(COUNT)
    return int(answer.removeprefix(COUNT))


async def until_alone(witness: ClientConnection) -> None:
    async with asyncio.timeout(10):
        while await count(witness) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def get(cluster: RunningCluster, path: str, **headers: str) -> tuple[int, str, Any, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.port}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.reason, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.reason, error.headers, error.read()


async def test_each_client_reads_how_many_are_connected(cluster: RunningCluster) -> None:
    async with client(cluster) as first:
        assert await count(first) == 1
        async with client(cluster) as second:
            assert await count(second) == 2
            assert await count(first) == 2
        await until_alone(first)


async def test_a_binary_message_is_answered_too(cluster: RunningCluster) -> None:
    async with client(cluster) as websocket:
        await websocket.send(b"\x00\xff")
        assert await websocket.recv() == f"{COUNT}1"


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_close_is_answered_with_the_same_code(cluster: RunningCluster, code: int) -> None:
    async with client(cluster) as websocket:
        await websocket.close(code, "bye")
        assert (websocket.close_code, websocket.close_reason) == (code, REASON)


async def test_a_close_without_a_code_is_answered_without_one(cluster: RunningCluster) -> None:
    with raw_client(cluster) as sock:
        sock.sendall(b"\x88\x80\x00\x00\x00\x00")
        assert read_all(sock) == b"\x88\x00"


def shake_hands(cluster: RunningCluster, upgrade: bytes) -> tuple[socket.socket, bytes]:
    """Return a socket on which a handshake was sent, and the head of the answer."""
    sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=10)
    sock.sendall(
        b"GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: " + upgrade + b"\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return sock, head


def raw_client(cluster: RunningCluster) -> socket.socket:
    """Return a socket on which the handshake is done."""
    sock, head = shake_hands(cluster, b"websocket")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return sock


def read_all(sock: socket.socket) -> bytes:
    said = b""
    while data := sock.recv(4096):
        said += data
    return said


def leave_by_fin(sock: socket.socket) -> None:
    sock.close()


def leave_by_half_close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def leave_by_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def leave_by_unmasked_frame(sock: socket.socket) -> None:
    sock.sendall(b"\x81\x02hi")


def leave_by_half_a_frame(sock: socket.socket) -> None:
    sock.sendall(b"\x81\x85\x00\x00")
    sock.close()


def leave_by_close_without_reading(sock: socket.socket) -> None:
    sock.sendall(b"\x88\x82\x00\x00\x00\x00\x03\xe8")


def vanish(sock: socket.socket) -> None:
    """Say nothing more, not even a pong: what a client does whose cable was cut."""


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_fin,
        leave_by_half_close,
        leave_by_reset,
        leave_by_unmasked_frame,
        leave_by_half_a_frame,
        leave_by_close_without_reading,
        vanish,
    ],
)
async def test_however_a_client_leaves_the_count_goes_down(
    cluster: RunningCluster, leave: Any
) -> None:
    async with client(cluster) as witness:
        with raw_client(cluster) as sock:
            assert await count(witness) == 2
            leave(sock)
            await until_alone(witness)


MESSAGE = b"\x81\x82\x00\x00\x00\x00hi"
ANSWER = b"\x81\x30" + COUNT.encode() + b"1"


async def test_messages_before_the_end_of_the_stream_are_answered(
    cluster: RunningCluster,
) -> None:
    """websocket.md §2: 10 messages, then FIN."""
    for _ in range(20):
        with raw_client(cluster) as sock:
            sock.sendall(MESSAGE * 10)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == ANSWER * 10


async def test_messages_before_a_bad_frame_are_answered(cluster: RunningCluster) -> None:
    """websocket.md §2: good messages and a bad frame in one packet."""
    text = b"Unknown opcode 3"
    for _ in range(20):
        with raw_client(cluster) as sock:
            sock.sendall(MESSAGE * 3 + b"\x83\x80\x00\x00\x00\x00")
            close = bytes((0x88, 2 + len(text))) + b"\x03\xea" + text
            assert read_all(sock) == ANSWER * 3 + close


@pytest.mark.parametrize("headers", [{}, {"Upgrade": "h2c"}])
def test_the_address_without_an_upgrade_is_426(
    cluster: RunningCluster, headers: dict[str, str]
) -> None:
    status, _, answer, body = get(cluster, "/websocket", **headers)
    assert (status, body) == (426, b"Durable Object expected Upgrade: websocket")
    assert answer["Upgrade"] == "websocket"


@pytest.mark.parametrize("upgrade", [b"WebSocket", b"websocket, h2c"])
def test_the_program_sees_the_upgrade_header_as_it_came(
    cluster: RunningCluster, upgrade: bytes
) -> None:
    """It asks for exactly "websocket", so a valid handshake that says it otherwise is its 426."""
    sock, head = shake_hands(cluster, upgrade)
    with sock:
        assert head.startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize("path", ["/", "/websocket/", "/other?to=x"])
def test_any_other_address_is_400(cluster: RunningCluster, path: str) -> None:
    status, reason, headers, body = get(cluster, path)
    assert (status, reason, body) == (400, "Bad Request", b"")
    assert headers["Content-Type"] == "text/plain"


async def test_an_upgrade_elsewhere_is_refused_by_the_program(cluster: RunningCluster) -> None:
    with pytest.raises(InvalidStatus) as raised:
        async with connect(f"ws://127.0.0.1:{cluster.port}/elsewhere", proxy=None):
            pass
    assert raised.value.response.status_code == 400


async def test_a_stop_closes_clients_with_1001_and_leaves_nothing() -> None:
    with limpet_up(shards=2) as cluster:
        pids = [*cluster.pids("gateway"), *cluster.pids("shard")]
        assert len(pids) == 3
        async with client(cluster) as websocket:
            assert await count(websocket) == 1
            cluster.process.terminate()
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            assert websocket.close_code == 1001
        assert await asyncio.to_thread(cluster.wait) == 0
        assert not list((cluster.folder / "run").glob("*.sock"))
        assert "Traceback" not in cluster.output
