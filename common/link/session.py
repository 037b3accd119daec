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
  send as long as it is within the receiver's ``max_batch_bytes``. When more than
  ``max_queue_bytes`` wait at the end of a turn, the driver ends the link.
* **Urgent records** (pausing, crediting, settling) go ahead of everything queued and need no
  credit, so that two congested sides never wait for each other.
* **Acknowledgement.** A shard acknowledges promptly, because a gateway closes the connections
  whose frames were not acknowledged when a shard dies; a gateway is lazy, because a shard only
  needs credit. Both ride on the next batch whenever there is one. But a shard's acknowledgement to
  a gateway never overtakes what its objects have sent: who is told that a frame was handled has
  read, or is about to read, all that came of it.
* **Goodbye.** The last thing sent. It travels in a batch without a number, so it needs no credit
  and acknowledging it can say nothing of records that were dropped.

The states, and what leads from one to the next, are a table: :mod:`common.link.lifecycle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.errors import ProtocolError
from common.link.lifecycle import STEPS, LinkAction, LinkCause, LinkState
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
from common.link.wire import BLOB_MIN_BYTES, HEAD_BYTES, Buffer, decode, encode, encode_text

PROTOCOL_VERSION: Final = 1
BATCH_TARGET_BYTES: Final = 1 << 20
"""A batch that has reached this size is sealed; what follows goes into the next one. It can exceed
this by one small message; a larger one gets a batch of its own."""
RECORD_BYTES: Final = 128
"""What each record, and each message of a ``FRAMES`` record, counts beside its payload, on the
wire and while it waits. The work of handling it, not its few bytes, is what credit has to bound: a
window of one-byte messages must not keep the receiver busy for seconds."""
CONGESTED_BYTES: Final = 1 << 20
"""Bytes waiting for credit from which :attr:`LinkSession.congested` is true."""
QUEUE_WINDOWS: Final = 8
QUEUE_BATCHES: Final = 4
"""What may wait for credit if nothing else is said: that many windows, or that many of the largest
batches, whichever is more."""
URGENT: Final = frozenset({PAUSE, RESUME, SETTLED, UNSETTLED, BODY_CREDIT})
"""Kinds of record that may travel ahead of the queue, also in a batch without a number."""
_NUMBERLESS: Final = URGENT | {GOODBYE}


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
        for partition, generation in hello.generations.items():
            if type(partition) is not int or type(generation) is not int:
                raise ProtocolError("HELLO: generations are not numbers")
        return hello

    def fields(self) -> dict[str, Any]:
        """As it goes on the wire."""
        return {
            "role": self.role,
            "index": self.index,
            "instance": self.instance,
            "window_bytes": self.window_bytes,
            "max_batch_bytes": self.max_batch_bytes,
            "generations": dict(self.generations),
            "version": self.version,
        }


_HELLO_TYPES: Final = {
    "role": str,
    "index": int,
    "instance": str,
    "window_bytes": int,
    "max_batch_bytes": int,
    "generations": dict,
}


_OPEN: Final = LinkState.OPEN
_CLOSED: Final = LinkState.CLOSED


@dataclass(slots=True)
class _Sealed:
    seq: int
    records: list[Record]
    blobs: list[Buffer]
    queued_bytes: int


class LinkSession:
    """One side of one link.

    Args:
        local: what this side says of itself.
        wake: called when there is something to send for the first time since the last :meth:`take`;
            must arrange for :meth:`take` at the end of this turn. It is never called from within
            :meth:`take`.
        prompt_acks: acknowledge each batch at once (a shard) or when a quarter of the window has
            been used (a gateway).
        max_queue_bytes: how much may wait for credit; ``None`` for :data:`QUEUE_WINDOWS`
            windows or :data:`QUEUE_BATCHES` of the largest batches of *local*.
    """

    __slots__ = (
        "_acked_seq",
        "_behind",
        "_blobs",
        "_filling_bytes",
        "_in_flight",
        "_in_flight_bytes",
        "_last_blob",
        "_last_payload",
        "_owed_bytes",
        "_parting",
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
        "farewell",
        "filling_seq",
        "local",
        "max_queue_bytes",
        "peer",
        "state",
    )

    def __init__(
        self,
        local: Hello,
        wake: Callable[[], None],
        *,
        prompt_acks: bool,
        max_queue_bytes: int | None = None,
    ) -> None:
        self.local = local
        self.peer: Hello | None = None
        self.state = LinkState.NEW
        self.filling_seq = 1
        """Number of the batch that the record queued last travels in. Read it after queueing: a
        record that no longer fits starts the next batch."""
        self.congested = False
        """More than :data:`CONGESTED_BYTES` wait for credit: producers must pause their sources."""
        self.max_queue_bytes = (
            max(QUEUE_WINDOWS * local.window_bytes, QUEUE_BATCHES * local.max_batch_bytes)
            if max_queue_bytes is None
            else max_queue_bytes
        )
        self.farewell: str | None = None
        """What the peer said in ``GOODBYE``: nothing follows."""
        self._wake = wake
        self._woken = False
        self._prompt_acks = prompt_acks
        self._records: list[Record] = []
        self._targets: list[Any] = []
        self._payloads: list[Any] = []
        self._last_payload: Any = None
        self._last_blob: Any = None
        self._parting: Record | None = None
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
        self._behind = False

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
        if not self._woken:
            self._woken = True
            self._wake()
        elif self._filling_bytes >= BATCH_TARGET_BYTES:
            self._seal()
        self._targets.append(target)
        self._payloads.append(payload)
        self._last_payload = None
        self._filling_bytes += size + RECORD_BYTES

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
        if not self._woken:
            self._woken = True
            self._wake()
        elif self._filling_bytes >= BATCH_TARGET_BYTES:
            self._seal()
        self._targets.append(target)
        self._payloads.append(payload)
        self._last_payload = payload
        self._filling_bytes += size + RECORD_BYTES

    def blob(self, target: int | list[int], payload: str | Buffer, is_text: bool = False) -> None:
        """Queue one large message, whose bytes go behind the batch.

        Args:
            target: connection id, or several.
            payload: text as ``str``, or as its UTF-8 bytes with *is_text*; or binary.
            is_text: *payload* is the UTF-8 form of a text.
        """
        is_text = is_text or type(payload) is str
        if payload is self._last_blob and not self._targets:
            last = self._records[-1]
            if last[0] == BLOB_FRAME and last[3] is is_text:
                if type(last[1]) is int:
                    last[1] = [last[1]]
                last[1].append(target) if type(target) is int else last[1].extend(target)
                return
        raw: Buffer = encode_text(payload) if isinstance(payload, str) else payload
        if isinstance(target, list):
            target = target.copy()  # more may join
        self.send([BLOB_FRAME, target, len(raw), is_text], len(raw))
        self._blobs.append(raw)
        self._last_blob = payload

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        """Queue one record of any kind, behind all that was queued before.

        Args:
            record: see :mod:`common.link.records`. It must not change afterwards.
            payload_bytes: size of the payload it carries, for credit; small ones need not count.
        """
        if not self._woken:
            self._woken = True
            self._wake()
        if self._filling_bytes and self._filling_bytes + payload_bytes >= BATCH_TARGET_BYTES:
            self._seal()
        if self._targets:
            self._end_run()
        self._records.append(record)
        self._filling_bytes += payload_bytes + RECORD_BYTES

    def urgent(self, record: Record) -> None:
        """Queue a record of a kind in :data:`URGENT` ahead of everything, credit or not."""
        self._urgent.append(record)
        if not self._woken:
            self._woken = True
            self._wake()

    def greet(self) -> None:
        """Queue ``HELLO``. Called once, when the transport is up."""
        self._step(LinkCause.GREET)
        self.send([HELLO, self.local.fields()])

    def goodbye(self, reason: str, *, handling: bool = False) -> None:
        """Close. The next :meth:`take` gives what was queued and has credit, then ``GOODBYE``.

        What waits for credit is dropped: nobody will read it.

        Args:
            reason: told to the peer.
            handling: the batch received last has not been handled to its end, so it is not
                acknowledged.
        """
        if self._step(LinkCause.PART) is not LinkAction.PART:
            return
        self._parting = [GOODBYE, reason]
        if handling:
            self._received_seq = max(self._sent_ack, self._received_seq - 1)

    def lost(self) -> None:
        """The transport is gone, or the peer: drop what is queued."""
        self._step(LinkCause.LOST)

    def _step(self, cause: LinkCause) -> LinkAction:
        step = STEPS.get((self.state, cause))
        if step is None:
            raise ProtocolError(f"{cause.name} has no place on a link that is {self.state.value}")
        self.state = step.state
        if step.action is LinkAction.DROP:
            self._parting = None
            self._drop()
        return step.action

    @property
    def queued_bytes(self) -> int:
        """About how many bytes wait here, for credit or for the end of the turn."""
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
        size = self._filling_bytes
        self._sealed.append(_Sealed(self.filling_seq, self._records, self._blobs, size))
        self._sealed_bytes += size
        self.filling_seq += 1
        self._records, self._blobs, self._filling_bytes = [], [], 0
        self._last_blob = None
        self.congested = self._sealed_bytes >= CONGESTED_BYTES
        if self.state is _CLOSED and self._parting is None:
            self._drop()

    # --- out: taking ---------------------------------------------------------------------------

    def take(self) -> list[Buffer]:
        """What must be written now, as buffers in order; empty when nothing may or need be sent."""
        self._woken = False
        out: list[Buffer] = []
        if self.state is _CLOSED and self._parting is None:
            self._drop()
            return out
        # Before the peer has told its window, HELLO is the one batch that may be under way.
        window = self.peer.window_bytes if self.peer is not None else 0
        sealed = self._sealed
        while sealed and (not self._in_flight or self._in_flight_bytes < window):
            batch = sealed.popleft()
            self._sealed_bytes -= batch.queued_bytes
            self._behind = bool(sealed or self._targets or self._records)
            self._encode(out, batch.seq, batch.records, batch.blobs, batch.queued_bytes)
        if not sealed and (self._targets or self._records):
            if not self._in_flight or self._in_flight_bytes < window:
                if self._targets:
                    self._end_run()
                self._behind = False
                size = self._filling_bytes
                self._encode(out, self.filling_seq, self._records, self._blobs, size)
                self.filling_seq += 1
                self._records, self._blobs, self._filling_bytes = [], [], 0
                self._last_blob = None
            elif self._filling_bytes >= BATCH_TARGET_BYTES:
                self._seal()
        self.congested = self._sealed_bytes + self._filling_bytes >= CONGESTED_BYTES
        self._behind = bool(sealed or self._targets or self._records)
        if self._parting is not None:
            if self._sent_seq:
                self._encode(out, 0, [self._parting], [])
            self._parting = None
            self._drop()
        elif (self._urgent or (not out and self._ack_is_due())) and self._sent_seq:
            self._encode(out, 0, [], [])
        return out

    def _drop(self) -> None:
        """Forget what was queued: nobody will read it."""
        self._sealed.clear()
        self._records, self._blobs, self._targets, self._payloads = [], [], [], []
        self._urgent = []
        self._last_payload = self._last_blob = None
        self._sealed_bytes = self._filling_bytes = 0
        self.congested = False

    def _encode(
        self,
        out: list[Buffer],
        seq: int,
        records: list[Record],
        blobs: list[Buffer],
        counted_bytes: int = 0,
    ) -> None:
        if self._urgent:
            hello = 0 if self._sent_seq else 1  # which nothing overtakes
            records = records[:hello] + self._urgent + records[hello:]
            self._urgent = []
        if not (self._behind and self._withholds_acks):
            self._sent_ack = self._received_seq
        buffers = encode(seq, self._sent_ack, records, blobs)
        self._owed_bytes = 0
        if seq:
            self._sent_seq = seq
            size = max(len(buffers[0]) + sum(map(len, blobs)), counted_bytes)
            self._in_flight.append((seq, size))
            self._in_flight_bytes += size
        out.extend(buffers)

    @property
    def _withholds_acks(self) -> bool:
        # Only from a gateway, which does not do so itself: else two would wait for each other.
        return self._prompt_acks and self.peer is not None and self.peer.role == "gateway"

    def _ack_is_due(self) -> bool:
        if self._sent_ack == self._received_seq or self.state is not _OPEN:
            return False
        if self._behind and self._withholds_acks:
            return False
        return self._prompt_acks or self._owed_bytes * 4 >= self.local.window_bytes

    # --- in ------------------------------------------------------------------------------------

    def receive(self, body: Buffer, blobs: memoryview) -> list[Record]:
        """Read one batch; the records that came, handshake records left out.

        The batch counts as processed at once: the acknowledgement goes out with the next
        :meth:`take`, which the driver calls after its handler has seen the records. A handler whose
        work on a frame goes on after that queues ``UNSETTLED`` with :meth:`urgent`, which travels
        with that acknowledgement.

        After ``GOODBYE``, :attr:`farewell` is set; the records returned came before it.

        Raises:
            ProtocolError: a batch that is malformed, out of sequence, acknowledges what was never
                sent, or comes before ``HELLO``.
        """
        seq, ack, records = decode(body, blobs)
        if ack != self._acked_seq:
            self._acknowledged(ack)
        if self.state is _CLOSED:
            return []
        if seq:
            if seq != self._received_seq + 1:
                raise ProtocolError(f"batch {seq} follows batch {self._received_seq}")
            self._received_seq = seq
            # Never less than the sender counts, or it would wait for an acknowledgement that this
            # side does not think due.
            messages = len(records) + sum(len(each[1]) for each in records if each[0] == FRAMES)
            self._owed_bytes += HEAD_BYTES + len(body) + len(blobs) + messages * RECORD_BYTES
            if not self._woken and self._ack_is_due():
                self._woken = True
                self._wake()
        else:
            for record in records:
                if record[0] not in _NUMBERLESS:
                    raise ProtocolError(
                        f"a batch without a number carries a record of kind {record[0]}"
                    )
        if self.state is not _OPEN:
            self._greeted(records)
        elif records and records[0][0] == HELLO:
            self._step(LinkCause.HELLO)  # a second one: the table has no such step
        if records and records[-1][0] == GOODBYE:
            self.farewell = str(records.pop()[1])
        return records

    def _greeted(self, records: list[Record]) -> None:
        """Take HELLO off *records*."""
        if not records or records[0][0] == GOODBYE:
            return
        first = records.pop(0)
        if first[0] != HELLO:
            raise ProtocolError(f"record of kind {first[0]} before HELLO")
        peer = Hello.read(first[1])
        self._step(LinkCause.HELLO)
        self.peer = peer
        if not self._woken:  # for what was queued behind our HELLO
            self._woken = True
            self._wake()

    def _acknowledged(self, ack: int) -> None:
        if ack < self._acked_seq or ack > self._sent_seq:
            raise ProtocolError(f"acknowledgement of batch {ack}, which was not under way")
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= ack:
            self._in_flight_bytes -= in_flight.popleft()[1]
        self._acked_seq = ack
        if not self._woken and (self._sealed or self._records or self._targets):
            self._woken = True
            self._wake()
