"""Between one shard's link and the clients: records into frames and answers, and the other way.

A :class:`Relay` belongs to one shard and outlives its links: connections and requests are entered
here by number, and what a link brings is handed to them. When a link goes down nothing that was
under way on it is left hanging: requests are answered 503, connections are held or closed (1012),
see :mod:`gateway.holding`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import structlog

from common.errors import LinkError, ProtocolError
from common.link.driver import Link
from common.link.records import (
    ATTACH,
    ATTACHMENT,
    AUTO_RESPONSE,
    BLOB_FRAME,
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    CANCEL,
    CLOSE,
    CLOSED,
    DRAIN,
    FAILED,
    FRAMES,
    GIVEN,
    HALT,
    HOLD,
    PAUSE,
    REQUEST,
    RESPONSE,
    RESUME,
    SERVING,
    SETTLED,
    TAKEN,
    UNSETTLED,
    Record,
)
from common.link.session import Hello, LinkSession
from gateway.connection import PAUSED_BY_LINK, PAUSED_BY_SHARD, Connection
from gateway.context import Context
from gateway.frames import encode_compressed, encode_message, encode_raw_text
from gateway.holder import Holder
from gateway.refusal import Refusal, unavailable

log = structlog.get_logger(__name__)


class Requester(Protocol):
    """Whoever waits for the answer to a request. None of these calls fails."""

    def answered(
        self,
        status: int,
        reason: str,
        headers: list[list[str]],
        body_mode: int,
        body: bytes | None,
        socket: list[int] | None,
    ) -> None:
        """The head of the answer has come, see ``RESPONSE`` in :mod:`common.link.records`."""

    def refused(self, refusal: Refusal) -> None:
        """There will be no answer, or no more of it; nothing else follows."""

    def body_arrived(self, data: bytes) -> None:
        """A piece of the answer's body."""

    def body_ended(self, *, complete: bool) -> None:
        """The answer's body ends; nothing else follows."""

    def body_credit(self, count: int) -> None:
        """*count* bytes of the request's body have been consumed."""


class Moved(Protocol):
    """Is told which partitions come to a shard, and go."""

    def took(self, shard: int, partitions: Collection[int], *, always: bool = False) -> None:
        """The shard has taken these; with *always*, it is to be answered even about none."""

    def gave(self, shard: int, partitions: Collection[int]) -> None:
        """The shard has let these go."""

    def lost(self, shard: int) -> None:
        """The shard is gone, and whatever it had."""


class Relay:
    """One shard as the gateway sees it. It is the :class:`LinkHandler` of that shard's links.

    Args:
        shard: which one.
        context: of this gateway.
        changed: called whenever the shard goes up or down.
        abandon: called with the address of a socket whose client is gone.
        moved: told of partitions that the shard has taken, and of those that it has let go.
    """

    def __init__(
        self,
        shard: int,
        context: Context,
        changed: Callable[[], None],
        abandon: Callable[[list[int]], None],
        moved: Moved,
    ) -> None:
        self.shard = shard
        self.context = context
        self.link: Link | None = None
        self.session: LinkSession | None = None
        self.connections: dict[int, Connection] = {}
        self.requests: dict[int, Requester] = {}
        self.unsettled: dict[int, int] = {}
        """Connections with frames that were acknowledged but are still being handled (G7), each
        with how many ``UNSETTLED`` are open: one may overtake the ``SETTLED`` before it."""
        self.holder = Holder(self, context, changed)
        self._holding = self.holder.holding
        self._instance = ""
        self._orphans = Orphans(context)
        self.links = 0
        """How many links have been up."""
        self._changed = changed
        self._abandon = abandon
        self._moved = moved
        self._congesting: set[Connection] = set()
        self._handlers: Final[dict[int, Callable[[Record], None]]] = {
            CLOSE: self._close,
            PAUSE: self._pause,
            RESUME: self._resume,
            UNSETTLED: self._unsettled,
            SETTLED: self._settled,
            HOLD: self.holder.hold,
            ATTACHMENT: self.holder.attachment,
            AUTO_RESPONSE: self.holder.auto_response,
            SERVING: lambda record: self.holder.serving(record[1]),
            TAKEN: lambda record: self._moved.took(self.shard, record[1]),
            HALT: lambda record: self.holder.halt(self.link, record[1]),  # type: ignore[arg-type]
            GIVEN: self._given,
            DRAIN: lambda record: self.holder.drain(self.link),  # type: ignore[arg-type]
            RESPONSE: self._response,
            FAILED: self._failed,
            BODY: self._body,
            BODY_END: self._body_end,
            BODY_ABORT: self._body_abort,
            BODY_CREDIT: self._body_credit,
        }

    @property
    def is_up(self) -> bool:
        """Requests sent now have a chance to be answered."""
        return self.holder.is_serving

    def all_connections(self) -> list[Connection]:
        """Those attached to this shard, and those that were until its link went down."""
        return [*self.connections.values(), *self._orphans.connections.values()]

    # --- to the shard --------------------------------------------------------------------------

    def request(self, requester: Requester, head: list[Any]) -> int:
        """Send a request to the app's entry point; its number, for what follows."""
        assert self.link is not None
        request_id = self.context.new_id()
        self.requests[request_id] = requester
        body = head[5]
        self.link.send([REQUEST, request_id, None, head], len(body) if body else 0)
        return request_id

    def send_body(self, request_id: int, pieces: list[bytes]) -> None:
        """More of a request's streamed body."""
        if self.link is not None:
            for piece in pieces:
                self.link.send([BODY, request_id, piece], len(piece))

    def end_body(self, request_id: int) -> None:
        """A request's streamed body is complete."""
        if self.link is not None:
            self.link.send([BODY_END, request_id])

    def abort_body(self, request_id: int, text: str) -> None:
        """A request's streamed body will never be complete."""
        if self.link is not None:
            self.link.send([BODY_ABORT, request_id, text])

    def credit_body(self, request_id: int, count: int) -> None:
        """*count* bytes of an answer's body have left our memory."""
        if self.link is not None:
            self.link.urgent([BODY_CREDIT, request_id, count])

    def cancel(self, request_id: int) -> None:
        """Nobody waits for that answer any more, or for the rest of it."""
        if self.requests.pop(request_id, None) is not None and self.link is not None:
            self.link.send([CANCEL, request_id])

    def forget(self, request_id: int) -> None:
        """That request is over."""
        self.requests.pop(request_id, None)

    def attach(self, connection: Connection, socket_id: int, partition: int) -> None:
        """Make a client's connection the other end of a socket on this shard."""
        assert self.link is not None
        self.connections[connection.id] = connection
        connection.partition = partition
        self.link.send([ATTACH, socket_id, connection.id, partition])
        # The request may have been the last one before the shard or the partition leaves.
        if not self.is_up or partition in self._holding.halting:
            connection.move(self.holder)

    def part(self, number: int) -> Connection | None:
        """Another relay is to have that connection."""
        connection = self.connections.pop(number, None)
        self.unsettled.pop(number, None)
        if connection is not None and connection in self._congesting:
            self._congesting.discard(connection)
            connection.resume(PAUSED_BY_LINK)
        if connection is not None:
            connection.resume(PAUSED_BY_SHARD)
        return connection

    def orphan(self, connection: Connection) -> None:
        """Part from a connection: it is being closed, and nobody is told."""
        self.connections.pop(connection.id, None)
        self.unsettled.pop(connection.id, None)
        self._orphans.take(connection)

    def abandon(
        self, socket_id: int, partition: int, connection_id: int, code: int, reason: str
    ) -> None:
        """Tell the object of a socket that its client was gone before it could be attached."""
        if self.link is not None:
            self.link.send([ATTACH, socket_id, connection_id, partition])
            self.link.send([CLOSED, connection_id, code, reason, False])

    # --- Home, for connections -----------------------------------------------------------------

    def producer_congests(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        if connection not in self._congesting:
            self._congesting.add(connection)
            connection.pause(PAUSED_BY_LINK)

    def closed(
        self,
        connection: Connection,
        code: int,
        reason: str,
        was_clean: bool,
        *,
        withheld: bool = False,
    ) -> None:
        """See :class:`gateway.connection.Home` and :meth:`gateway.holding.Holding.closed`."""
        end = (code, reason, was_clean)
        tell = self._holding.closed(connection.id, end, withheld=withheld)
        if tell and self.link is not None:
            self.link.send([CLOSED, connection.id, code, reason, was_clean])
            hold = self._holding.holds.get(connection.id)
            if hold is not None:
                hold.end_seq = self.link.session.filling_seq

    def keep(self, connection: Connection, kind: int, value: Any) -> None:
        """See :class:`gateway.connection.Home`. While there is a session nothing is kept."""

    def auto_answered(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        self.holder.auto_answered(connection)

    def release(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        self.connections.pop(connection.id, None)
        if connection.id not in self._holding.holds:
            self.unsettled.pop(connection.id, None)
        self._congesting.discard(connection)

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        """The shard can be reached."""
        if peer.role != "shard" or peer.index != self.shard:
            raise ProtocolError(f"dialled shard {self.shard}, reached {peer.role} {peer.index}")
        self.link = link
        self.session = link.session
        self.links += 1
        log.info("shard.linked", shard=self.shard, instance=peer.instance)
        anew, self._instance = self._instance != peer.instance, peer.instance
        self.holder.linked(peer.generations, anew=anew)
        self._moved.took(self.shard, peer.generations, always=True)

    def link_records(self, link: Link, records: list[Record]) -> None:
        """Hand out what has come; what is for one client goes out in one write."""
        touched: list[Connection] = []
        handlers = self._handlers
        try:
            for record in records:
                kind = record[0]
                if kind == FRAMES:
                    self._frames(record[1], record[2], touched)
                elif kind == BLOB_FRAME:
                    self._blob(record[1], record[2], record[3], touched)
                else:
                    handler = handlers.get(kind)
                    if handler is None:
                        raise ProtocolError(f"a shard sent a record of kind {kind}")
                    handler(record)
            if self._holding.closing:
                self._holding.settle(link.session.acked_seq, self.unsettled)
        finally:
            for connection in touched:
                out = connection.out
                if out is not None:
                    connection.out = None
                    data = b"".join(out) if type(out) is list else out
                    if connection.guarded:
                        connection.flush_guarded(data)
                    else:
                        connection.transport.write(data)

    def link_writable(self, link: Link) -> None:
        """The congestion is over."""
        congesting, self._congesting = self._congesting, set()
        for connection in congesting:
            connection.resume(PAUSED_BY_LINK)
        self.holder.pump()

    def link_down(self, link: Link, error: LinkError) -> None:
        """The shard cannot be reached: end what was under way there."""
        log.warning("shard.lost", shard=self.shard, error=str(error))
        self.link = self.session = None
        self.link_writable(link)
        requests, self.requests = self.requests, {}
        for requester in requests.values():
            requester.refused(unavailable("ERROR: The shard that worked on this request is gone."))
        self.holder.lost(link.session, self.unsettled)
        self.unsettled.clear()
        self._moved.lost(self.shard)
        self._changed()

    def _given(self, record: Record) -> None:
        _, partitions, unhandled = record
        self.holder.given(frozenset(partitions), frozenset(unhandled))
        self._moved.gave(self.shard, partitions)

    # --- from the shard: frames ----------------------------------------------------------------

    def _frames(self, targets: list[Any], payloads: list[Any], touched: list[Connection]) -> None:
        connections = self.connections
        for target, payload in zip(targets, payloads, strict=True):
            frame = encode_message(payload)
            if type(target) is int:
                connection = connections.get(target)
                if connection is None:
                    continue
                if connection.deflate is not None:
                    self._compressed([target], payload, frame, touched)
                    continue
                out = connection.out
                if out is None:
                    connection.out = frame
                    touched.append(connection)
                elif type(out) is list:
                    out.append(frame)
                else:
                    connection.out = [out, frame]
            elif self.context.settings.compression:
                self._compressed(target, payload, frame, touched)
            else:
                self._many(target, frame, touched)

    def _many(self, targets: list[int], frame: bytes, touched: list[Connection]) -> None:
        connections = self.connections
        for target in targets:
            connection = connections.get(target)
            if connection is not None:
                out = connection.out
                if out is None:
                    connection.out = frame
                    touched.append(connection)
                elif type(out) is list:
                    out.append(frame)
                else:
                    connection.out = [out, frame]

    def _blob(
        self, target: Any, payload: memoryview, is_text: bool, touched: list[Connection]
    ) -> None:
        frame = encode_raw_text(payload) if is_text else encode_message(payload)
        targets = [target] if type(target) is int else target
        if self.context.settings.compression:
            raw = payload.tobytes()
            self._compressed(targets, raw, frame, touched, is_text=is_text)
        else:
            self._many(targets, frame, touched)

    def _compressed(
        self,
        targets: list[int],
        payload: Any,
        plain: bytes,
        touched: list[Connection],
        is_text: bool | None = None,
    ) -> None:
        """As :meth:`_many`, but to each as agreed with it; compressed once for each window."""
        if is_text is None:
            is_text = type(payload) is str
        raw = payload.encode("utf-8", "replace") if type(payload) is str else payload
        frames: dict[int, bytes] = {}
        for target in targets:
            connection = self.connections.get(target)
            if connection is None:
                continue
            deflate = connection.deflate
            if deflate is None or len(raw) < self.context.settings.compression_min_bytes:
                self._many([target], plain, touched)
                continue
            bits = deflate.server_bits
            if bits not in frames:
                frames[bits] = encode_compressed(self.context.deflater(bits)(raw), is_text)
            self._many([target], frames[bits], touched)

    def _close(self, record: Record) -> None:
        connection = self.connections.get(record[1])
        if connection is not None:
            hold = self._holding.holds.get(record[1])
            if hold is not None:
                hold.close_sent = True
            connection.close_by_object(record[2], str(record[3]))

    def _pause(self, record: Record) -> None:
        for number in record[1]:
            connection = self.connections.get(number)
            if connection is not None:
                connection.pause(PAUSED_BY_SHARD)

    def _resume(self, record: Record) -> None:
        for number in record[1]:
            connection = self.connections.get(number)
            if connection is not None:
                connection.resume(PAUSED_BY_SHARD)

    def _unsettled(self, record: Record) -> None:
        for number in record[1]:
            if number in self.connections or number in self._holding.holds:
                self.unsettled[number] = self.unsettled.get(number, 0) + 1

    def _settled(self, record: Record) -> None:
        for number in record[1]:
            count = self.unsettled.get(number, 0) - 1
            if count > 0:
                self.unsettled[number] = count
            else:
                self.unsettled.pop(number, None)

    # --- from the shard: answers ---------------------------------------------------------------

    def _response(self, record: Record) -> None:
        requester = self.requests.get(record[1])
        if requester is not None:
            requester.answered(*record[2:])
        elif record[7] is not None:  # the client went while the answer was under way
            self._abandon(record[7])

    def _failed(self, record: Record) -> None:
        requester = self.requests.pop(record[1], None)
        if requester is not None:
            requester.refused(_refusal_of(record[2]))

    def _body(self, record: Record) -> None:
        requester = self.requests.get(record[1])
        if requester is not None:
            requester.body_arrived(record[2])

    def _body_end(self, record: Record) -> None:
        requester = self.requests.pop(record[1], None)
        if requester is not None:
            requester.body_ended(complete=True)

    def _body_abort(self, record: Record) -> None:
        requester = self.requests.pop(record[1], None)
        if requester is not None:
            log.warning("response.aborted", error=str(record[2]))
            requester.body_ended(complete=False)

    def _body_credit(self, record: Record) -> None:
        requester = self.requests.get(record[1])
        if requester is not None:
            requester.body_credit(record[2])


class Orphans:
    """Where connections are at home whose object cannot be reached: nothing is forwarded."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.session: LinkSession | None = None
        self.connections: dict[int, Connection] = {}

    def take(self, connection: Connection) -> None:
        """Take a connection in."""
        self.connections[connection.id] = connection
        connection.move(self)

    def producer_congests(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`. Nothing is produced here."""

    def keep(self, connection: Connection, kind: int, value: Any) -> None:
        """See :class:`gateway.connection.Home`. Nobody will ask for it."""

    def auto_answered(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`. There is nobody to tell."""

    def closed(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        """See :class:`gateway.connection.Home`. There is nobody to tell."""

    def release(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        self.connections.pop(connection.id, None)


_TEXTS: Final = {
    502: "ERROR: The shard could not be understood.",
    503: "ERROR: The Durable Object cannot be reached just now.",
    504: "ERROR: The app did not answer in time.",
}


def _refusal_of(fields: Any) -> Refusal:
    """What a client is told of an error that nobody in the app handled: nothing of its insides."""
    status = fields.get("status", 500) if isinstance(fields, dict) else 500
    if type(status) is not int or not 400 <= status <= 599:
        status = 500
    if status == 503:
        return unavailable(_TEXTS[503])
    return Refusal(status, _TEXTS.get(status, "Internal Server Error"), close=False)
