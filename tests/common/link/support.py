"""What the tests of the link share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from common.errors import LinkError
from common.link.driver import Link
from common.link.memory import MemoryTransport, connect
from common.link.records import BLOB_FRAME, FRAMES, Record
from common.link.session import Hello, LinkSession
from common.link.wire import HEAD, HEAD_BYTES, Buffer

WINDOW_BYTES = 1 << 20
MAX_BATCH_BYTES = 16 << 20


def hello(role: str = "gateway", **changes: Any) -> Hello:
    fields: dict[str, Any] = {
        "role": role,
        "index": 0,
        "instance": "0123456789abcdef",
        "window_bytes": WINDOW_BYTES,
        "max_batch_bytes": MAX_BATCH_BYTES,
        "generations": {},
    }
    return Hello(**{**fields, **changes})


def split(data: Buffer) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield body and blobs of each batch in *data*, which must end with a whole one."""
    view, start = memoryview(data), 0
    while start < len(view):
        body_bytes, blob_bytes = HEAD.unpack_from(view, start)
        body = start + HEAD_BYTES
        blobs = body + body_bytes
        start = blobs + blob_bytes
        assert start <= len(view), "the last batch is not whole"
        yield view[body:blobs], view[blobs:start]


def messages(records: Iterable[Record]) -> Iterator[tuple[Any, ...]]:
    """Yield what *records* say, one by one: each receiver of each frame, each other record."""
    for record in records:
        if record[0] == FRAMES:
            for target, payload in zip(record[1], record[2], strict=True):
                for one in target if isinstance(target, list) else [target]:
                    yield one, payload
        elif record[0] == BLOB_FRAME:
            payload = str(record[2], "utf-8") if record[3] else bytes(record[2])
            for one in record[1] if isinstance(record[1], list) else [record[1]]:
                yield one, payload
        else:
            yield tuple(record)


def take(session: LinkSession) -> bytes:
    return b"".join(session.take())


def receive(session: LinkSession, data: Buffer) -> list[tuple[Any, ...]]:
    """What *session* makes of whole batches."""
    return [message for batch in split(data) for message in messages(session.receive(*batch))]


def open_pair(**options: Any) -> tuple[LinkSession, LinkSession]:
    """A gateway's session and a shard's, hands shaken and nothing under way."""
    gateway = LinkSession(hello("gateway"), lambda: None, prompt_acks=False, **options)
    shard = LinkSession(hello("shard"), lambda: None, prompt_acks=True, **options)
    for session in gateway, shard:
        session.greet()
    first, second = take(gateway), take(shard)
    assert receive(shard, first) == receive(gateway, second) == []
    exchange(gateway, shard)
    return gateway, shard


def exchange(one: LinkSession, other: LinkSession) -> list[tuple[Any, ...]]:
    """Pass all that wants to go, both ways; what *other* got."""
    got = []
    for _ in range(3):
        got += receive(other, take(one))
        receive(one, take(other))
    return got


class Recorder:
    """A link handler that writes down what happens, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[tuple[Any, ...]] = []
        self.peer: Hello | None = None
        self.error: LinkError | None = None

    def link_up(self, link: Link, peer: Hello) -> None:
        self.events.append("up")
        self.peer = peer

    def link_records(self, link: Link, records: list[Record]) -> None:
        assert self.events.count("up") == 1
        assert "down" not in self.events
        self.messages += messages(records)  # copies the views: they are valid only now

    def link_writable(self, link: Link) -> None:
        self.events.append("writable")

    def link_down(self, link: Link, error: LinkError) -> None:
        self.events.append("down")
        self.error = error


class Line:
    """Two links joined by memory, each with its recorder."""

    def __init__(
        self,
        gateway_handler: Recorder | None = None,
        shard_handler: Recorder | None = None,
        *,
        gateway: Hello | None = None,
        shard: Hello | None = None,
        **options: Any,
    ) -> None:
        self.gateway_events = gateway_handler or Recorder()
        self.shard_events = shard_handler or Recorder()
        self.closed: list[LinkError] = []
        self.gateway = Link(
            gateway or hello("gateway"),
            self.gateway_events,
            prompt_acks=False,
            closed=self.closed.append,
            **options,
        )
        self.shard = Link(shard or hello("shard"), self.shard_events, prompt_acks=True)
        self.gateway_end: MemoryTransport
        self.shard_end: MemoryTransport
        self.gateway_end, self.shard_end = connect(self.gateway, self.shard)
