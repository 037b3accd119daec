"""One shard in the test's event loop, with a gateway that the test plays itself.

Everything is real but the gateway and the bytes' way: an app of classes written in the test, a
shard, a link over memory. Tests run under :func:`~local.virtual_time.on_virtual_time`, which also
fails a test that leaves tasks or timers behind.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import LinkDown, LinkError
from common.link.driver import Link
from common.link.memory import MemoryNetwork
from common.link.records import (
    ATTACH,
    BLOB_FRAME,
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    BODY_NONE,
    BODY_STREAM,
    BODY_WHOLE,
    CANCEL,
    CLOSE,
    CLOSED,
    FAILED,
    FRAMES,
    PAUSE,
    REQUEST,
    RESPONSE,
    RESUME,
    SETTLED,
    UNSETTLED,
    Record,
)
from common.link.session import Hello
from common.membership import FixedMembership
from common.ownership import MemoryOwnership, OwnershipTable
from common.settings import Settings
from local.cluster import LoopClock
from shard.activation import Activation
from shard.host import Shard
from shard.slot import Slot
from tests.shard.pair import make_app
from workers import DurableObjectStub

WINDOW_BYTES = 8 << 20
ABOUT_REQUESTS = frozenset({RESPONSE, FAILED, BODY, BODY_END, BODY_ABORT, BODY_CREDIT})


async def turns(count: int = 20) -> None:
    """Let the event loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], within: int = 100_000) -> None:
    """Let the event loop turn until something is so."""
    for _ in range(within):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


class Answer:
    """What the gateway was answered to one request."""

    def __init__(self, request_id: int) -> None:
        self.id = request_id
        self.heads: list[Record] = []
        self.failures: list[dict[str, Any]] = []
        self.pieces: list[bytes] = []
        self.credited = 0
        self.ended = False
        self.aborted: str | None = None

    @property
    def status(self) -> int:
        return int(self.heads[0][2])

    @property
    def body(self) -> bytes:
        """What has come of the body, whole or in pieces."""
        return b"".join(self.pieces) if self.heads[0][5] == BODY_STREAM else self.heads[0][6] or b""

    @property
    def socket(self) -> list[int] | None:
        address: list[int] | None = self.heads[0][7]
        return address

    @property
    def is_there(self) -> bool:
        return bool(self.heads or self.failures)


class Client:
    """One WebSocket client, as its gateway sees it."""

    def __init__(self, gateway: Gateway, connection: int) -> None:
        self.gateway = gateway
        self.connection = connection
        self.received: list[str | bytes] = []
        self.closes: list[tuple[int | None, str]] = []
        self.paused = False

    def send(self, message: str | bytes) -> None:
        self.gateway.link.unicast(self.connection, message)
        self.gateway.sent_seq[self.connection] = self.gateway.link.session.filling_seq

    def close(self, code: int = 1005, reason: str = "") -> None:
        """The client sends Close."""
        self.gateway.link.send([CLOSED, self.connection, code, reason, True])

    def vanish(self, text: str = "gone") -> None:
        """The client is lost without a Close."""
        self.gateway.link.send([CLOSED, self.connection, 1006, text, False])


class Gateway:
    """The gateway's end of a link: keeps what comes, sends what the test says."""

    def __init__(self) -> None:
        self.link: Link
        self.is_up = False
        self.answers: dict[int, Answer] = {}
        self.clients: dict[int, Client] = {}
        self.open: Counter[int] = Counter()
        self.sent_seq: dict[int, int] = {}
        self.credit: dict[int, int] = {}
        self.others: list[Record] = []
        self._next_id = 1

    def link_up(self, link: Link, peer: Hello) -> None:
        self.link = link
        self.is_up = True

    def link_writable(self, link: Link) -> None: ...

    def link_down(self, link: Link, error: LinkError) -> None:
        self.is_up = False

    def link_records(self, link: Link, records: list[Record]) -> None:
        for record in records:
            kind = record[0]
            if kind == FRAMES:
                for target, payload in zip(record[1], record[2], strict=True):
                    self._frame(target, payload)
            elif kind == BLOB_FRAME:
                raw = bytes(record[2])
                self._frame(record[1], raw.decode() if record[3] else raw)
            elif kind == CLOSE:
                client = self.clients.get(record[1])
                if client is not None:
                    client.closes.append((record[2], record[3]))
            elif kind in (PAUSE, RESUME):
                for connection in record[1]:
                    self.clients[connection].paused = kind == PAUSE
            elif kind == UNSETTLED:
                self.open.update(record[1])
            elif kind == SETTLED:
                self.open.subtract(record[1])
                assert self.open.total() >= 0
            elif kind in ABOUT_REQUESTS:
                self._answer(record)
            else:
                self.others.append(record)

    def _frame(self, target: int | list[int], payload: str | bytes) -> None:
        for connection in [target] if isinstance(target, int) else target:
            client = self.clients.get(connection)
            if client is not None:
                client.received.append(payload)

    def _answer(self, record: Record) -> None:
        kind = record[0]
        answer = self.answers[record[1]]
        if kind == RESPONSE:
            answer.heads.append(record)
        elif kind == FAILED:
            answer.failures.append(record[2])
        elif kind == BODY:
            answer.pieces.append(record[2])
        elif kind == BODY_END:
            answer.ended = True
        elif kind == BODY_ABORT:
            answer.aborted = record[2]
        else:
            answer.credited += record[2]

    # --- what the test does --------------------------------------------------------------------

    def ask(
        self,
        url: str = "http://x/",
        method: str = "GET",
        *,
        target: list[Any] | None = None,
        headers: list[list[str]] | None = None,
        body: bytes | None = None,
        stream: bool = False,
    ) -> Answer:
        """Send a request without waiting."""
        answer = Answer(self._next_id)
        self._next_id += 1
        self.answers[answer.id] = answer
        fields = headers or []
        upgrade = any(name.lower() == "upgrade" for name, _ in fields)
        mode = BODY_STREAM if stream else BODY_NONE if body is None else BODY_WHOLE
        head = [method, url, fields, upgrade, mode, body, None]
        self.link.send([REQUEST, answer.id, target, head], len(body or b""))
        return answer

    async def request(self, url: str = "http://x/", method: str = "GET", **options: Any) -> Answer:
        """Send a request and wait for the head of its answer."""
        answer = self.ask(url, method, **options)
        await until(lambda: answer.is_there)
        return answer

    async def upgrade(self, url: str = "http://x/", **options: Any) -> Client:
        """Open a WebSocket."""
        options.setdefault("headers", [["Upgrade", "websocket"]])
        answer = await self.request(url, **options)
        assert answer.heads, answer.failures
        assert answer.socket is not None
        return self.attach(answer.socket[1])

    def attach(self, socket_id: int) -> Client:
        """Join a client to an exported socket."""
        client = Client(self, 1000 + len(self.clients))
        self.clients[client.connection] = client
        self.link.send([ATTACH, socket_id, client.connection, 0])
        return client

    def send_body(self, answer: Answer, piece: bytes) -> None:
        self.link.send([BODY, answer.id, piece], len(piece))

    def end_body(self, answer: Answer) -> None:
        self.link.send([BODY_END, answer.id])

    def abort_body(self, answer: Answer, text: str) -> None:
        self.link.send([BODY_ABORT, answer.id, text])

    def credit_body(self, answer: Answer, count: int) -> None:
        self.link.urgent([BODY_CREDIT, answer.id, count])

    def cancel(self, answer: Answer) -> None:
        self.link.send([CANCEL, answer.id])

    @property
    def unsettled(self) -> set[int]:
        """The connections with frames that are acknowledged and not handled.

        Counted, because ``UNSETTLED`` may overtake an earlier ``SETTLED``.
        """
        return {connection for connection, count in self.open.items() if count}

    def may_have_lost(self) -> set[int]:
        """The connections this gateway would close if the shard died now (G7)."""
        acked = self.link.session.acked_seq
        return self.unsettled | {each for each, seq in self.sent_seq.items() if seq > acked}


class Solo:
    """One shard and its gateways."""

    def __init__(self, shard: Shard, network: MemoryNetwork, clock: LoopClock) -> None:
        self.shard = shard
        self.network = network
        self.clock = clock
        self.gateway = Gateway()

    def stub(self, binding: str, name: str = "a") -> DurableObjectStub:
        stub: DurableObjectStub = getattr(self.shard.env, binding).getByName(name)
        return stub

    def target(self, binding: str, name: str = "a") -> list[Any]:
        """The address of an object in a request."""
        namespace = self.shard.namespaces[binding]
        return [namespace.binding.unique_key, namespace.ids.from_name(name).raw, name, 1, 0]

    def slot(self, binding: str, name: str = "a") -> Slot:
        """The object's slot, made if there is none."""
        namespace = self.shard.namespaces[binding]
        return namespace.slot(namespace.ids.from_name(name))

    def activation(self, binding: str, name: str = "a") -> Activation:
        activation = self.slot(binding, name).activation
        assert activation is not None
        return activation

    def instance(self, binding: str, name: str = "a") -> Any:
        return self.activation(binding, name).instance

    def lives(self, binding: str, name: str = "a") -> bool:
        """Whether the object is in memory."""
        namespace = self.shard.namespaces[binding]
        slot = namespace.slots.get(namespace.ids.from_name(name).raw)
        return slot is not None and slot.activation is not None

    async def connect(self, index: int = 0) -> Gateway:
        """Link up a gateway."""
        gateway = Gateway()
        hello = Hello("gateway", index, f"{index:016x}", WINDOW_BYTES, 64 << 20, {})
        await self.network.dial("shard-0", lambda: Link(hello, gateway, prompt_acks=False))
        await until(lambda: gateway.is_up)
        return gateway

    async def cut(self) -> None:
        """Drop every link, as when the gateway dies."""
        for one, _ in self.network.lines.pop("shard-0", []):
            one.cut()
        await turns()

    def is_empty(self) -> bool:
        """Nothing is left in any table of sockets, requests or objects under way."""
        requests = [each for table in self.shard._requests.values() for each in table._open]
        return len(self.shard.sockets) == 0 and not requests


@asynccontextmanager
async def solo(
    *classes: type[Any], entry: type[Any] | None = None, **settings: Any
) -> AsyncIterator[Solo]:
    """Run one shard with an app of these classes; *settings* by name."""
    loop = asyncio.get_running_loop()
    network = MemoryNetwork()
    data = TemporaryDirectory(prefix="limpet-")
    settings = {"data_dir": Path(data.name), **settings}
    clock = LoopClock(loop)
    shard = Shard(
        0,
        make_app(*classes, entry=entry),
        replace(Settings.load({}), **settings),
        network,
        FixedMembership(1),
        MemoryOwnership(OwnershipTable(), "shard 0"),
        clock,
        random.Random(1),
    )
    await shard.start()
    try:
        one = Solo(shard, network, clock)
        one.gateway = await one.connect()
        yield one
    finally:
        for one_end, other_end in network.lines.pop("shard-0", []):
            one_end.cut(LinkDown("the test is over"))
            other_end.cut()
        await shard.stop()
        await turns()
        loop.set_task_factory(None)
        data.cleanup()
