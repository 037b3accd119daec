from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketReader, WSMsgType
from hypothesis import given
from hypothesis import strategies as st

from gateway import deflate, frames
from gateway.frames import (
    BINARY,
    CLOSE,
    EVENTS_PER_FEED,
    LARGE_TEXT,
    LARGE_TEXT_BYTES,
    PING,
    PONG,
    TEXT,
    VIOLATION,
    Event,
    FrameParser,
    small_text,
)
from tests.gateway.support import close_frame, frame

LIMIT = 1 << 20


def parse(*chunks: bytes, limit: int = LIMIT) -> list[Event]:
    return feed(FrameParser(limit), *chunks)


def feed(parser: FrameParser, *chunks: bytes) -> list[Event]:
    events: list[Event] = []
    for chunk in chunks:
        events += parser.feed(chunk)
        while parser.has_backlog:
            events += parser.feed(b"")
    return events


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def violation(data: bytes, limit: int = LIMIT) -> tuple[int, str]:
    """The one violation in *data*, the same however it is cut up."""
    kind, value = parse(data, limit=limit)[-1]
    assert kind == VIOLATION
    assert parse(*byte_by_byte(data), limit=limit)[-1] == (kind, value)
    return value  # type: ignore[no-any-return]


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 8191, 8192, 65535, 65536, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_any_length(size: int, opcode: int) -> None:
    [(kind, value)] = parse(frame(b"x" * size, opcode))
    if opcode == BINARY:
        assert (kind, bytes(value)) == (BINARY, b"x" * size)
    elif size < LARGE_TEXT_BYTES:
        assert (kind, value) == (TEXT, "x" * size)
    else:
        assert (kind, bytes(value)) == (LARGE_TEXT, b"x" * size)


def test_small_text_reads_exactly_one_small_text_frame() -> None:
    assert small_text(frame("héllo")) == "héllo"
    assert small_text(frame("")) == ""
    assert small_text(frame("x" * 125)) == "x" * 125


@pytest.mark.parametrize(
    "chunk",
    [
        b"\x81",
        b"\x81\x80",
        frame("x")[:-1],
        frame("x") + b"\x81",
        frame("x") * 2,
        frame("x" * 126),
        frame(b"x", BINARY),
        frame("x", first=0x01),
        frame("x", first=0xC1),
        frame(b"\xff", TEXT),
        b"\x81\x01x",
        b"\x81\xfe" + bytes(130),
        b"\x81\xff" + bytes(131),
    ],
)
def test_small_text_leaves_everything_else_to_the_parser(chunk: bytes) -> None:
    assert small_text(chunk) is None


def test_fragments_with_a_ping_between() -> None:
    """§5.4: control frames may come between fragments; the ping is answered first."""
    data = frame(b"he", first=0x01) + frame(b"p", PING) + frame(b"", first=0x00) + frame(b"llo", 0)
    expected = [(PING, b"p"), (TEXT, "hello")]
    assert parse(data) == expected
    assert parse(*byte_by_byte(data)) == expected


def test_a_character_may_be_cut_by_fragments() -> None:
    raw = "é".encode()
    assert parse(frame(raw[:1], first=0x01) + frame(raw[1:], 0)) == [(TEXT, "é")]


def test_a_thousand_fragments() -> None:
    data = frame(b"x", first=0x02) + frame(b"x", first=0x00) * 998 + frame(b"x", 0)
    assert parse(data) == [(BINARY, b"x" * 1000)]


def test_control_frames() -> None:
    assert parse(frame(b"x" * 125, PING) + frame(b"", PONG)) == [(PING, b"x" * 125), (PONG, b"")]


def test_a_longer_length_form_than_needed_is_accepted() -> None:
    """Most servers do, though §5.2 wants the shortest."""
    assert parse(b"\x81\xfe\x00\x01\0\0\0\0x") == [(TEXT, "x")]


def test_a_mask_of_zero() -> None:
    assert parse(frame("x", key=bytes(4))) == [(TEXT, "x")]


# --- violations: spec/websocket.md §2 ---------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_unmasked_frames(opcode: int) -> None:
    """§5.1."""
    code, text = violation(bytes((0x80 | opcode, 2)) + b"\x03\xe8")
    assert (code, text) == (1002, "Received a frame that was not masked")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_unknown_opcodes(opcode: int) -> None:
    assert violation(frame(b"", opcode)) == (1002, f"Unknown opcode {opcode}")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame("x", first=0x81 | 0x20), "Received frame had RSV bits 2 or 3 set"),
        (frame("x", first=0x81 | 0x10), "Received frame had RSV bits 2 or 3 set"),
        (frame(b"", first=0x09), "Received fragmented control frame"),
        (frame(b"", first=0x08), "Received fragmented control frame"),
        (frame(b"x" * 126, PING), "Received control frame with more than 125 bytes"),
        (frame(b"x" * 70000, PONG), "Received control frame with more than 125 bytes"),
        (frame(b"\x03\xe8" + b"x" * 124, CLOSE), "Received control frame with more than 125 bytes"),
        (frame(b"x", 0), "Unexpected continuation frame"),
        (frame("x") + frame(b"x", 0), "Unexpected continuation frame"),
        (frame(b"x", first=0x01) + frame("x"), "Missing continuation frame"),
        (frame(b"x", first=0x02) + frame(b"x", BINARY), "Missing continuation frame"),
        (b"\x81\xff\x80" + bytes(7), "Received a frame length with its top bit set"),
        (b"GET / HTTP/1.1\r\n\r\n", "Received a WebSocket frame whose compression bit was set, but "
         "the compression extension was not negotiated for this connection."),
    ],
)  # fmt: skip
def test_protocol_errors(data: bytes, text: str) -> None:
    assert violation(data) == (1002, text)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_the_compression_bit_without_compression(opcode: int) -> None:
    code, text = violation(frame(b"x", first=0xC0 | opcode))
    assert code == 1002
    assert text.endswith("but the compression extension was not negotiated for this connection.")


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80"]
)
@pytest.mark.parametrize("padding", [0, LARGE_TEXT_BYTES])
def test_text_that_is_not_utf8(raw: bytes, padding: int) -> None:
    """§8.1."""
    assert violation(frame(b"x" * padding + raw, TEXT))[0] == 1007


def test_bad_utf8_in_a_fragment_fails_before_the_message_ends() -> None:
    assert parse(frame(b"ab\xff", first=0x01)) == [
        (VIOLATION, (1007, "Text message is not valid UTF-8"))
    ]


def test_a_message_that_is_too_large_is_refused_by_its_header() -> None:
    head = frame(b"x" * (LIMIT + 1), BINARY)[:10]
    assert violation(head) == (1009, f"Message is too large: {LIMIT + 1} > {LIMIT}")


def test_fragments_that_are_too_large_together() -> None:
    first = frame(b"x" * 60, first=0x02)
    head = frame(b"x" * 41, 0)[:2]
    assert violation(first + head, limit=100) == (1009, "Message is too large: 101 > 100")
    assert parse(first + frame(b"x" * 40, 0), limit=100) == [(BINARY, b"x" * 100)]


def test_a_control_frame_may_be_larger_than_the_limit_of_messages() -> None:
    assert parse(frame(b"x" * 125, PING), limit=1) == [(PING, b"x" * 125)]


# --- Close: spec/websocket.md §3 --------------------------------------------------------------

VALID = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", VALID)
def test_valid_close_codes(code: int) -> None:
    assert parse(close_frame(code, "bye")) == [(CLOSE, (code, "bye"))]
    assert frames.is_sendable(code)


@pytest.mark.parametrize("code", INVALID)
def test_invalid_close_codes(code: int) -> None:
    """§7.4.1, §7.4.2."""
    assert violation(close_frame(code))[0] == 1002
    assert not frames.is_sendable(code)


def test_an_empty_close() -> None:
    """§7.1.5: it counts as 1005."""
    assert parse(close_frame()) == [(CLOSE, (1005, ""))]


def test_a_close_with_half_a_code() -> None:
    assert violation(frame(b"\x03", CLOSE))[0] == 1002


def test_a_reason_that_is_not_utf8() -> None:
    assert violation(frame(b"\x03\xe8\xff", CLOSE))[0] == 1007


def test_what_comes_after_a_close_is_ignored() -> None:
    data = close_frame(1000) + frame("x") + frame(b"", PING) + close_frame(1001) + b"\xff\xff"
    assert parse(data) == [(CLOSE, (1000, ""))]
    assert parse(*byte_by_byte(data)) == [(CLOSE, (1000, ""))]


def test_a_close_within_a_fragmented_message() -> None:
    assert parse(frame(b"x", first=0x01) + close_frame(1000)) == [(CLOSE, (1000, ""))]


def test_what_comes_before_a_violation_is_kept() -> None:
    assert parse(frame("good") + frame(b"", 3))[0] == (TEXT, "good")


# --- properties -------------------------------------------------------------------------------

payloads = st.one_of(st.text(max_size=200), st.binary(max_size=200))
messages = st.lists(st.one_of(payloads, st.just("x" * 9000), st.just(b"y" * 70000)), max_size=6)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What a client may send: messages, fragmented or not, control frames, and some rubbish."""
    data = b""
    for payload in draw(messages):
        raw = payload.encode() if isinstance(payload, str) else payload
        opcode = TEXT if isinstance(payload, str) else BINARY
        cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
        pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        for index, piece in enumerate(pieces):
            last = 0x80 if index == len(pieces) - 1 else 0
            key = draw(st.binary(min_size=4, max_size=4))
            data += frame(piece, first=last | (opcode if index == 0 else 0), key=key)
            if draw(st.integers(0, 5)) == 0:
                data += frame(draw(st.binary(max_size=125)), draw(st.sampled_from([PING, PONG])))
    end = draw(st.sampled_from(["", "close", "rubbish"]))
    if end == "close":
        data += close_frame(draw(st.sampled_from(VALID + INVALID)), "why")
    elif end == "rubbish":
        data += draw(st.binary(max_size=40))
    return data


def normal(events: list[Event]) -> list[tuple[int, Any]]:
    return [(k, bytes(v) if isinstance(v, bytearray) else v) for k, v in events]


@given(streams(), st.data())
def test_any_way_of_cutting_gives_the_same_events(data: bytes, draw: st.DataObject) -> None:
    whole = normal(parse(data))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    assert normal(parse(*pieces)) == whole


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    parse(data)
    parse(*byte_by_byte(data))


class Queue(WebSocketDataQueue):
    """Keeps what aiohttp's reader finds."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def feed_data(self, data: Any, size: Any = 0) -> None:
        self.found.append(data)


@given(messages)
async def test_aiohttps_reader_finds_the_same_messages(sent: list[str | bytes]) -> None:
    """A second opinion, on what we parse and on what we encode."""
    data = b"".join(frame(m, TEXT if isinstance(m, str) else BINARY) for m in sent)
    ours = [bytes(v).decode() if k == LARGE_TEXT else v for k, v in parse(data)]
    assert [bytes(m) if isinstance(m, bytearray) else m for m in ours] == sent
    loop = asyncio.get_running_loop()
    for stream in (data, b"".join(frames.encode_message(message) for message in sent)):
        queue = Queue()
        queue._loop = loop
        WebSocketReader(queue, 1 << 24, False, True).feed_data(stream)
        assert [message.data for message in queue.found] == sent
        kinds = [WSMsgType.TEXT if isinstance(m, str) else WSMsgType.BINARY for m in sent]
        assert [message.type for message in queue.found] == kinds


# --- encoding ---------------------------------------------------------------------------------


def test_encoding_takes_the_shortest_length() -> None:
    assert frames.encode_message("x" * 125)[:2] == b"\x81\x7d"
    assert frames.encode_message("x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert frames.encode_message(b"x" * 65535)[:4] == b"\x82\x7e\xff\xff"
    assert frames.encode_message(b"x" * 65536)[:10] == b"\x82\x7f" + (65536).to_bytes(8, "big")
    assert frames.encode_raw_text(memoryview(b"x" * 126)) == frames.encode_message("x" * 126)
    assert frames.encode_message(memoryview(b"abc")) == b"\x82\x03abc"


def test_lone_surrogates_are_replaced() -> None:
    """§8.1; a browser's send() does the same."""
    assert frames.encode_message("\ud800x") == b"\x81\x04\xef\xbf\xbdx"


def test_encoding_a_close() -> None:
    assert frames.encode_close(None) == b"\x88\x00"
    assert frames.encode_close(1005) == b"\x88\x00"
    assert frames.encode_close(1000, "bye") == b"\x88\x05\x03\xe8bye"
    long = frames.encode_close(1000, "é" * 100)
    assert len(long) == 2 + 2 + 122  # 123 would cut a character
    long[4:].decode()


def test_one_call_reads_a_bounded_number_of_frames() -> None:
    parser = FrameParser(LIMIT)
    data = frame("") * (EVENTS_PER_FEED + 3)
    assert len(parser.feed(data + frame("last")[:5])) == EVENTS_PER_FEED
    assert parser.has_backlog
    assert not parser.is_idle
    assert len(parser.feed(frame("last")[5:])) == 4
    assert not parser.has_backlog
    assert parser.is_idle


# --- cost -------------------------------------------------------------------------------------


def test_memory_grows_with_what_has_come_not_with_what_is_claimed() -> None:
    parser = FrameParser(1 << 30)
    tracemalloc.start()
    parser.feed(b"\x82\xff" + (1 << 29).to_bytes(8, "big") + b"\0\0\0\0")
    for _ in range(50_000):
        parser.feed(b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


# --- compression ------------------------------------------------------------------------------


def compressed(payload: bytes, opcode: int = TEXT) -> bytes:
    return frame(deflate.Deflater()(payload), first=0xC0 | opcode)


def inflating(*chunks: bytes, limit: int = LIMIT) -> list[Event]:
    return feed(FrameParser(limit, deflate.inflate), *chunks)


def test_compressed_messages() -> None:
    assert inflating(compressed(b"hello") + frame("plain")) == [(TEXT, "hello"), (TEXT, "plain")]
    raw = deflate.Deflater()(b"hello" * 9)
    data = frame(raw[:4], first=0x42) + frame(b"", PING) + frame(raw[4:], 0)
    assert inflating(data) == [(PING, b""), (BINARY, b"hello" * 9)]


def test_a_compressed_message_that_inflates_past_the_limit() -> None:
    assert inflating(compressed(b"x" * 1000), limit=1000) == [(TEXT, "x" * 1000)]
    [(kind, (code, _))] = inflating(compressed(b"x" * 1001), limit=1000)
    assert (kind, code) == (VIOLATION, 1009)


def test_corrupt_compressed_data() -> None:
    assert inflating(frame(b"\xff\xff\xff", first=0xC1))[0] == (
        VIOLATION,
        (1007, "Invalid compressed data"),
    )


def test_the_compression_bit_on_a_continuation_or_a_control_frame() -> None:
    assert inflating(frame(b"x", first=0x41) + frame(b"x", first=0xC0))[0][1][0] == 1002
    assert inflating(frame(b"x", first=0xC9))[0][1][0] == 1002


def test_compressed_fragments_are_not_judged_as_utf8_before_they_are_inflated() -> None:
    raw = deflate.Deflater()("é".encode() * 50)
    assert inflating(frame(raw[:5], first=0x41) + frame(raw[5:], 0)) == [(TEXT, "é" * 50)]
