"""The link protocol as a machine without I/O: what may be sent when, and what has arrived.

Theory of operation
-------------------
Each process holds one :class:`LinkSession` for each link. Records are queued with :meth:`send`,
:meth:`unicast` and :meth:`multicast`; the driver takes them out as batches with :meth:`take`, once
at the end of a turn of the event loop, and hands what arrives to :meth:`receive`.

* **Handshake.** Both sides send ``HELLO`` first. Another protocol version, or any record before
  the peer's ``HELLO``, is a protocol error.
* **Sequence.** Batches are numbered from 1, without gaps. A batch of number 0 carries only an
  acknowledgement. Each batch acknowledges all the peer's batches that have been processed.
* **Credit.** At most ``window_bytes`` (the receiver's choice, told in ``HELLO``) of batches may be
  under way without acknowledgement. What does not fit waits here, and :attr:`congested` tells the
  producers to pause their sources. One batch may always be under way, so no batch is too large to
  send as long as it is within the receiver's ``max_batch_bytes``.
* **Urgent records** (pausing, crediting, settling) go ahead of everything queued and need no
  credit, so that two congested sides never wait for each other.
* **Acknowledgement.** A shard acknowledges promptly, because a gateway closes the connections
  whose frames were not acknowledged when a shard dies; a gateway is lazy, because a shard only
  needs credit. Both ride on the next batch whenever there is one.

::

        hello sent          peer's HELLO            GOODBYE sent or received,
   NEW ───────────▶ GREETED ────────────▶ OPEN ──▶ protocol error, transport lost ──▶ CLOSED
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from common.errors import LinkClosedByPeer, ProtocolError
from common.link.records import (
    BLOB_FRAME,
    BODY_CREDIT,
    FRAMES,
    GOODBYE,
    HELLO,
    PAUSE,
    RESUME,
    SETTLED,
    UNSETTLED,
    Record,
)
from common.link.wire import BLOB_MIN_BYTES, HEAD_BYTES, Buffer, decode, encode

PROTOCOL_VERSION: Final = 1
BATCH_TARGET_BYTES: Final = 1 << 20
"""A batch is sealed when its payloads reach this size; what follows goes into the next one."""
CONGESTED_BYTES: Final = 1 << 20
"""Bytes waiting for credit from which :attr:`LinkSession.congested` is true."""
URGENT: Final = frozenset({PAUSE, RESUME, SETTLED, UNSETTLED, BODY_CREDIT})
"""Kinds of record that may travel ahead of the queue, also in a batch without a number."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is at the other end, and what it accepts.

    Attributes:
        role: ``"gateway"`` or ``"shard"``.
        index: which of them, from 0.
        instance: 16 hex digits, new for each start of a process: tells a restart from a reconnect.
        window_bytes: bytes that may be sent to it without acknowledgement.
        max_batch_bytes: the largest batch it reads.
        generations: the partitions it owns, with the generation of each (empty for a gateway).
        version: :data:`PROTOCOL_VERSION`.
    """

    role: str
    index: int
    instance: str
    window_bytes: int
    max_batch_bytes: int
    generations: Mapping[int, int]
    version: int = PROTOCOL_VERSION

    @classmethod
    def read(cls, fields: Any) -> Hello:
        """Read what :meth:`fields` wrote.

        Raises:
            ProtocolError: another version, or a field that is missing or of another type.
        """
        if not isinstance(fields, dict):
            raise ProtocolError("HELLO is not a map")
        version = fields.get("version")
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"the peer speaks link version {version!r}, this process {PROTOCOL_VERSION}: "
                "run the same release of limpet everywhere"
            )
        try:
            hello = cls(**fields)
        except TypeError as error:
            raise ProtocolError(f"HELLO: {error}") from None
        for name, kind in _HELLO_TYPES.items():
            if type(getattr(hello, name)) is not kind:
                raise ProtocolError(f"HELLO: {name} is {getattr(hello, name)!r}")
        if hello.window_bytes <= 0 or hello.max_batch_bytes <= 0:
            raise ProtocolError("HELLO: a limit is not positive")
        return hello

    def fields(self) -> dict[str, Any]:
        """As it goes on the wire."""
        return asdict(self)


_HELLO_TYPES: Final = {
    "role": str,
    "index": int,
    "instance": str,
    "window_bytes": int,
    "max_batch_bytes": int,
    "generations": dict,
}


class LinkState(enum.Enum):
    """Where a link stands; the comment says what comes next."""

    NEW = "new"  # -> GREETED, when the transport is up and HELLO has been queued
    GREETED = "greeted"  # -> OPEN, when the peer's HELLO has come; -> CLOSED
    OPEN = "open"  # -> CLOSED
    CLOSED = "closed"  # the end


@dataclass(slots=True)
class _Sealed:
    seq: int
    records: list[Record]
    blobs: list[Buffer]
    payload_bytes: int


class LinkSession:
    """One side of one link.

    Args:
        local: what this side says of itself.
        wake: called when the first record is queued since the last :meth:`take`; must arrange for
            :meth:`take` at the end of this turn. It is never called from within :meth:`take`.
        prompt_acks: acknowledge each batch at once (a shard) or when a quarter of the window has
            been used (a gateway).
    """

    __slots__ = (
        "_acked_seq",
        "_blobs",
        "_filling_bytes",
        "_in_flight",
        "_in_flight_bytes",
        "_last_payload",
        "_owed_bytes",
        "_payloads",
        "_prompt_acks",
        "_received_seq",
        "_records",
        "_sealed",
        "_sealed_bytes",
        "_sent_ack",
        "_sent_seq",
        "_targets",
        "_urgent",
        "_wake",
        "_woken",
        "congested",
        "filling_seq",
        "local",
        "peer",
        "state",
    )

    def __init__(self, local: Hello, wake: Callable[[], None], *, prompt_acks: bool) -> None:
        self.local = local
        self.peer: Hello | None = None
        self.state = LinkState.NEW
        self.filling_seq = 1
        """Number of the batch that a record queued now will travel in."""
        self.congested = False
        """More than :data:`CONGESTED_BYTES` wait for credit: producers must pause their sources."""
        self._wake = wake
        self._woken = False
        self._prompt_acks = prompt_acks
        self._records: list[Record] = []
        self._targets: list[Any] = []
        self._payloads: list[Any] = []
        self._last_payload: Any = None
        self._blobs: list[Buffer] = []
        self._filling_bytes = 0
        self._sealed: deque[_Sealed] = deque()
        self._sealed_bytes = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0
        self._urgent: list[Record] = []
        self._sent_seq = 0
        self._acked_seq = 0
        self._received_seq = 0
        self._sent_ack = 0
        self._owed_bytes = 0

    # --- out: queueing -------------------------------------------------------------------------

    def unicast(self, target: int, payload: str | Buffer) -> None:
        """Queue one message (hot path).

        Args:
            target: connection id.
            payload: ``str`` for text, bytes-like for binary. It must not change afterwards.
        """
        size = len(payload)
        if size >= BLOB_MIN_BYTES:
            self.blob(target, payload)
            return
        self._targets.append(target)
        self._payloads.append(payload)
        self._last_payload = None
        self._filling_bytes += size
        if not self._woken:
            self._woken = True
            self._wake()
        elif self._filling_bytes >= BATCH_TARGET_BYTES:
            self._seal()

    def multicast(self, target: int, payload: str | Buffer) -> None:
        """Queue one message; consecutive ones with the very same *payload* object share a record.

        So a loop that sends one object to a thousand connections costs one payload on the wire.
        """
        if payload is self._last_payload:
            targets = self._targets
            last = targets[-1]
            if type(last) is list:
                last.append(target)
            else:
                targets[-1] = [last, target]
            return
        size = len(payload)
        if size >= BLOB_MIN_BYTES:
            self.blob(target, payload)
            return
        self._targets.append(target)
        self._payloads.append(payload)
        self._last_payload = payload
        self._filling_bytes += size
        if not self._woken:
            self._woken = True
            self._wake()
        elif self._filling_bytes >= BATCH_TARGET_BYTES:
            self._seal()

    def blob(self, target: int | list[int], payload: str | Buffer, is_text: bool = False) -> None:
        """Queue one large message, whose bytes go behind the batch.

        Args:
            target: connection id, or several.
            payload: text as ``str``, or as its UTF-8 bytes with *is_text*; or binary.
            is_text: *payload* is the UTF-8 form of a text.
        """
        raw: Buffer
        if isinstance(payload, str):
            raw, is_text = payload.encode(), True
        else:
            raw = payload
        records = self._records
        if (
            records
            and not self._targets
            and self._blobs
            and self._blobs[-1] is payload
            and records[-1][0] == BLOB_FRAME
            and records[-1][3] is is_text
        ):
            last = records[-1]
            if type(last[1]) is not list:
                last[1] = [last[1]]
            last[1].append(target) if type(target) is int else last[1].extend(target)
            return
        # Counted before queueing: a batch must not outgrow what the peer reads.
        if self._filling_bytes and self._filling_bytes + len(raw) > BATCH_TARGET_BYTES:
            self._seal()
        self.send([BLOB_FRAME, target, len(raw), is_text])
        self._blobs.append(raw)
        self._filling_bytes += len(raw)

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        """Queue one record of any kind, behind all that was queued before.

        Args:
            record: see :mod:`common.link.records`. It must not change afterwards.
            payload_bytes: size of the payload it carries, for credit; small ones need not count.
        """
        if self._targets:
            self._end_run()
        self._records.append(record)
        self._filling_bytes += payload_bytes
        if not self._woken:
            self._woken = True
            self._wake()
        if self._filling_bytes >= BATCH_TARGET_BYTES:
            self._seal()

    def urgent(self, record: Record) -> None:
        """Queue a record of a kind in :data:`URGENT` ahead of everything, credit or not."""
        self._urgent.append(record)
        if not self._woken:
            self._woken = True
            self._wake()

    def greet(self) -> None:
        """Queue ``HELLO``. Called once, when the transport is up."""
        assert self.state is LinkState.NEW
        self.state = LinkState.GREETED
        self.send([HELLO, self.local.fields()])

    def goodbye(self, reason: str) -> None:
        """Queue ``GOODBYE`` and close; :meth:`take` still gives what was queued before.

        What had waited for credit is dropped: nobody will read it.
        """
        if self.state is LinkState.CLOSED:
            return
        if self._sealed:
            self._records, self._blobs = [], []
            self._targets, self._payloads = [], []
            self.filling_seq = self._sealed[0].seq
            self._sealed.clear()
        self.send([GOODBYE, reason])
        self.state = LinkState.CLOSED

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait here, for credit or for the end of the turn."""
        return self._sealed_bytes + self._filling_bytes

    @property
    def acked_seq(self) -> int:
        """The highest batch number that the peer has acknowledged."""
        return self._acked_seq

    def _end_run(self) -> None:
        self._records.append([FRAMES, self._targets, self._payloads])
        self._targets, self._payloads = [], []
        self._last_payload = None

    def _seal(self) -> None:
        if self._targets:
            self._end_run()
        if not self._records:
            return
        self._sealed.append(
            _Sealed(self.filling_seq, self._records, self._blobs, self._filling_bytes)
        )
        self._sealed_bytes += self._filling_bytes
        self.filling_seq += 1
        self._records, self._blobs, self._filling_bytes = [], [], 0
        self.congested = self._sealed_bytes >= CONGESTED_BYTES

    # --- out: taking ---------------------------------------------------------------------------

    def take(self) -> list[Buffer]:
        """What must be written now, as buffers in order; empty when nothing may or need be sent."""
        self._woken = False
        out: list[Buffer] = []
        window = self.peer.window_bytes if self.peer is not None else self.local.window_bytes
        if self._sealed:
            self._seal()
            while self._sealed and (not self._in_flight or self._in_flight_bytes < window):
                sealed = self._sealed.popleft()
                self._sealed_bytes -= sealed.payload_bytes
                self._encode(out, sealed.seq, sealed.records, sealed.blobs)
        else:
            if self._targets:
                self._records.append([FRAMES, self._targets, self._payloads])
                self._targets, self._payloads = [], []
                self._last_payload = None
            if self._records:
                if not self._in_flight or self._in_flight_bytes < window:
                    self._encode(out, self.filling_seq, self._records, self._blobs)
                    self.filling_seq += 1
                    self._records, self._blobs, self._filling_bytes = [], [], 0
                else:
                    self._seal()
        self.congested = self._sealed_bytes >= CONGESTED_BYTES
        if not out and (self._urgent or self._ack_is_due()) and self.state is not LinkState.NEW:
            self._encode(out, 0, [], [])
        return out

    def _encode(
        self, out: list[Buffer], seq: int, records: list[Record], blobs: list[Buffer]
    ) -> None:
        if self._urgent and self._sent_seq:  # HELLO comes first
            records = self._urgent + records
            self._urgent = []
        buffers = encode(seq, self._received_seq, records, blobs)
        self._sent_ack = self._received_seq
        self._owed_bytes = 0
        if seq:
            self._sent_seq = seq
            size = len(buffers[0]) + sum(map(len, blobs))
            self._in_flight.append((seq, size))
            self._in_flight_bytes += size
        out.extend(buffers)

    def _ack_is_due(self) -> bool:
        if self._sent_ack == self._received_seq or self.state is not LinkState.OPEN:
            return False
        return self._prompt_acks or self._owed_bytes * 4 >= self.local.window_bytes

    # --- in ------------------------------------------------------------------------------------

    def receive(self, body: Buffer, blobs: memoryview) -> list[Record]:
        """Read one batch; the records that came, handshake records left out.

        The batch counts as processed at once: the acknowledgement goes out with the next
        :meth:`take`, which the driver calls after its handler has seen the records. A handler whose
        work on a frame goes on after that queues ``UNSETTLED`` with :meth:`urgent`, which travels with
        that acknowledgement.

        Raises:
            ProtocolError: a batch that is malformed, out of sequence, acknowledges what was never
                sent, or comes before ``HELLO``.
            LinkClosedByPeer: the peer said ``GOODBYE``.
        """
        seq, ack, records = decode(body, blobs)
        if ack != self._acked_seq:
            self._acknowledged(ack)
        if seq:
            if seq != self._received_seq + 1:
                raise ProtocolError(f"batch {seq} follows batch {self._received_seq}")
            self._received_seq = seq
            self._owed_bytes += HEAD_BYTES + len(body) + len(blobs)
            if not self._woken and self._ack_is_due():
                self._woken = True
                self._wake()
        elif not all(record[0] in URGENT for record in records):
            raise ProtocolError("a batch without a number carries records that need one")
        if self.state is not LinkState.OPEN:
            return self._greeted(records)
        if records and records[-1][0] == GOODBYE:
            raise LinkClosedByPeer(str(records[-1][1]))
        return records

    def _greeted(self, records: list[Record]) -> list[Record]:
        if self.state is LinkState.CLOSED:
            return []
        if not records:
            return records
        first = records.pop(0)
        if first[0] == GOODBYE:
            raise LinkClosedByPeer(str(first[1]))
        if first[0] != HELLO:
            raise ProtocolError(f"record of kind {first[0]} before HELLO")
        self.peer = Hello.read(first[1])
        self.state = LinkState.OPEN
        return records

    def _acknowledged(self, ack: int) -> None:
        if ack < self._acked_seq or ack > self._sent_seq:
            raise ProtocolError(f"acknowledgement of batch {ack}, which was not under way")
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= ack:
            self._in_flight_bytes -= in_flight.popleft()[1]
        self._acked_seq = ack
        if self._sealed and not self._woken:
            self._woken = True
            self._wake()
