"""Batches as bytes: what is written is read back, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.link.records import (
    BLOB_FRAME,
    BODY,
    CALL,
    CLOSE,
    FRAMES,
    GOODBYE,
    HELLO,
    LENGTHS,
    PAUSE,
    Record,
)
from common.link.wire import HEAD, HEAD_BYTES, decode, encode, encode_text
from tests.common.link.support import split

NUMBER = st.integers(0, 2**63)
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
CONTROL = st.sampled_from(sorted(set(LENGTHS) - {FRAMES, BLOB_FRAME, HELLO, GOODBYE})).flatmap(
    lambda kind: st.tuples(*[VALUE] * (LENGTHS[kind] - 1)).map(lambda rest: [kind, *rest])
)
RUN = st.lists(
    st.tuples(NUMBER | st.lists(NUMBER, max_size=3), st.text(max_size=9) | st.binary(max_size=9))
).map(lambda run: [FRAMES, [target for target, _ in run], [payload for _, payload in run]])
BLOBS = st.binary(max_size=40)


def written(seq: int, ack: int, records: list[Record], blobs: list[bytes]) -> bytes:
    return b"".join(encode(seq, ack, records, blobs))


def read(data: bytes) -> tuple[int, int, list[Record]]:
    (batch,) = split(data)
    return decode(*batch)


def refusal(body: bytes, blobs: bytes = b"") -> str:
    """The text with which a batch is refused: short and never empty."""
    with pytest.raises(ProtocolError) as caught:
        decode(body, memoryview(blobs))
    assert 10 < len(str(caught.value)) < 300
    return str(caught.value)


@given(seq=NUMBER, ack=NUMBER, records=st.lists(CONTROL | RUN | BLOBS, max_size=6))
def test_a_batch_is_read_back_as_it_was_written(
    seq: int, ack: int, records: list[Record | bytes]
) -> None:
    blobs = [record for record in records if isinstance(record, bytes)]
    sent: list[Record] = [
        [BLOB_FRAME, 1, len(r), False] if isinstance(r, bytes) else r for r in records
    ]
    expected: list[Record] = [
        [BLOB_FRAME, 1, r, False] if isinstance(r, bytes) else r for r in records
    ]
    assert read(written(seq, ack, sent, blobs)) == (seq, ack, expected)


def test_a_blob_is_neither_copied_when_written_nor_when_read() -> None:
    blob = b"x" * 100
    buffers = encode(1, 0, [[BLOB_FRAME, 7, 100, False]], [blob])
    assert buffers[1] is blob
    arrived = memoryview(bytearray(blob))
    body = bytes(buffers[0][HEAD_BYTES:])
    payload = decode(body, arrived)[2][0][2]
    assert payload.obj is arrived.obj


def test_blobs_belong_to_their_records_in_order() -> None:
    records: list[Record] = [
        [BLOB_FRAME, 1, 2, False],
        [BLOB_FRAME, [2, 3], 0, True],
        [BLOB_FRAME, 4, 3, False],
    ]
    _, _, got = read(written(1, 0, records, [b"ab", b"", b"cde"]))
    assert [bytes(record[2]) for record in got] == [b"ab", b"", b"cde"]


def test_the_head_tells_the_sizes_of_body_and_blobs() -> None:
    data = written(1, 0, [[BLOB_FRAME, 1, 3, False], [BLOB_FRAME, 1, 4, False]], [b"abc", b"defg"])
    body_bytes, blob_bytes = HEAD.unpack_from(data)
    assert blob_bytes == 7
    assert len(data) == HEAD_BYTES + body_bytes + blob_bytes


@pytest.mark.parametrize(
    ("text", "converted"),
    [
        ("plain", "plain"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),
        ("é\ud83d", "é\ufffd"),
    ],
)
def test_a_lone_surrogate_becomes_u_fffd_and_costs_no_other_message(
    text: str, converted: str
) -> None:
    """Web IDL, USVString: what a browser and Cloudflare do with such a text."""
    _, _, records = read(written(1, 0, [[FRAMES, [1, 2], [text, "é"]]], []))
    assert records == [[FRAMES, [1, 2], [converted, "é"]]]
    assert encode_text(text).decode() == converted


@pytest.mark.parametrize("value", [object(), 2**64, {1, 2}])
def test_what_msgpack_cannot_express_is_an_error_of_the_sender(value: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        encode(1, 0, [[CLOSE, 1, value, ""]], [])
    assert read(written(1, 0, [[PAUSE, [1]]], [])) == (1, 0, [[PAUSE, [1]]])  # and of no other


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not valid msgpack"),
        (b"\xc1", "not valid msgpack"),
        (b"\x93\x01", "not valid msgpack"),
        (msgpack.packb([1, 0]) + b"\x00", "not valid msgpack"),
        (b"\x93\x01\x00\x92\x18\xa1\xff", "not valid msgpack"),  # invalid UTF-8
        (b"\x93\x01\x00" + b"\x91" * 2000 + b"\x00", "not valid msgpack"),  # nested too deep
        (b"\x93\x01\x00\x81\x90\x00", "not valid msgpack"),  # a list as key
        (b"\xdd\xff\xff\xff\xff", "not valid msgpack"),  # claims 4 G items
        (msgpack.packb("text"), "sequence numbers"),
        (msgpack.packb({}), "sequence numbers"),
        (msgpack.packb([]), "sequence numbers"),
        (msgpack.packb([1]), "sequence numbers"),
        (msgpack.packb([True, 0]), "sequence numbers"),
        (msgpack.packb([1, 0.0]), "sequence numbers"),
        (msgpack.packb([-1, 0]), "sequence numbers"),
        (msgpack.packb([0, -1]), "sequence numbers"),
        (msgpack.packb([1, 0, None]), "not a list: None"),
        (msgpack.packb([1, 0, []]), r"not a list: []"),
        (msgpack.packb([1, 0, "FRAMES"]), "not a list"),
        (msgpack.packb([1, 0, {0: 1}]), "not a list"),
        (msgpack.packb([1, 0, {0: 0, 1: 1, 2: 2}]), "not a list"),
        (msgpack.packb([1, 0, [99, 1]]), "unknown kind: [99, 1]"),
        (msgpack.packb([1, 0, ["PAUSE", []]]), "unknown kind"),
        (msgpack.packb([1, 0, [[], []]]), "unknown kind"),
        (msgpack.packb([1, 0, [None, []]]), "unknown kind"),
        (msgpack.packb([1, 0, [CALL, 1]]), "has 2 items, not 5"),
        (msgpack.packb([1, 0, [BODY, 1, b"x" * 9999, 3]]), "has 4 items, not 3"),
        (msgpack.packb([1, 0, [FRAMES, [1], []]]), "columns differ"),
        (msgpack.packb([1, 0, [FRAMES, 1, 1]]), "columns differ"),
        (msgpack.packb([1, 0, [FRAMES, [1], {0: 1}]]), "columns differ"),
        (msgpack.packb([1, 0, [PAUSE, []], [HELLO, {}]]), "HELLO comes first"),
        (msgpack.packb([1, 0, [GOODBYE, ""], [PAUSE, []]]), "GOODBYE last"),
    ],
)
def test_a_malformed_body_is_refused_with_the_reason(body: bytes, text: str) -> None:
    assert text in refusal(body)


@pytest.mark.parametrize("length", [-1, 4, 2**40, "3", None, 3.0, True])
def test_a_blob_that_its_bytes_do_not_match_is_refused(length: object) -> None:
    refusal(msgpack.packb([1, 0, [BLOB_FRAME, 1, length, False]]), b"abc")


def test_bytes_behind_the_batch_that_belong_to_no_record_are_refused() -> None:
    assert "3 bytes" in refusal(msgpack.packb([1, 0, [PAUSE, []]]), b"abc")


VALID = written(
    3,
    2,
    [[FRAMES, [1, [2, 3]], ["text", b"bytes"]], [BLOB_FRAME, 1, 3, False], [CLOSE, 1, 1000, "x"]],
    [b"abc"],
)
BODY_BYTES, _ = HEAD.unpack_from(VALID)
VALID_BODY = VALID[HEAD_BYTES : HEAD_BYTES + BODY_BYTES]


def decoded_or_refused(body: bytes, blobs: bytes) -> None:
    """Whatever comes: records of the right shape, or ProtocolError and nothing else."""
    try:
        seq, ack, records = decode(body, memoryview(blobs))
    except ProtocolError:
        return
    assert seq >= 0
    assert ack >= 0
    for record in records:
        assert len(record) == LENGTHS[record[0]]
        if record[0] == FRAMES:
            assert len(record[1]) == len(record[2])
    assert sum(len(record[2]) for record in records if record[0] == BLOB_FRAME) == len(blobs)


@given(body=st.binary(max_size=60), blobs=st.binary(max_size=4))
@example(body=b"\x93\x00\x00\x92\xc3\x01", blobs=b"")  # kind True, which is 1
def test_random_bytes_are_decoded_or_refused(body: bytes, blobs: bytes) -> None:
    decoded_or_refused(body, blobs)


@given(value=st.lists(VALUE | st.integers(0, 33) | CONTROL, max_size=5), blobs=BLOBS)
def test_random_msgpack_is_decoded_or_refused(value: list[Any], blobs: bytes) -> None:
    decoded_or_refused(msgpack.packb(value), blobs)
    decoded_or_refused(msgpack.packb([1, 0, *value]), blobs)


@given(data=st.data())
def test_a_batch_with_some_bytes_changed_is_decoded_or_refused(data: st.DataObject) -> None:
    body = bytearray(VALID_BODY)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                body[at] = data.draw(st.integers(0, 255))
            case "cut" if len(body) > 1:
                del body[at]
            case _:
                body.insert(at, data.draw(st.integers(0, 255)))
    decoded_or_refused(bytes(body), b"abc")
