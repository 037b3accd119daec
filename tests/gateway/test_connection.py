"""WebSockets as a client and an object meet them: spec/websocket.md §2 to §4."""

from __future__ import annotations

from typing import Any

import pytest

from common.close_reasons import LOST_TEXT, RESTARTED_TEXT
from common.link.records import CLOSE, CLOSED, FRAMES, PAUSE, RESUME
from gateway.frames import BINARY, PING, PONG
from tests.gateway.support import (
    CLOSE_REASON,
    RawClient,
    World,
    close_frame,
    cut_links,
    frame,
    handshake,
    server_close,
    server_text,
    settle,
    world,
)

COUNT_1 = server_text("[Durable Object] currentlyConnectedWebSockets: 1")
LOST = [1006, LOST_TEXT, False]


async def one_closed(w: World) -> list[Any]:
    """What the object was told, which must be exactly one thing."""
    await w.shard.next_of(CLOSED)
    await settle()
    [record] = w.shard.of_kind(CLOSED)
    assert record[1] in w.shard.sockets
    return record[2:]


def connection_id(w: World) -> int:
    [number] = w.shard.sockets
    return number


# --- messages ----------------------------------------------------------------------------------


async def test_messages_reach_the_object_in_order_and_as_they_are() -> None:
    sent: list[str | bytes] = [
        "",
        b"",
        "hello",
        b"\0\xff",
        "é" * 100,
        "x" * 125,
        "x" * 126,
        b"y" * 5000,
        "x" * 8191,
        "é" * 8192,
        b"z" * 65536,
        "w" * 1_000_000,
        "last",
    ]
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        client = await w.upgraded()
        for message in sent:
            client.send(frame(message))
        await w.shard.until(lambda: len(w.shard.messages()) == len(sent))
        assert w.shard.messages() == sent


@pytest.mark.parametrize("chunk", [1, 7, 1000, 70_000])
async def test_messages_however_they_are_cut(chunk: int) -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        client = await w.upgraded()
        sent: list[str | bytes] = ["a", "b" * 300, b"c" * 20_000, "d"]
        data = b"".join(frame(message) for message in sent)
        for at in range(0, len(data), chunk):
            client.send(data[at : at + chunk])
            await settle(2)
        await w.shard.until(lambda: w.shard.messages() == sent)


async def test_a_hundred_messages_in_one_write() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("x") * 100)
        await client.expect(COUNT_1 * 100)


async def test_what_an_object_sends() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("x"))
        await client.expect(COUNT_1)
        assert w.shard.link is not None
        for message in ("é", b"\0", "x" * 70_000, b"y" * 70_000):
            w.shard.link.unicast(connection_id(w), message)
        w.shard.link.session.blob(connection_id(w), b"z" * 9000, True)
        await client.expect(b"\x81\x02\xc3\xa9" + b"\x82\x01\0")
        size = (70_000).to_bytes(8, "big")
        await client.expect(b"\x81\x7f" + size + b"x" * 70_000)
        await client.expect(b"\x82\x7f" + size + b"y" * 70_000)
        await client.expect(b"\x81\x7e" + (9000).to_bytes(2, "big") + b"z" * 9000)


# --- ping and pong -----------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"text", b"\0\xff", b"x" * 125])
async def test_pings_are_answered_at_the_gateway(payload: bytes) -> None:
    """§5.5.3."""
    async with world() as w:
        client = await w.upgraded()
        client.send(frame(payload, PING))
        await client.expect(bytes((0x8A, len(payload))) + payload)
        assert not w.shard.of_kind(FRAMES)


async def test_pongs_are_ignored() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame(b"x", PONG) + frame("hello"))
        await client.expect(COUNT_1)


async def test_many_pings_in_one_write() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame(b"x" * 100, PING) * 500)
        await client.expect((b"\x8a\x64" + b"x" * 100) * 500)


# --- closing: the table ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "going"])
async def test_the_client_closes(code: int, reason: str) -> None:
    """The object's answer reaches the client, then TCP ends at once; the object was told before."""
    async with world() as w:
        client = await w.upgraded()
        client.send(close_frame(code, reason))
        await client.expect(server_close(code, CLOSE_REASON))
        assert client.ended or await client.read_all() == b""
        assert w.shard.count == 0
        assert await one_closed(w) == [code, reason, True]


async def test_an_empty_close_is_answered_with_an_empty_close() -> None:
    """§5.5.1; the object sees 1005."""
    async with world() as w:
        client = await w.upgraded()
        client.send(close_frame())
        assert await client.read_all() == server_close()
        assert await one_closed(w) == [1005, "", True]


async def test_what_comes_behind_a_close_is_ignored() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(close_frame(1000) + frame("x") + frame(b"", PING) + close_frame(1001) + b"\xff")
        assert await client.read_all() == server_close(1000, CLOSE_REASON)
        assert await one_closed(w) == [1000, "", True]
        assert w.shard.messages() == []


async def test_messages_before_a_close_are_answered_before_it() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("x") * 10 + close_frame(1000))
        assert await client.read_all() == COUNT_1 * 10 + server_close(1000, CLOSE_REASON)


async def test_the_object_sends_and_closes_in_answer_to_a_close() -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(close_frame(1000))
        await one_closed(w)
        assert w.shard.link is not None
        w.shard.link.unicast(connection_id(w), "bye")
        w.shard.send([CLOSE, connection_id(w), 4000, "why"])
        assert await client.read_all() == server_text("bye") + server_close(4000, "why")


async def test_an_object_that_does_not_answer_a_close() -> None:
    """After CLOSE_TIMEOUT_S the gateway answers with the client's own code."""
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(close_frame(4001, "bye"))
        await one_closed(w)
        await w.pass_time(4.5)
        assert not client.received
        await w.pass_time(1)
        assert await client.read_all() == server_close(4001)
        assert await one_closed(w) == [4001, "bye", True]
        w.shard.send([CLOSE, connection_id(w), 1000, "too late"])
        await settle()


async def test_the_object_closes() -> None:
    """Its Close goes out, the client's answer is told to it, TCP ends."""
    async with world() as w:
        client = await w.upgraded()
        await settle()
        w.shard.answers_close = False
        w.shard.send([CLOSE, connection_id(w), 4000, "enough"])
        await client.expect(server_close(4000, "enough"))
        await settle()
        assert not client.ended
        client.send(frame("still talking"))  # delivered until its Close
        client.send(close_frame(4000))
        assert await client.read_all() == b""
        assert await one_closed(w) == [4000, "", True]
        assert w.shard.messages() == ["still talking"]


@pytest.mark.parametrize("code", [None, 1005])
async def test_the_object_closes_without_a_code(code: int | None) -> None:
    async with world() as w:
        client = await w.upgraded()
        w.shard.send([CLOSE, connection_id(w), code, ""])
        await client.expect(server_close())


async def test_nothing_goes_out_behind_the_objects_close() -> None:
    """§5.5.1: also not what is in the same batch."""
    async with world() as w:
        client = await w.upgraded()
        assert w.shard.link is not None
        w.shard.link.unicast(connection_id(w), "before")
        w.shard.send([CLOSE, connection_id(w), 1000, ""])
        w.shard.link.unicast(connection_id(w), "behind")
        await settle()
        w.shard.link.unicast(connection_id(w), "later")
        w.shard.send([CLOSE, connection_id(w), 1001, "again"])
        client.send(frame(b"p", PING))
        await settle()
        assert bytes(client.received) == server_text("before") + server_close(1000)


async def test_a_client_that_does_not_answer_the_objects_close() -> None:
    async with world() as w:
        client = await w.upgraded()
        w.shard.send([CLOSE, connection_id(w), 1000, ""])
        await client.expect(server_close(1000))
        await w.pass_time(4.5)
        assert not client.ended
        await w.pass_time(1)
        assert client.lost
        assert await one_closed(w) == LOST


@pytest.mark.parametrize("code", [1006, 999, 5000])
async def test_a_code_that_cannot_be_sent_just_ends(code: int) -> None:
    async with world() as w:
        client = await w.upgraded()
        w.shard.answers_close = False
        w.shard.send([CLOSE, connection_id(w), code, ""])
        assert await client.read_all() == b""
        assert await one_closed(w) == LOST


# --- violations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"\x81\x01x", 1002, "Received a frame that was not masked"),
        (b"\x88\x02\x03\xe8", 1002, "Received a frame that was not masked"),
        (frame(b"", 3), 1002, "Unknown opcode 3"),
        (frame(b"x", 0), 1002, "Unexpected continuation frame"),
        (frame(b"\xff", 1), 1007, "Text message is not valid UTF-8"),
        (close_frame(1006), 1002, "Received the close code 1006, which is invalid"),
        (frame(b"\3", 8), 1002, "Received a Close frame with half a status code"),
        (frame(b"\3\xe8\xff", 8), 1007, "Close reason is not valid UTF-8"),
        (b"\x82\xff" + (33554433).to_bytes(8, "big"), 1009,
         "Message is too large: 33554433 > 33554432"),
    ],
)  # fmt: skip
async def test_violations(data: bytes, code: int, text: str) -> None:
    """Close, end of stream at once; the object is told 1006, not clean (§7.1.7)."""
    async with world() as w:
        client = await w.upgraded()
        client.send(data)
        assert await client.read_all() == server_close(code, text)
        assert await one_closed(w) == [1006, text, False]
        assert w.shard.count == 0
        client.transport.close()
        await settle()
        assert client.lost


BAD = frame(b"", 3)
CLOSE_BAD = server_close(1002, "Unknown opcode 3")


async def test_good_messages_before_a_violation_are_answered_first() -> None:
    """§2; what comes behind it is ignored."""
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("good") * 3 + BAD + frame("too late") + close_frame(1000))
        assert await client.read_all() == COUNT_1 * 3 + CLOSE_BAD
        assert w.shard.messages() == ["good"] * 3
        assert await one_closed(w) == [1006, "Unknown opcode 3", False]


async def test_a_violation_and_the_end_of_the_stream() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("good") * 3 + BAD)
        client.transport.write_eof()
        assert await client.read_all() == COUNT_1 * 3 + CLOSE_BAD
        await settle()
        assert w.gateway.context.open_connections == 0


async def test_a_violation_while_the_object_is_silent() -> None:
    """Its answers are waited for, but not for ever; what comes in the meantime is not read."""
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(frame("good") + BAD)
        client.send(frame("too late"))
        assert await one_closed(w) == [1006, "Unknown opcode 3", False]
        await client.expect(COUNT_1)
        await w.pass_time(4.5)
        assert not client.received
        await w.pass_time(1)
        assert await client.read_all() == CLOSE_BAD
        assert w.shard.messages() == ["good"]


@pytest.mark.parametrize("code", [1000, None])
async def test_a_violation_crosses_the_objects_close(code: int | None) -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(frame("good") + BAD)
        await one_closed(w)
        w.shard.send([CLOSE, connection_id(w), code, ""])
        assert await client.read_all() == COUNT_1 + CLOSE_BAD


@pytest.mark.parametrize("last", [b"", BAD])
async def test_the_shard_goes_while_answers_are_waited_for(last: bytes) -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(frame("good") + last)
        client.transport.write_eof()
        await one_closed(w)
        cut_links(w)
        expected = CLOSE_BAD if last else server_close(1012, RESTARTED_TEXT)
        assert await client.read_all() == COUNT_1 + expected


@pytest.mark.parametrize("last", [b"", BAD])
async def test_a_client_that_is_gone_while_answers_are_waited_for(last: bytes) -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(frame("good") + last)
        client.transport.write_eof()
        await w.shard.next_of(CLOSED)
        client.transport.abort()
        await settle()
        w.assert_nothing_left()


async def test_a_client_that_goes_on_sending_after_a_violation_reads_our_close() -> None:
    """What it sends is discarded, for CLOSE_TIMEOUT_S at most."""
    async with world() as w:
        client = await w.upgraded()
        client.send(b"\x82\xff" + (33554433).to_bytes(8, "big"))
        for _ in range(20):
            client.send(b"x" * 60_000)
            await settle(3)
        assert (await client.read_all()).startswith(b"\x88")
        assert not client.lost
        await w.pass_time(6)
        assert client.lost


# --- clients that vanish -----------------------------------------------------------------------


async def go_with_eof(client: RawClient) -> None:
    client.transport.write_eof()


async def go_with_rst(client: RawClient) -> None:
    client.transport.abort()


async def go_in_a_frame(client: RawClient) -> None:
    client.send(frame("hello")[:7])
    client.transport.write_eof()


@pytest.mark.parametrize("way", [go_with_eof, go_with_rst, go_in_a_frame])
async def test_ways_to_go(way: Any) -> None:
    async with world() as w:
        client = await w.upgraded()
        await settle()
        await way(client)
        assert await client.read_all() == b""
        assert await one_closed(w) == LOST


async def test_messages_then_the_end() -> None:
    """§2: the object gets them all, and then the end; the client gets all answers, then EOF."""
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("x") * 10)
        client.transport.write_eof()
        assert await one_closed(w) == LOST
        assert len(w.shard.messages()) == 10
        assert await client.read_all() == COUNT_1 * 10


async def test_messages_then_the_end_while_the_object_is_silent() -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(frame("x"))
        client.transport.write_eof()
        assert await one_closed(w) == LOST
        assert w.shard.link is not None
        await w.pass_time(4.5)
        w.shard.link.unicast(connection_id(w), "at last")
        await client.expect(COUNT_1 + server_text("at last"))
        assert not client.ended
        await w.pass_time(1)
        assert await client.read_all() == b""
        assert await one_closed(w) == LOST


async def test_messages_a_close_and_the_end() -> None:
    """It waits for our Close (§5.5.1), though it cannot say anything more."""
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("x") * 3 + close_frame(1000))
        client.transport.write_eof()
        assert await client.read_all() == COUNT_1 * 3 + server_close(1000, CLOSE_REASON)
        assert await one_closed(w) == [1000, "", True]


async def test_a_close_then_gone() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(close_frame(1000))
        await settle(2)
        client.transport.abort()
        assert await one_closed(w) == [1000, "", True]


async def test_gone_before_the_101_is_read() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake())
        await w.shard.until(lambda: w.shard.count == 1)
        client.transport.abort()
        await w.shard.until(lambda: w.shard.count == 0)


# --- keepalive ---------------------------------------------------------------------------------


async def test_a_silent_client_is_pinged_and_lives_if_it_says_anything() -> None:
    async with world() as w:
        client = await w.upgraded()
        for _ in range(3):
            await w.pass_time(19)
            assert not client.received
            await w.pass_time(2)
            await client.expect(b"\x89\x00")
            await w.pass_time(15)
            client.send(frame(b"", PONG))
            await settle()
        assert not client.ended


async def test_a_vanished_client_is_dropped() -> None:
    async with world() as w:
        client = await w.upgraded()
        await w.pass_time(41)
        assert client.lost
        assert await one_closed(w) == LOST


async def test_a_talking_client_is_never_pinged() -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        client = await w.upgraded()
        for _ in range(20):
            await w.pass_time(10)
            client.send(frame("x"))
            await settle()
        assert not client.received


async def test_keepalive_off() -> None:
    async with world(ping_interval_s=0.0) as w:
        client = await w.upgraded()
        await w.pass_time(100)
        assert not client.received
        assert not client.ended


async def test_a_paused_client_is_not_taken_for_silent() -> None:
    """We cannot hear whom we do not listen to."""
    async with world() as w:
        client = await w.upgraded()
        await settle()
        w.shard.urgent([PAUSE, [connection_id(w), 999]])
        await settle()
        client.send(frame("x"))
        await w.pass_time(200)
        assert not client.ended
        assert not w.shard.messages()
        w.shard.urgent([RESUME, [connection_id(w)]])
        await client.expect(COUNT_1)


# --- slow clients ------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_closed_with_1013() -> None:
    """G6: at most CONNECTION_BUFFER_BYTES wait for it."""
    async with world(connection_buffer_bytes=100_000) as w:
        client = await w.upgraded()
        await settle()
        client.transport.stall()
        assert w.shard.link is not None
        number = connection_id(w)
        for _ in range(30):
            w.shard.link.unicast(number, b"x" * 7000)
            await settle(6)
        assert await one_closed(w) == [1006, "The client reads too slowly", False]
        assert client.transport.get_write_buffer_size() == 0
        client.transport.resume()
        data = await client.read_all()
        assert len(data) < 120_000
        assert data.endswith(server_close(1013, "The client reads too slowly"))


async def test_a_message_larger_than_the_buffer_reaches_a_client_that_reads() -> None:
    async with world(connection_buffer_bytes=100_000) as w:
        client = await w.upgraded()
        await settle()
        assert w.shard.link is not None
        for _ in range(3):
            w.shard.link.unicast(connection_id(w), b"x" * 500_000)
            await client.read(500_010)
        client.send(frame("x"))
        await client.expect(COUNT_1)


async def test_a_client_that_pings_and_never_reads() -> None:
    async with world(connection_buffer_bytes=100_000) as w:
        client = await w.upgraded()
        client.transport.stall()
        for _ in range(40):
            client.send(frame(b"x" * 125, PING) * 100)
            await settle(5)
        assert (await one_closed(w))[1] == "The client reads too slowly"
        await w.pass_time(6)
        assert client.lost


async def test_a_closed_client_that_does_not_read_is_cut_off() -> None:
    async with world() as w:
        client = await w.upgraded()
        await settle()
        client.transport.stall()
        assert w.shard.link is not None
        w.shard.link.unicast(connection_id(w), b"x" * 300_000)
        client.send(close_frame(1000))
        await one_closed(w)
        await settle()
        await w.pass_time(6)
        assert w.gateway.context.open_connections == 0


# --- compression -------------------------------------------------------------------------------


async def test_compression() -> None:
    import zlib

    async with world(compression=True, compression_min_bytes=100) as w:
        client = w.connect()
        client.send(handshake("/websocket", "Sec-WebSocket-Extensions: permessage-deflate"))
        response = await client.read_response()
        assert response.status == 101
        extensions = response.header("Sec-WebSocket-Extensions")
        assert extensions is not None
        assert extensions.startswith("permessage-deflate")
        plain = await w.upgraded()
        await w.shard.until(lambda: len(w.shard.sockets) == 2)
        assert w.shard.link is not None
        text = "hello " * 100
        for number in w.shard.sockets:
            w.shard.link.multicast(number, text)
            w.shard.link.unicast(number, "short")
        await plain.expect(b"\x81\x7e\x02\x58" + text.encode() + server_text("short"))
        head = await client.read(2)
        assert head[0] == 0xC1
        data = await client.read(head[1])
        inflated = zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff")
        assert inflated == text.encode()
        await client.expect(server_text("short"))


async def test_compression_is_off_by_default() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake("/websocket", "Sec-WebSocket-Extensions: permessage-deflate"))
        assert (await client.read_response()).header("Sec-WebSocket-Extensions") is None


async def test_the_app_may_say_no_to_compression() -> None:
    async with world(compression=True) as w:
        w.shard.on_request = lambda record: (
            w.shard.accept(record[1], [["Sec-WebSocket-Extensions", ""]]),
            None,
        )[1]
        client = w.connect()
        client.send(handshake("/websocket", "Sec-WebSocket-Extensions: permessage-deflate"))
        assert (await client.read_response()).header("Sec-WebSocket-Extensions") is None
        client.send(frame(b"x", first=0xC1))
        assert (await client.read_all()).startswith(b"\x88")


async def test_binary_is_kept_apart_from_text() -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        client = await w.upgraded()
        client.send(frame("ab", first=0x01) + frame("c", first=0x80) + frame(b"abc", BINARY))
        await w.shard.until(lambda: len(w.shard.messages()) == 2)
        assert w.shard.messages() == ["abc", b"abc"]
