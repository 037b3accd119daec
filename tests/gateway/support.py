"""A gateway, a scripted shard and raw clients, all in one event loop over memory links."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from common.errors import LinkDown, LinkError
from common.ids import PARTITION_COUNT
from common.link.driver import Link
from common.link.memory import MemoryNetwork, MemoryTransport, connect
from common.link.records import (
    ATTACH,
    BLOB_FRAME,
    BODY,
    BODY_CREDIT,
    BODY_END,
    BODY_NONE,
    BODY_WHOLE,
    CLOSE,
    CLOSED,
    FRAMES,
    REQUEST,
    RESPONSE,
    SERVING,
    Record,
)
from common.link.session import Hello
from common.link.transport import Transport
from common.membership import FixedMembership
from common.metrics import Metrics
from common.settings import Settings
from gateway.masking import apply_mask
from gateway.server import Gateway

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PATIENCE_S = 5.0
CLOSE_REASON = "Durable Object is closing WebSocket"


def frame(
    payload: bytes | str,
    opcode: int | None = None,
    *,
    first: int | None = None,
    key: bytes = b"\1\2\3\4",
) -> bytes:
    """A client's frame. *first* overrides the first byte."""
    if isinstance(payload, str):
        payload, opcode = payload.encode(), 1 if opcode is None else opcode
    data = bytearray(payload)
    apply_mask(key, data)
    size = len(data)
    byte = 0x80 | (2 if opcode is None else opcode) if first is None else first
    if size < 126:
        head = bytes((byte, 0x80 | size))
    elif size < 65536:
        head = bytes((byte, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((byte, 0xFF)) + size.to_bytes(8, "big")
    return head + key + data


def close_frame(code: int | None = None, reason: str = "") -> bytes:
    """A client's Close."""
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason.encode(), 8)


def server_close(code: int | None = None, reason: str = "") -> bytes:
    """The Close a server sends."""
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    return bytes((0x88, len(payload))) + payload


def server_text(text: str) -> bytes:
    """The text frame a server sends (up to 125 bytes)."""
    return bytes((0x81, len(text.encode()))) + text.encode()


def handshake(path: str = "/websocket", *extra: str, leave_out: str = "", **changed: str) -> bytes:
    """A handshake; headers can be changed (``Sec_WebSocket_Key="x"``), left out or added."""
    headers = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    headers.pop(leave_out, None)
    lines = [f"GET {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items()), *extra, "", ""]
    return "\r\n".join(lines).encode("latin-1")


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
)


class RawClient(asyncio.Protocol):
    """A client that sends what it is told and keeps what it gets."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.lost = False
        self.transport: MemoryTransport = None  # type: ignore[assignment]
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.lost = True
        self._news.set()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to come that makes *condition* true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def read(self, size: int) -> bytes:
        """The next *size* bytes."""
        try:
            await self.until(lambda: len(self.received) >= size or self.ended)
        except TimeoutError:
            raise AssertionError(f"only {bytes(self.received)!r} came") from None
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    async def expect(self, data: bytes) -> None:
        """Exactly *data* comes next."""
        assert await self.read(len(data)) == data

    async def read_all(self) -> bytes:
        """Everything until the end of the stream."""
        await self.until(lambda: self.ended)
        data = bytes(self.received)
        self.received.clear()
        return data

    async def read_response(self, *, has_body: bool = True) -> Response:
        """One HTTP response."""
        await self.until(lambda: b"\r\n\r\n" in self.received or self.ended)
        head, _, _ = bytes(self.received).partition(b"\r\n\r\n")
        del self.received[: len(head) + 4]
        response = Response(head)
        length = response.header("Content-Length")
        if length is not None and has_body:
            response.body = await self.read(int(length))
        elif response.header("Transfer-Encoding") == "chunked" and has_body:
            while True:
                await self.until(lambda: b"\r\n" in self.received)
                line, _, _ = bytes(self.received).partition(b"\r\n")
                await self.read(len(line) + 2)
                response.body += await self.read(int(line, 16))
                await self.expect(b"\r\n")
                if line == b"0":
                    break
        return response

    async def upgrade(self) -> None:
        """Do the handshake."""
        self.send(handshake())
        await self.expect(SWITCH)


class Response:
    """An HTTP response as it came."""

    def __init__(self, head: bytes) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        self.status_line = line
        self.status = int(line.split(" ")[1])
        self.headers = [tuple(field.split(": ", 1)) for field in fields]
        self.body = b""

    def header(self, name: str) -> str | None:
        values = [field[1] for field in self.headers if field[0].lower() == name.lower()]
        return ", ".join(values) if values else None


class FakeShard:
    """A shard that answers by script, and records what it gets.

    By default it does what the reference program does. Replace :attr:`on_request` (record, link) or
    :attr:`on_message` (connection, payload) for anything else.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.link: Link | None = None
        self.records: list[Record] = []
        self.sockets: dict[int, int] = {}  # connection id -> socket id
        self.count = 0
        self.answers_close = True
        self.credits_bodies = True
        self.on_request: Callable[[Record], None] = self.serve
        self.on_message: Callable[[int, Any], None] = self.answer_count
        self._next_socket = 100
        self._news = asyncio.Event()

    async def listen(self, network: Transport, **limits: int) -> Any:
        hello = Hello(
            role="shard",
            index=self.index,
            instance=f"{self.index:016x}",
            window_bytes=limits.get("window_bytes", 8 << 20),
            max_batch_bytes=64 << 20,
            generations=dict.fromkeys(range(PARTITION_COUNT), 1),
        )
        return await network.listen(
            f"shard-{self.index}", lambda: Link(hello, self, prompt_acks=True)
        )

    # --- the script ----------------------------------------------------------------------------

    def serve(self, record: Record) -> None:
        _, request_id, _, head = record
        url, upgrade = head[1], dict(head[2]).get("Upgrade")
        if not url.endswith("/websocket"):
            self.respond(request_id, 400, [["Content-Type", "text/plain"]], reason="Bad Request")
        elif upgrade != "websocket":
            self.respond(
                request_id,
                426,
                [["Content-Type", "text/plain;charset=UTF-8"]],
                b"Durable Object expected Upgrade: websocket",
            )
        else:
            self.accept(request_id)

    def respond(
        self,
        request_id: int,
        status: int,
        headers: list[list[str]],
        body: bytes | None = None,
        *,
        reason: str = "",
        mode: int | None = None,
        socket: list[int] | None = None,
    ) -> None:
        if mode is None:
            mode = BODY_NONE if body is None else BODY_WHOLE
        self.send([RESPONSE, request_id, status, reason, headers, mode, body, socket])

    def accept(self, request_id: int, headers: list[list[str]] | None = None) -> int:
        self._next_socket += 1
        self.count += 1
        self.respond(request_id, 101, headers or [], socket=[self.index, self._next_socket, 1])
        return self._next_socket

    def answer_count(self, connection: int, payload: Any) -> None:
        assert self.link is not None
        self.link.unicast(
            connection, f"[Durable Object] currentlyConnectedWebSockets: {self.count}"
        )

    def send(self, record: Record, size: int = 0) -> None:
        assert self.link is not None
        self.link.send(record, size)

    def urgent(self, record: Record) -> None:
        assert self.link is not None
        self.link.urgent(record)

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        assert peer.role == "gateway"
        self.link = link
        link.send([SERVING, list(range(PARTITION_COUNT))])
        self._news.set()

    def link_records(self, link: Link, records: list[Record]) -> None:
        self.link = link  # answers go to whoever asks
        for record in records:
            if record[0] == BLOB_FRAME:
                record[2] = bytes(record[2])
            self.records.append(record)
            self._handle(record)
        self._news.set()

    def _handle(self, record: Record) -> None:
        kind = record[0]
        if kind == REQUEST:
            self.on_request(record)
        elif kind == ATTACH:
            self.sockets[record[2]] = record[1]
        elif kind == FRAMES:
            for target, payload in zip(record[1], record[2], strict=True):
                self.on_message(target, payload)
        elif kind == BLOB_FRAME:
            payload = record[2].decode() if record[3] else record[2]
            self.on_message(record[1], payload)
        elif kind == CLOSED:
            self.count -= 1
            if self.answers_close:
                code = record[2] if record[2] != 1005 else None
                reason = CLOSE_REASON if code not in (None, 1006) else ""
                self.send([CLOSE, record[1], code, reason])
        elif kind == BODY and self.credits_bodies:
            self.link.urgent([BODY_CREDIT, record[1], len(record[2])])  # type: ignore[union-attr]

    def link_writable(self, link: Link) -> None:
        pass

    def link_down(self, link: Link, error: LinkError) -> None:
        self.link = None

    # --- what came -----------------------------------------------------------------------------

    def of_kind(self, kind: int) -> list[Record]:
        return [record for record in self.records if record[0] == kind]

    def messages(self) -> list[Any]:
        """All messages that came, in order."""
        messages: list[Any] = []
        for record in self.records:
            if record[0] == FRAMES:
                messages += record[2]
            elif record[0] == BLOB_FRAME:
                messages.append(record[2].decode() if record[3] else record[2])
        return messages

    def body(self, request_id: int) -> bytes:
        return b"".join(r[2] for r in self.of_kind(BODY) if r[1] == request_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for records to come that make *condition* true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def next_of(self, kind: int, count: int = 1) -> list[Record]:
        await self.until(lambda: len(self.of_kind(kind)) >= count)
        return self.of_kind(kind)

    def ended(self, request_id: int) -> bool:
        return any(record[1] == request_id for record in self.of_kind(BODY_END))


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0


class World:
    """One gateway with its shards and clients."""

    def __init__(self, settings: Settings, shards: int = 1) -> None:
        self.network = MemoryNetwork()
        self.clock = ManualClock()
        self.shards = [FakeShard(index) for index in range(shards)]
        self.gateway = Gateway(
            settings,
            0,
            Metrics("gateway", 0),
            transport=self.network,
            membership=FixedMembership(shards),  # not what RUN_DIR says: a cluster may run here
            clock=self.clock,
            rng=random.Random(1),
        )
        self.clients: list[RawClient] = []

    @property
    def shard(self) -> FakeShard:
        return self.shards[0]

    def connect(self) -> RawClient:
        client = RawClient()
        connect(
            self.gateway.client(),
            client,
            peername=("192.0.2.1", 4711),
            sockname=("127.0.0.1", 8787),
        )
        self.clients.append(client)
        return client

    async def upgraded(self) -> RawClient:
        client = self.connect()
        await client.upgrade()
        await settle()
        return client

    async def pass_time(self, seconds: float) -> None:
        """Let the gateway's clock go on, tick by tick."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s = min(self.clock.now_s + 0.25, end_s)
            self.gateway.context.deadlines.advance(self.clock.now_s)
            await settle()

    def assert_nothing_left(self) -> None:
        context = self.gateway.context
        assert context.open_connections == 0
        assert not context.http_connections
        assert len(context.deadlines) == 0
        for relay in self.gateway.router.relays.values():
            assert not relay.connections
            assert not relay.requests
            assert not relay.all_connections()


async def settle(turns: int = 20) -> None:
    """Let the event loop do what it has to do."""
    for _ in range(turns):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def world(shards: int = 1, **values: Any) -> AsyncIterator[World]:
    """A running world; checks at the end that nothing is left of it."""
    settings = Settings.load({}, {"shards": shards, **values})
    one = World(settings, shards)
    for shard in one.shards:
        await shard.listen(one.network)
    one.gateway.router.start()
    for shard in one.shards:
        await shard.until(lambda shard=shard: shard.link is not None)  # type: ignore[misc]
    await settle()
    yield one
    for client in one.clients:
        client.transport.abort()
    await settle()
    one.assert_nothing_left()
    await one.gateway.router.close()
    await settle()


def cut_links(one: World, index: int = 0) -> None:
    """Drop the link to a shard, as when its process dies."""
    for ends in one.network.lines[f"shard-{index}"]:
        ends[0].cut(LinkDown("killed"))


def new_key() -> str:
    return base64.b64encode(random.randbytes(16)).decode()
