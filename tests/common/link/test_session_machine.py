"""Two sessions joined by two byte pipes, against a model that is nothing but lists.

Rules of :mod:`common.link.session` that hold whatever happens, in whatever order:

* what one side queues arrives exactly once and in order; urgent records may overtake the others but
  not one another;
* a record travels in the batch that ``filling_seq`` named after it was queued, so that it has been
  received once ``acked_seq`` reaches that number, and never earlier;
* what a handler queues as urgent while it has a batch arrives no later than the batch's
  acknowledgement;
* less than the peer's window is under way without acknowledgement, one batch excepted;
* a shard's acknowledgement to a gateway comes behind all that the shard had queued;
* a session that has not called ``wake`` has nothing to send, so nobody waits for ever;
* before ``GOODBYE`` comes all that had credit.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.link import session as session_module
from common.link.lifecycle import LinkState
from common.link.records import CLOSE, GOODBYE, HELLO, UNSETTLED
from common.link.session import RECORD_BYTES, LinkSession
from common.link.wire import HEAD, HEAD_BYTES, decode
from tests.common.link.support import hello, messages

TEXT = st.one_of(st.text(max_size=3), st.sampled_from(["", "é" * 30, "x" * 250]))
PAYLOAD = st.one_of(
    TEXT, st.binary(max_size=3), st.sampled_from([b"", b"y" * 60, b"z" * 250, b"w" * 900])
)
CONNECTION = st.integers(1000, 1003)  # no kind of record
CONNECTIONS = st.lists(CONNECTION, min_size=1, max_size=4)
SIDE = st.integers(0, 1)


class Side:
    """A session, what it queued, and what it got."""

    def __init__(self, window_bytes: int, prompt_acks: bool) -> None:
        self.woken = False
        # As they are: a shard acknowledges promptly, and to a gateway only what is flushed.
        local = hello("shard" if prompt_acks else "gateway", window_bytes=window_bytes)
        self.session = LinkSession(local, self.wake, prompt_acks=prompt_acks)
        self.queued: list[tuple[int, tuple[Any, ...]]] = []  # number of the batch, message
        self.urgent: list[tuple[Any, ...]] = []
        self.got: list[tuple[Any, ...]] = []
        self.got_urgent: list[tuple[Any, ...]] = []
        self.marked: set[int] = set()  # the peer's batches that we called unsettled
        self.wire: deque[int] = deque()  # bytes on their way to the peer
        self.unread = bytearray()
        self.under_way: dict[int, int] = {}  # number of the batch, size
        self.work: dict[int, int] = {}  # … and at most what it counts for, whatever its size
        self.sent = 0  # of self.queued
        self.told_ack = 0
        self.withholds = prompt_acks
        self.ended = False

    def wake(self) -> None:
        assert not self.woken, "wake() twice without take()"
        self.woken = True

    def queue(self, message: tuple[Any, ...]) -> None:
        self.queued.append((self.session.filling_seq, message))


class LinkMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, size in {
            "BATCH_TARGET_BYTES": 300,
            "CONGESTED_BYTES": 300,
            "BLOB_MIN_BYTES": 50,
        }.items():
            self.patch.setattr(session_module, name, size)
        self.sides: list[Side] = []
        self.next_id = 0

    @initialize(
        windows=st.tuples(*[st.sampled_from([1, 200, 700, 5000])] * 2),
        prompt=st.tuples(st.booleans(), st.booleans()),
    )
    def begin(self, windows: tuple[int, int], prompt: tuple[bool, bool]) -> None:
        self.sides = [Side(*options) for options in zip(windows, prompt, strict=True)]
        for side in self.sides:
            side.session.greet()

    def live(self, which: int) -> Side | None:
        side = self.sides[which]
        return None if side.ended or side.session.state is LinkState.CLOSED else side

    # --- queueing ------------------------------------------------------------------------------

    @rule(which=SIDE, connection=CONNECTION, payload=PAYLOAD)
    def unicast(self, which: int, connection: int, payload: str | bytes) -> None:
        if side := self.live(which):
            side.session.unicast(connection, payload)
            side.queue((connection, payload))

    @rule(which=SIDE, connections=st.lists(CONNECTION, max_size=40), payload=PAYLOAD)
    def multicast(self, which: int, connections: list[int], payload: str | bytes) -> None:
        if side := self.live(which):
            for connection in connections:
                side.session.multicast(connection, payload)
                side.queue((connection, payload))

    @rule(which=SIDE, connections=CONNECTIONS, text=TEXT)
    def blob(self, which: int, connections: list[int], text: str) -> None:
        if side := self.live(which):
            given = list(connections)
            side.session.blob(given, text.encode(), True)
            given.append(0)  # the caller's own list: what it does with it is not for the peer
            for connection in connections:
                side.queue((connection, text))

    @rule(which=SIDE, payload_bytes=st.sampled_from([0, 100, 1000]))
    def send(self, which: int, payload_bytes: int) -> None:
        if side := self.live(which):
            self.next_id += 1
            record = [CLOSE, self.next_id, None, "r" * payload_bytes]
            side.session.send(record, payload_bytes)
            side.queue(tuple(record))

    @rule(which=SIDE)
    def urgent(self, which: int) -> None:
        if side := self.live(which):
            self.next_id -= 1
            side.session.urgent([UNSETTLED, [self.next_id]])
            side.urgent.append((UNSETTLED, [self.next_id]))

    # --- passing -------------------------------------------------------------------------------

    @rule(which=SIDE)
    def take(self, which: int) -> None:
        """The turn of the loop ends."""
        side, peer = self.sides[which], self.sides[1 - which]
        woken, side.woken = side.woken, False
        data = b"".join(side.session.take())
        if not woken and side.session.state is not LinkState.CLOSED:
            assert not data, "sent without wake()"
        start = 0
        while start < len(data):
            body_bytes, blob_bytes = HEAD.unpack_from(data, start)
            size = HEAD_BYTES + body_bytes + blob_bytes
            body = start + HEAD_BYTES
            blobs = memoryview(data)[body + body_bytes : start + size]
            seq, ack, records = decode(data[body : body + body_bytes], blobs)
            if seq:
                window = peer.session.local.window_bytes
                assert not side.under_way or sum(side.under_way.values()) < window
                side.under_way[seq] = size
                side.work[seq] = size + RECORD_BYTES * (len(records) + len(list(messages(records))))
            for message in messages(records):
                if message[0] in {HELLO, GOODBYE, UNSETTLED}:
                    continue
                assert side.queued[side.sent] == (seq, message)
                side.sent += 1
            if ack > side.told_ack and side.withholds and peer.session.local.role == "gateway":
                assert side.sent == len(side.queued), "an acknowledgement overtook what was sent"
            side.told_ack = ack
            start += size
        side.wire.extend(data)

    @rule(which=SIDE, count=st.integers(1, 2000), marks=st.booleans())
    def deliver(self, which: int, count: int, marks: bool) -> None:
        """Some bytes come through the pipe, and the receiver handles what is whole."""
        sender, side = self.sides[which], self.sides[1 - which]
        for _ in range(min(count, len(sender.wire))):
            side.unread.append(sender.wire.popleft())
        unread = side.unread
        while len(unread) >= HEAD_BYTES:
            body_bytes, blob_bytes = HEAD.unpack_from(unread)
            size = HEAD_BYTES + body_bytes + blob_bytes
            if len(unread) < size:
                break
            batch = bytes(unread[:size])
            del unread[:size]
            if not side.ended:
                self.receive(side, sender, batch, body_bytes, marks)

    def receive(self, side: Side, sender: Side, batch: bytes, body_bytes: int, marks: bool) -> None:
        body, blobs = batch[HEAD_BYTES:][:body_bytes], memoryview(batch)[HEAD_BYTES + body_bytes :]
        seq, _, _ = decode(body, blobs)
        for message in messages(side.session.receive(body, blobs)):
            (side.got_urgent if message[0] == UNSETTLED else side.got).append(message)
        for number in list(side.under_way):
            if number <= side.session.acked_seq:
                del side.under_way[number], side.work[number]
                if number in sender.marked:
                    assert (UNSETTLED, [number]) in side.got_urgent, "acknowledged, not told"
        if side.session.farewell is not None:
            side.ended = True
            side.session.state = LinkState.CLOSED
        elif seq and marks and side.session.state is LinkState.OPEN:
            side.marked.add(seq)
            side.session.urgent([UNSETTLED, [seq]])
            side.urgent.append((UNSETTLED, [seq]))

    @precondition(lambda self: all(s.session.state is LinkState.OPEN for s in self.sides))
    @rule(which=SIDE, draw=st.integers(0, 4))
    def goodbye(self, which: int, draw: int) -> None:
        if draw:
            return  # rarely: nothing happens afterwards
        side, peer = self.sides[which], self.sides[1 - which]
        for _ in range(2):  # something to drop, or not
            side.session.unicast(1000, "last")
            side.queue((1000, "last"))
        side.session.goodbye("that is all")
        self.take(which)
        side.ended = True
        if side.sent < len(side.queued):
            window = peer.session.local.window_bytes
            assert sum(side.work.values()) >= window, "dropped what had credit"
        assert side.session.queued_bytes == 0
        self.deliver(which, len(side.wire), False)
        assert peer.session.farewell == "that is all"
        assert peer.got == [message for _, message in side.queued[: side.sent]]

    # --- what holds ----------------------------------------------------------------------------

    @invariant()
    def what_came_is_what_was_sent_so_far(self) -> None:
        for side, sender in zip(self.sides, self.sides[::-1], strict=False):
            sent = [message for _, message in sender.queued[: sender.sent]]
            assert side.got == sent[: len(side.got)]
            assert side.got_urgent == sender.urgent[: len(side.got_urgent)]

    @invariant()
    def acknowledged_is_what_was_received(self) -> None:
        for side, peer in zip(self.sides, self.sides[::-1], strict=False):
            acked = sum(seq <= side.session.acked_seq for seq, _ in side.queued)
            assert acked <= len(peer.got)

    def teardown(self) -> None:
        """Both sides left alone come to rest, and then everything has arrived."""
        try:
            if self.sides and not any(side.ended for side in self.sides):
                self.settle()
        finally:
            self.patch.undo()

    def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for which, side in enumerate(self.sides):
                moved |= side.woken or bool(side.wire)
                self.take(which)
                self.deliver(which, len(side.wire), False)
        for side, peer in zip(self.sides, self.sides[::-1], strict=True):
            assert side.sent == len(side.queued), "deadlock: records wait and nobody moves"
            assert len(peer.got) == len(side.queued)
            assert peer.got_urgent == side.urgent
            assert not side.session.congested
            assert side.session.queued_bytes == 0
        self.what_came_is_what_was_sent_so_far()


TestLink = LinkMachine.TestCase
TestLink.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
