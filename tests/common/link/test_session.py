"""Single rules of the session; :mod:`test_session_machine` checks that they hold together."""

from __future__ import annotations

import types
from functools import partial
from typing import Any

import msgpack
import pytest

from common.errors import ProtocolError
from common.link.lifecycle import STEPS, LinkCause, LinkState
from common.link.records import (
    BLOB_FRAME,
    CLOSE,
    FRAMES,
    GOODBYE,
    HELLO,
    LENGTHS,
    PAUSE,
    RESUME,
    UNSETTLED,
)
from common.link.session import (
    BATCH_TARGET_BYTES,
    CONGESTED_BYTES,
    PROTOCOL_VERSION,
    RECORD_BYTES,
    URGENT,
    Hello,
    LinkSession,
)
from common.link.wire import BLOB_MIN_BYTES, HEAD, HEAD_BYTES, decode, encode
from tests.common.link.support import (
    WINDOW_BYTES,
    exchange,
    hello,
    open_pair,
    receive,
    split,
    take,
)


def records_of(data: bytes) -> list[list[Any]]:
    return [record for batch in split(data) for record in decode(*batch)[2]]


def numbers_of(data: bytes) -> list[tuple[int, int]]:
    return [decode(*batch)[:2] for batch in split(data)]


def batch(seq: int, ack: int, *records: list[Any]) -> bytes:
    return b"".join(encode(seq, ack, records, []))


# --- handshake -----------------------------------------------------------------------------------


def fresh(**changes: Any) -> LinkSession:
    session = LinkSession(hello("shard", **changes), lambda: None, prompt_acks=True)
    session.greet()
    return session


def test_both_sides_learn_who_the_other_is() -> None:
    one = hello("gateway", index=3, window_bytes=77, generations={5: 8})
    gateway = LinkSession(one, lambda: None, prompt_acks=False)
    gateway.greet()
    shard = fresh()
    assert receive(shard, take(gateway)) == []
    assert shard.peer == one
    assert shard.state is LinkState.OPEN
    assert gateway.state is LinkState.GREETED
    receive(gateway, take(shard))
    assert gateway.peer == shard.local


def test_nothing_is_sent_before_the_greeting() -> None:
    session = LinkSession(hello(), lambda: None, prompt_acks=True)
    session.urgent([PAUSE, [1]])
    assert session.take() == []
    session.greet()
    assert [record[0] for record in records_of(take(session))] == [HELLO, PAUSE]


def test_hello_is_the_only_batch_under_way_before_the_peer_has_told_its_window() -> None:
    session, peer = fresh(), fresh()
    greeting = take(session)
    session.unicast(1, "early")
    assert session.take() == []
    receive(session, take(peer))
    receive(peer, greeting)
    assert exchange(session, peer) == [(1, "early")]


def test_generations_may_be_any_mapping() -> None:
    session, peer = fresh(generations=types.MappingProxyType({1: 2})), fresh()
    receive(peer, take(session))
    assert peer.peer is not None
    assert peer.peer.generations == {1: 2}


def test_another_version_is_refused_with_the_remedy() -> None:
    fields = {**hello().fields(), "version": PROTOCOL_VERSION + 1}
    with pytest.raises(ProtocolError, match="speaks link version 2, this process 1: run the same"):
        receive(fresh(), batch(1, 0, [HELLO, fields]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"role": 7}, "role is 7"),
        ({"index": "0"}, "index is '0'"),
        ({"index": True}, "index is True"),
        ({"instance": None}, "instance is None"),
        ({"window_bytes": 1.5}, "window_bytes is 1.5"),
        ({"window_bytes": 0}, "not positive"),
        ({"max_batch_bytes": -1}, "not positive"),
        ({"generations": []}, "generations is"),
        ({"generations": {"a": 1}}, "generations are not numbers"),
        ({"generations": {1: None}}, "generations are not numbers"),
        ({"version": None}, "link version None"),
        ({"surprise": 1}, "surprise"),
        ({1: 1}, "HELLO"),
    ],
)
def test_a_malformed_hello_is_refused_with_the_reason(change: dict[Any, Any], text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        receive(fresh(), batch(1, 0, [HELLO, {**hello().fields(), **change}]))


@pytest.mark.parametrize("missing", ["role", "index", "instance", "window_bytes", "generations"])
def test_a_hello_that_lacks_a_field_is_refused_by_its_name(missing: str) -> None:
    fields = hello().fields()
    del fields[missing]
    with pytest.raises(ProtocolError, match=missing):
        receive(fresh(), batch(1, 0, [HELLO, fields]))


@pytest.mark.parametrize("fields", [None, 1, "x", [], [[]]])
def test_a_hello_that_is_no_map_is_refused(fields: object) -> None:
    with pytest.raises(ProtocolError, match="HELLO is not a map"):
        receive(fresh(), batch(1, 0, [HELLO, fields]))


@pytest.mark.parametrize("seq", [0, 1])
def test_a_record_before_hello_is_refused(seq: int) -> None:
    with pytest.raises(ProtocolError, match="before HELLO"):
        receive(fresh(), batch(seq, 0, [PAUSE, [1]]))


def test_a_second_hello_is_refused() -> None:
    gateway, shard = open_pair()
    with pytest.raises(ProtocolError, match="HELLO has no place on a link that is open"):
        receive(shard, batch(2, 0, [HELLO, gateway.local.fields()]))


def test_a_greeting_is_made_once() -> None:
    with pytest.raises(ProtocolError, match="GREET has no place on a link that is greeted"):
        fresh().greet()


def test_a_peer_that_is_greeted_before_we_have_greeted_is_refused() -> None:
    silent = LinkSession(hello("shard"), lambda: None, prompt_acks=True)
    with pytest.raises(ProtocolError, match="HELLO has no place on a link that is new"):
        receive(silent, take(fresh()))
    assert silent.peer is None


def test_every_state_of_the_table_is_reached_and_can_be_left() -> None:
    assert {step.state for step in STEPS.values()} == set(LinkState) - {LinkState.NEW}
    for state in LinkState:
        for cause in (LinkCause.PART, LinkCause.LOST):
            assert STEPS[state, cause].state is LinkState.CLOSED


# --- sequence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [1, 3, 2**40])
def test_a_batch_out_of_sequence_is_refused(seq: int) -> None:
    _, shard = open_pair()
    with pytest.raises(ProtocolError, match=f"batch {seq} follows batch 1"):
        receive(shard, batch(seq, 1))


@pytest.mark.parametrize("ack", [0, 2, 2**40])
def test_an_acknowledgement_of_what_was_never_sent_or_already_told_is_refused(ack: int) -> None:
    gateway, _ = open_pair()
    assert gateway.acked_seq == 1
    with pytest.raises(ProtocolError, match=f"acknowledgement of batch {ack}"):
        receive(gateway, batch(2, ack))


@pytest.mark.parametrize("kind", sorted(set(LENGTHS) - URGENT - {BLOB_FRAME, GOODBYE}))
def test_a_record_that_must_be_acknowledged_needs_a_batch_with_a_number(kind: int) -> None:
    _, shard = open_pair()
    record: list[Any] = [kind, *[[]] * (LENGTHS[kind] - 1)]
    with pytest.raises(ProtocolError, match="without a number"):
        receive(shard, batch(0, 1, record))


def test_bytes_that_are_no_batch_are_refused() -> None:
    _, shard = open_pair()
    with pytest.raises(ProtocolError, match="not valid msgpack"):
        shard.receive(b"\xc1", memoryview(b""))


# --- batches -------------------------------------------------------------------------------------


def test_all_of_one_turn_goes_into_one_batch_in_order() -> None:
    gateway, shard = open_pair()
    gateway.unicast(1, "a")
    gateway.unicast(2, b"b")
    gateway.send([CLOSE, 1, 1000, ""])
    gateway.unicast(1, "c")
    data = take(gateway)
    assert len(list(split(data))) == 1
    assert records_of(data) == [
        [FRAMES, [1, 2], ["a", b"b"]],
        [CLOSE, 1, 1000, ""],
        [FRAMES, [1], ["c"]],
    ]
    assert receive(shard, data) == [(1, "a"), (2, b"b"), (CLOSE, 1, 1000, ""), (1, "c")]


def test_wake_is_called_once_a_turn() -> None:
    calls = []
    session = LinkSession(hello(), lambda: calls.append(1), prompt_acks=True)
    session.greet()
    session.unicast(1, "a")
    session.multicast(1, "a")
    session.urgent([PAUSE, [1]])
    session.send([CLOSE, 1, None, ""])
    session.blob(1, b"x")
    assert calls == [1]
    session.take()
    session.unicast(1, "a")
    assert calls == [1, 1]


@pytest.mark.parametrize("text", ["x" * 1000, "", b"y" * 1000])
def test_a_batch_is_sealed_at_its_target_and_what_follows_starts_the_next(text: str) -> None:
    gateway, _ = open_pair()
    first = gateway.filling_seq
    count = 2 * BATCH_TARGET_BYTES // (len(text) + RECORD_BYTES)
    seqs = []
    for _ in range(count):
        gateway.unicast(1, text)
        seqs.append(gateway.filling_seq)
    assert seqs[0] == first
    assert seqs[-1] == first + 1
    batches = list(split(take(gateway)))
    for number, parts in enumerate(batches, first):
        seq, _, records = decode(*parts)
        assert seq == number
        assert sum(len(record[1]) for record in records) == seqs.count(number)


def test_a_message_beyond_the_target_travels_in_a_batch_of_its_own() -> None:
    """So no batch exceeds the larger of the target (and a little) and one message."""
    gateway, _ = open_pair()
    gateway.unicast(1, "small")
    before = gateway.filling_seq
    gateway.unicast(1, bytes(5 * BATCH_TARGET_BYTES))
    assert gateway.filling_seq == before + 1
    gateway.unicast(1, bytes(5 * BATCH_TARGET_BYTES))
    assert gateway.filling_seq == before + 2
    gateway.send([CLOSE, 1, None, "x" * BATCH_TARGET_BYTES], BATCH_TARGET_BYTES)
    assert gateway.filling_seq == before + 3
    gateway.unicast(1, "small")
    assert gateway.filling_seq == before + 4


def test_a_huge_batch_arrives_whole_however_small_the_window() -> None:
    gateway = LinkSession(hello(), lambda: None, prompt_acks=False)
    shard = fresh(window_bytes=1)
    gateway.greet()
    exchange(gateway, shard)
    payload = bytes(range(256)) * (1 << 16)
    gateway.unicast(1, payload)
    gateway.unicast(2, payload[:-1])
    assert exchange(gateway, shard) == [(1, payload), (2, payload[:-1])]


def test_a_text_counts_by_its_bytes_when_it_is_large() -> None:
    gateway, shard = open_pair()
    text = "é" * BLOB_MIN_BYTES
    gateway.unicast(1, text)
    assert gateway.queued_bytes == 2 * BLOB_MIN_BYTES + RECORD_BYTES
    assert exchange(gateway, shard) == [(1, text)]


# --- one payload, many receivers -----------------------------------------------------------------


@pytest.mark.parametrize("payload", ["text", b"bytes", "", memoryview(b"view")])
def test_consecutive_sends_of_one_object_are_one_payload(payload: str | bytes) -> None:
    _, shard = open_pair()
    for connection in range(5):
        shard.multicast(connection, payload)
    (record,) = records_of(take(shard))
    assert record[1] == [[0, 1, 2, 3, 4]]
    assert len(record[2]) == 1


@pytest.mark.parametrize("size", [10, BLOB_MIN_BYTES, 3 * BATCH_TARGET_BYTES])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_large_payload_crosses_once_for_all_receivers(size: int, kind: type) -> None:
    gateway, shard = open_pair()
    payload = "é" * size if kind is str else b"x" * size
    for connection in range(100):
        shard.multicast(connection, payload)
    data = take(shard)
    assert len(data) < 2 * size + 1000
    assert receive(gateway, data) == [(connection, payload) for connection in range(100)]


def test_another_object_another_record_or_a_unicast_ends_the_sharing() -> None:
    gateway, shard = open_pair()
    one, equal = "x" * 3 + str(1), "x" * 3 + str(1)
    assert one is not equal
    shard.multicast(1, one)
    shard.multicast(2, equal)
    shard.multicast(3, one)
    shard.send([CLOSE, 9, None, ""])
    shard.multicast(4, one)
    shard.unicast(5, one)
    shard.multicast(6, one)
    data = take(shard)
    assert [record[1] for record in records_of(data) if record[0] == FRAMES] == [
        [1, 2, 3],
        [4, 5, 6],
    ]
    assert receive(gateway, data) == [
        (1, one), (2, one), (3, one), (CLOSE, 9, None, ""), (4, one), (5, one), (6, one)
    ]  # fmt: skip


def test_a_receiver_named_twice_receives_twice() -> None:
    gateway, shard = open_pair()
    text = "".join(["te", "xt"])
    for _ in range(2):
        shard.multicast(1, text)
        shard.multicast(1, text)
        assert exchange(shard, gateway) == [(1, text), (1, text)]  # each turn its own batch


def test_a_blob_shares_only_with_its_neighbour_of_the_same_kind() -> None:
    gateway, shard = open_pair()
    raw = b"x" * BLOB_MIN_BYTES
    shard.blob(1, raw)
    shard.blob(2, raw, True)
    shard.blob([3, 4], raw, True)
    shard.unicast(5, "between")
    shard.blob(6, raw, True)
    data = take(shard)
    assert [record[1] for record in records_of(data)] == [1, [2, 3, 4], [5], 6]
    text = raw.decode()
    assert receive(gateway, data) == [
        (1, raw), (2, text), (3, text), (4, text), (5, "between"), (6, text)
    ]  # fmt: skip


def test_a_blob_does_not_join_one_whose_batch_is_sealed() -> None:
    gateway, shard = open_pair()
    gateway.unicast(9, bytes(WINDOW_BYTES))
    under_way = take(gateway)
    payload = bytes(BATCH_TARGET_BYTES)
    gateway.multicast(1, payload)
    gateway.take()  # no credit: the batch is full, and waits
    gateway.multicast(2, payload)
    receive(shard, under_way)
    receive(gateway, take(shard))
    got = exchange(gateway, shard)
    assert got[-2:] == [(1, payload), (2, payload)]


def test_the_list_of_receivers_handed_in_is_not_changed() -> None:
    _, shard = open_pair()
    raw, receivers = b"x" * BLOB_MIN_BYTES, [1, 2]
    shard.blob(receivers, raw)
    shard.blob(3, raw)
    assert receivers == [1, 2]


# --- credit --------------------------------------------------------------------------------------


def fill_window(session: LinkSession) -> bytes:
    """Send until the window is used up; what is under way."""
    data = b""
    while more := take_one(session, bytes(BLOB_MIN_BYTES * 8)):
        data += more
    return data


def take_one(session: LinkSession, payload: bytes) -> bytes:
    session.unicast(1, payload)
    return take(session)


def test_what_has_no_credit_waits_and_goes_when_it_is_given() -> None:
    gateway, shard = open_pair()
    under_way = fill_window(gateway)
    assert WINDOW_BYTES <= len(under_way) < WINDOW_BYTES + BLOB_MIN_BYTES * 9
    waiting = gateway.queued_bytes
    assert waiting == BLOB_MIN_BYTES * 8 + RECORD_BYTES
    receive(shard, under_way)
    receive(gateway, take(shard))
    assert len(receive(shard, take(gateway))) == 1
    assert gateway.queued_bytes == 0


def test_turns_that_wait_for_credit_become_one_batch() -> None:
    gateway, shard = open_pair()
    receive(shard, fill_window(gateway))
    seq = gateway.filling_seq
    for number in range(100):
        gateway.unicast(1, str(number))
        assert gateway.take() == []
        assert gateway.filling_seq == seq
    receive(gateway, take(shard))
    assert len(list(split(take(gateway)))) == 1


def test_congestion_is_told_from_its_threshold_on_and_ends_with_it() -> None:
    gateway, shard = open_pair()
    under_way = fill_window(gateway)
    for _ in range(3):
        gateway.unicast(1, bytes(CONGESTED_BYTES // 4))
        gateway.take()
        assert not gateway.congested
    gateway.unicast(1, bytes(CONGESTED_BYTES // 4))
    gateway.take()
    assert gateway.congested
    receive(shard, under_way)
    receive(gateway, take(shard))
    gateway.take()
    assert not gateway.congested


def test_urgent_records_pass_a_full_window_in_both_directions_at_once() -> None:
    gateway, shard = open_pair()
    there, back = fill_window(gateway), fill_window(shard)
    gateway.urgent([UNSETTLED, [1]])
    shard.urgent([PAUSE, [2]])
    there, back = there + take(gateway), back + take(shard)
    assert receive(shard, there)[-1] == (UNSETTLED, [1])
    assert receive(gateway, back)[-1] == (PAUSE, [2])


def test_urgent_records_go_ahead_of_the_queue_in_their_own_order() -> None:
    gateway, shard = open_pair()
    shard.unicast(1, "first")
    shard.urgent([PAUSE, [1]])
    shard.unicast(1, "second")
    shard.urgent([RESUME, [1]])
    got = receive(gateway, take(shard))
    assert got == [(PAUSE, [1]), (RESUME, [1]), (1, "first"), (1, "second")]


# --- acknowledgement -----------------------------------------------------------------------------


def test_a_prompt_side_acknowledges_each_batch_at_once() -> None:
    gateway, shard = open_pair()
    gateway.unicast(1, "x")
    seq = gateway.filling_seq
    receive(shard, take(gateway))
    data = take(shard)
    assert numbers_of(data) == [(0, seq)]
    assert gateway.acked_seq == seq - 1
    receive(gateway, data)
    assert gateway.acked_seq == seq
    assert gateway.take() == []  # an acknowledgement is not acknowledged


def test_a_lazy_side_acknowledges_when_a_quarter_of_its_window_is_used() -> None:
    gateway, shard = open_pair()
    shard.unicast(1, bytes(WINDOW_BYTES // 4 - 1000))
    receive(gateway, take(shard))
    assert gateway.take() == []
    shard.unicast(1, bytes(2000))
    receive(gateway, take(shard))
    assert numbers_of(take(gateway)) == [(0, 3)]


def test_an_acknowledgement_rides_on_a_batch_that_goes_anyway() -> None:
    gateway, shard = open_pair()
    shard.unicast(1, "x")
    gateway.unicast(1, "y")
    receive(gateway, take(shard))
    assert numbers_of(take(gateway)) == [(2, 2)]


# --- goodbye -------------------------------------------------------------------------------------


def test_goodbye_comes_after_all_that_was_queued() -> None:
    gateway, shard = open_pair()
    gateway.unicast(1, "last words")
    gateway.goodbye("upgrade")
    assert gateway.state is LinkState.CLOSED
    data = take(gateway)
    assert numbers_of(data)[-1][0] == 0
    assert receive(shard, data) == [(1, "last words")]
    assert shard.farewell == "upgrade"


def test_goodbye_passes_a_full_window_and_drops_what_waits_for_credit() -> None:
    gateway, shard = open_pair()
    under_way = fill_window(gateway)
    gateway.unicast(1, "waits")
    gateway.goodbye("upgrade")
    got = receive(shard, under_way + take(gateway))
    assert (1, "waits") not in got
    assert shard.farewell == "upgrade"
    assert gateway.queued_bytes == 0


def test_goodbye_delivers_sealed_batches_that_have_credit() -> None:
    gateway, shard = open_pair()
    gateway.send([CLOSE, 1, None, "x" * BATCH_TARGET_BYTES], BATCH_TARGET_BYTES // 2)
    gateway.send([CLOSE, 2, None, ""], BATCH_TARGET_BYTES // 2)
    gateway.goodbye("upgrade")
    assert [message[1] for message in receive(shard, take(gateway))] == [1]


def test_goodbye_before_the_handshake_is_done_is_heard() -> None:
    session, peer = fresh(), fresh()
    session.goodbye("not today")
    assert receive(peer, take(session)) == []
    assert peer.farewell == "not today"
    assert peer.peer == session.local


def test_goodbye_is_all_that_a_peer_without_hello_may_say() -> None:
    session = fresh()
    assert receive(session, batch(0, 0, [GOODBYE, "go away"])) == []
    assert session.farewell == "go away"


def test_goodbye_in_the_middle_of_a_batch_acknowledges_the_batches_before_it_only() -> None:
    gateway, shard = open_pair()
    gateway.unicast(1, "handled")
    first = gateway.filling_seq
    one = take(gateway)
    gateway.unicast(1, "half handled")
    receive(shard, one + take(gateway))
    shard.goodbye("bug", handling=True)
    receive(gateway, take(shard))
    assert gateway.acked_seq == first


def test_after_goodbye_nothing_is_sent_nothing_is_received_and_nothing_piles_up() -> None:
    gateway, shard = open_pair()
    gateway.goodbye("one")
    gateway.take()
    gateway.goodbye("two")
    text = "same"
    gateway.multicast(1, text)
    gateway.multicast(2, text)
    gateway.urgent([PAUSE, [1]])
    assert gateway.take() == []
    for _ in range(10):
        gateway.unicast(1, bytes(BATCH_TARGET_BYTES))
    assert gateway.queued_bytes < 2 * BATCH_TARGET_BYTES
    assert not gateway.congested
    shard.unicast(1, "too late")
    assert receive(gateway, take(shard)) == []


def test_hello_reads_back_what_it_writes() -> None:
    one = hello(generations={1: 2, 1023: 2**40})
    fields = msgpack.unpackb(msgpack.packb(one.fields()), strict_map_key=False)
    assert Hello.read(fields) == one


def test_a_shards_acknowledgement_never_overtakes_what_its_objects_sent() -> None:
    """G7: who reads that a frame was handled has already read all that came of it."""
    from common.link.records import FRAMES

    shard, gateway = (
        LinkSession(hello(role, window_bytes=1000), lambda: None, prompt_acks=role == "shard")
        for role in ("shard", "gateway")
    )

    def pass_on(source: LinkSession, target: LinkSession) -> list[Any]:
        records: list[Any] = []
        for data in (b"".join(bytes(each) for each in source.take()),):
            for body, blobs in split(data) if data else ():
                records += target.receive(body, blobs)
        return records

    shard.greet()
    gateway.greet()
    pass_on(shard, gateway)
    pass_on(gateway, shard)
    pass_on(shard, gateway)
    gateway.unicast(1, "a frame")
    pass_on(gateway, shard)
    for number in range(5):  # more than there is credit for
        shard.unicast(1, str(number) * 600)
        if number < 4:
            shard._seal()
    heard = 0
    for _ in range(20):
        records = pass_on(shard, gateway)
        heard += sum(len(record[1]) for record in records if record[0] == FRAMES)
        if gateway.acked_seq == gateway._sent_seq:
            assert heard == 5
            break
        pass_on(gateway, shard)
    else:
        raise AssertionError("the frame was never acknowledged")


def test_a_lazy_side_acknowledges_before_tiny_messages_use_up_the_window() -> None:
    """Both sides count a message alike; else the sender waits for ever for credit."""
    woken: list[None] = []
    wake = partial(woken.append, None)
    shard = LinkSession(Hello("shard", 0, "s", 1 << 20, 1 << 26, {}), wake, prompt_acks=True)
    gateway = LinkSession(Hello("gateway", 0, "g", 1 << 20, 1 << 26, {}), wake, prompt_acks=False)
    shard.greet()
    gateway.greet()

    def carry(source: LinkSession, target: LinkSession) -> int:
        data = b"".join(bytes(part) for part in source.take())
        batches = 0
        while data:
            body, blobs = HEAD.unpack_from(data)
            end = HEAD_BYTES + body + blobs
            target.receive(memoryview(data)[HEAD_BYTES : HEAD_BYTES + body], memoryview(b""))
            data = data[end:]
            batches += 1
        return batches

    carry(shard, gateway)
    carry(gateway, shard)
    for _ in range(40):
        for _ in range(2000):
            shard.multicast(1, str(object()))
        carry(shard, gateway)
        carry(gateway, shard)
    while carry(shard, gateway) or carry(gateway, shard):
        pass
    assert shard.queued_bytes == 0
