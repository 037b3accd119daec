"""HTTP as a client meets it: spec/websocket.md §1, byte by byte where it matters."""

from __future__ import annotations

import asyncio

import pytest

from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    BODY_NONE,
    BODY_STREAM,
    BODY_WHOLE,
    CANCEL,
    FAILED,
    REQUEST,
    Record,
)
from tests.gateway.support import (
    ACCEPT,
    KEY,
    SWITCH,
    FakeShard,
    World,
    close_frame,
    frame,
    handshake,
    server_text,
    settle,
    world,
)

HOST = b"Host: localhost\r\n"
COUNT_1 = server_text("[Durable Object] currentlyConnectedWebSockets: 1")


def request(method: str = "GET", path: str = "/", *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def keep(shard: FakeShard) -> list[Record]:
    """Requests are kept, not answered."""
    kept: list[Record] = []
    shard.on_request = kept.append
    return kept


# --- the reference program ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_the_root(method: str) -> None:
    async with world() as w:
        client = w.connect()
        for _ in range(2):  # kept alive
            client.send(request(method))
            await client.expect(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n"
                b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n"
            )


async def test_options_star() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("OPTIONS", "*"))
        assert (await client.read_response()).status == 400


async def test_head_of_the_root() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("HEAD"))
        response = await client.read_response(has_body=False)
        assert response.status == 400
        assert response.header("Content-Length") is None


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_websocket_without_upgrade(method: str) -> None:
    async with world() as w:
        client = w.connect()
        for _ in range(2):
            client.send(request(method, "/websocket"))
            response = await client.read_response(has_body=method != "HEAD")
            assert response.status_line == "HTTP/1.1 426 Upgrade Required"
            assert response.header("Upgrade") == "websocket"
            assert response.header("Connection") == "Upgrade"
            assert response.header("Content-Type") == "text/plain;charset=UTF-8"
            assert response.header("Content-Length") == "42"
            if method != "HEAD":
                assert response.body == b"Durable Object expected Upgrade: websocket"


async def test_a_good_handshake_and_frames_in_the_same_packet() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake() + frame("hello") + close_frame(1000))
        await client.expect(SWITCH + COUNT_1)
        assert (await client.read_all())[:4] == b"\x88\x25\x03\xe8"


async def test_half_a_frame_in_the_same_packet() -> None:
    async with world() as w:
        client = w.connect()
        data = frame("hello")
        client.send(handshake() + data[:5])
        await client.expect(SWITCH)
        client.send(data[5:])
        await client.expect(COUNT_1)


async def test_a_handshake_byte_by_byte() -> None:
    async with world() as w:
        client = w.connect()
        for byte in handshake():
            client.send(bytes((byte,)))
            await settle(3)
        await client.expect(SWITCH)


async def test_an_upgrade_to_another_path_and_then_a_good_one() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake("/other"))
        assert (await client.read_response()).status == 400
        client.send(handshake())
        await client.expect(SWITCH)


@pytest.mark.parametrize("upgrade", ["WebSocket", "websocket, h2c"])
async def test_the_app_sees_upgrade_as_it_came(upgrade: str) -> None:
    """A handshake for the gateway; the reference program compares with ``===`` and says 426."""
    async with world() as w:
        client = w.connect()
        client.send(handshake(Upgrade=upgrade) + request())
        assert (await client.read_response()).status == 426
        assert (await client.read_response()).status == 400
        head = w.shard.of_kind(REQUEST)[0][3]
        assert head[3] is True
        assert ["Upgrade", upgrade] in head[2]


async def test_h2c_is_plain_http() -> None:
    """What curl sends with --http2; the bytes behind it are not lost."""
    async with world() as w:
        client = w.connect()
        client.send(request("GET", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") * 2)
        assert (await client.read_response()).status == 400
        assert (await client.read_response()).status == 400
        assert w.shard.of_kind(REQUEST)[0][3][3] is False


async def test_pipelining() -> None:
    """Answers come in order, and an upgrade may come last."""
    async with world() as w:
        client = w.connect()
        body = request("POST", "/", "Content-Length: 3", body=b"abc")
        chunked = request("POST", "/", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n")
        client.send(request() * 50 + body + chunked + handshake() + frame("x"))
        for _ in range(52):
            assert (await client.read_response()).status == 400
        await client.expect(SWITCH + COUNT_1)


async def test_pipelined_requests_wait_for_the_one_before() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("GET", "/1") + request("GET", "/2"))
        await w.shard.until(lambda: len(kept) == 1)
        await settle()
        assert len(kept) == 1
        w.shard.respond(kept[0][1], 200, [], b"1")
        assert (await client.read_response()).body == b"1"
        await w.shard.until(lambda: len(kept) == 2)
        w.shard.respond(kept[1][1], 200, [], b"2")
        assert (await client.read_response()).body == b"2"


async def test_pipelined_requests_are_bounded() -> None:
    """G6: reading pauses."""
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("GET", "/1"))
        await w.shard.until(lambda: len(kept) == 1)
        for _ in range(100):
            client.send(request("GET", "/" + "x" * 4000))
            await settle(2)
        assert client.transport.get_write_buffer_size() > 200_000
        w.shard.on_request = w.shard.serve
        w.shard.respond(kept[0][1], 200, [], b"1")
        await client.read_response()
        for _ in range(100):
            assert (await client.read_response()).status == 400


# --- refusals of the gateway -------------------------------------------------------------------


async def refused(w: World, data: bytes) -> tuple[int, str]:
    client = w.connect()
    client.send(data)
    response = await client.read_response()
    assert "close" in (response.header("Connection") or "")
    assert (await client.read_all()) == b""
    assert not w.shard.of_kind(REQUEST)
    return response.status, response.body.decode()


async def test_bad_handshakes_never_wake_an_object() -> None:
    async with world() as w:
        assert await refused(w, handshake(leave_out="Sec-WebSocket-Key")) == (
            400,
            "ERROR: Missing Sec-WebSocket-Key",
        )
        assert (await refused(w, handshake(Sec_WebSocket_Key="c2hvcnQ=")))[0] == 400
        assert (await refused(w, handshake("/", f"Sec-WebSocket-Key: {KEY}")))[0] == 400
        assert (await refused(w, handshake(Connection="keep-alive")))[0] == 400
        assert (await refused(w, handshake(Connection="Upgrade, close")))[0] == 400
        assert (await refused(w, handshake(leave_out="Connection")))[0] == 400
        for method in (b"POST", b"PUT", b"DELETE"):
            data = handshake().replace(b"GET", method)
            assert (await refused(w, data))[0] == 400
        assert (await refused(w, handshake().replace(b"HTTP/1.1", b"HTTP/1.0")))[0] == 400
        assert (await refused(w, handshake("/", "Content-Length: 5") + b"hello"))[0] == 400
        chunked = handshake("/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
        assert (await refused(w, chunked))[0] == 400


async def test_another_version_is_told_which_one() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake(Sec_WebSocket_Version="8"))
        response = await client.read_response()
        assert response.status_line == "HTTP/1.1 426 Upgrade Required"
        assert response.header("Sec-WebSocket-Version") == "13"
        assert response.body == b"ERROR: The requested WebSocket version is not supported."
        assert await client.read_all() == b""


async def test_a_handshake_with_an_empty_content_length() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake("/websocket", "Content-Length: 0"))
        await client.expect(SWITCH)


async def test_heads_that_are_bad_or_too_large() -> None:
    async with world() as w:
        assert (await refused(w, b"\x00\x01\x02\x03\r\n\r\n"))[0] == 400
        assert (await refused(w, b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 501
        assert (await refused(w, b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 501
        assert (await refused(w, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"))[0] == 505
        assert (await refused(w, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))[0] == 400
        assert (await refused(w, request("GET", "/" + "x" * 17000)))[0] == 414
        assert (await refused(w, request("GET", "/", "X: " + "x" * 66000)))[0] == 431
        assert (await refused(w, request("GET", "/", *["X: y"] * 201)))[0] == 431
        assert (await refused(w, request("GET", "/", "X: a\r\n b")))[0] == 400


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"])
async def test_without_a_host_the_connection_is_kept(head: bytes) -> None:
    """RFC 9112 §3.2."""
    async with world() as w:
        client = w.connect()
        client.send(head + request())
        response = await client.read_response()
        assert response.status == 400
        assert response.body.startswith(b"ERROR")
        assert (await client.read_response()).status_line == "HTTP/1.1 400 Bad Request"


async def test_good_requests_before_rubbish_are_answered() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request() + b"\x00\x01rubbish\r\n\r\n")
        assert (await client.read_response()).header("Content-Type") == "text/plain"
        assert (await client.read_response()).body.startswith(b"ERROR")
        assert await client.read_all() == b""


async def test_a_refused_client_that_goes_on_sending_reads_the_answer() -> None:
    """What it sends is discarded; closing at once would reset the connection."""
    async with world() as w:
        client = w.connect()
        client.send(request("GET", "/" + "x" * 17000))
        for _ in range(20):
            client.send(b"x" * 10000)
            await settle(2)
        assert (await client.read_response()).status == 414
        assert client.ended
        assert not client.lost
        await w.pass_time(5.5)
        assert client.lost


async def test_absolute_form_wins_over_host() -> None:
    """RFC 9112 §3.2.2."""
    async with world() as w:
        client = w.connect()
        client.send(request("GET", "http://Other:81/a/../b#c"))
        await client.read_response()
        assert w.shard.of_kind(REQUEST)[0][3][1] == "http://other:81/b"


# --- what the shard gets -----------------------------------------------------------------------


async def test_the_head_of_a_request() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("GET", "/a?b", "X-A: \xe9".encode("latin-1").decode("latin-1")))
        await client.read_response()
        [record] = w.shard.of_kind(REQUEST)
        assert record[2] is None
        method, url, headers, upgrade, mode, body, address = record[3]
        assert (method, url) == ("GET", "http://localhost/a?b")
        assert headers[0] == ["Host", "localhost"]
        assert (upgrade, mode, body, address) == (False, BODY_NONE, None, "192.0.2.1")


async def test_http_1_0() -> None:
    async with world() as w:
        client = w.connect()
        client.send(b"GET /x HTTP/1.0\r\n\r\n")
        response = await client.read_response()
        assert response.header("Connection") == "close"
        assert await client.read_all() == b""
        assert w.shard.of_kind(REQUEST)[0][3][1] == "http://127.0.0.1:8787/x"
        client = w.connect()
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
        for _ in range(2):
            assert (await client.read_response()).header("Connection") == "keep-alive"


async def test_connection_close() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("GET", "/", "Connection: close") + request())
        assert (await client.read_response()).header("Connection") == "close"
        assert await client.read_all() == b""


# --- bodies ------------------------------------------------------------------------------------


async def test_a_body_that_came_with_its_head_is_whole() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("POST", "/", "Content-Length: 5", body=b"hello"))
        await client.read_response()
        assert w.shard.of_kind(REQUEST)[0][3][4:6] == [BODY_WHOLE, b"hello"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_comes_later_is_a_stream(chunked: bool) -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        size = 300_000
        field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        client.send(request("POST", "/", field))
        await w.shard.until(lambda: bool(kept))
        assert kept[0][3][4:6] == [BODY_STREAM, None]
        for _ in range(30):
            data = b"x" * (size // 30)
            client.send(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await settle(3)
        if chunked:
            client.send(b"0\r\n\r\n")
        client.send(request())
        request_id = kept[0][1]
        await w.shard.until(lambda: w.shard.ended(request_id))
        assert w.shard.body(request_id) == b"x" * size
        w.shard.on_request = w.shard.serve
        w.shard.respond(request_id, 200, [], b"thanks")
        assert (await client.read_response()).body == b"thanks"
        assert (await client.read_response()).status == 400


async def test_100_continue() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 5"))
        await client.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
        kept = keep(w.shard)
        client.send(b"hello")
        assert not kept
        client = w.connect()
        w.shard.on_request = w.shard.serve
        client.send(
            request("POST", "/", "Expect: 100-continue", "Content-Length: 5", body=b"hello")
        )
        assert (await client.read_response()).status == 400


async def test_a_body_nobody_reads_stops_the_client() -> None:
    """G6: one window, then reading pauses; credit sets it going again."""
    async with world(body_window_bytes=65536) as w:
        kept = keep(w.shard)
        w.shard.credits_bodies = False
        client = w.connect()
        client.send(request("POST", "/", "Content-Length: 1000000"))
        await w.shard.until(lambda: bool(kept))
        client.send(b"x" * 1_000_000)
        await settle(100)
        request_id = kept[0][1]
        assert len(w.shard.body(request_id)) == 65536
        await w.pass_time(100)  # it is not the client who is slow
        while len(w.shard.body(request_id)) < 1_000_000:
            w.shard.urgent([BODY_CREDIT, request_id, 30_000])
            await settle()
        await w.shard.until(lambda: w.shard.ended(request_id))
        w.shard.respond(request_id, 200, [])
        assert (await client.read_response()).status == 200


async def test_an_answer_before_the_body_has_come() -> None:
    async with world() as w:
        client = w.connect()
        client.send(request("POST", "/", "Content-Length: 10", body=b"abc"))
        response = await client.read_response()
        assert (response.status, response.header("Connection")) == (400, "close")
        client.send(b"defghij")
        assert await client.read_all() == b""
        await w.shard.next_of(CANCEL)


async def test_a_broken_chunked_body() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("POST", "/", "Transfer-Encoding: chunked", body=b"5\r\nab"))
        await w.shard.until(lambda: bool(kept))
        client.send(b"cdeXX")
        assert (await client.read_response()).status == 400
        await w.shard.next_of(CANCEL)
        client = w.connect()
        client.send(request("POST", "/", "Transfer-Encoding: chunked", body=b"zz\r\n"))
        assert (await client.read_response()).status == 400
        assert await client.read_all() == b""
        assert len(kept) == 1


async def test_a_streamed_answer() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request())
        await w.shard.until(lambda: bool(kept))
        request_id = kept[0][1]
        w.shard.respond(request_id, 200, [], mode=BODY_STREAM)
        for piece in (b"a", b"", b"b" * 1000):
            w.shard.send([BODY, request_id, piece])
        await client.until(lambda: b"bbb" in client.received)  # it does not wait for the end
        w.shard.send([BODY_END, request_id])
        response = await client.read_response()
        assert response.header("Transfer-Encoding") == "chunked"
        assert response.body == b"a" + b"b" * 1000
        w.shard.on_request = w.shard.serve
        client.send(request())
        assert (await client.read_response()).status == 400


async def test_a_streamed_answer_of_known_length() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        for pieces, complete in (([b"ab", b"c"], True), ([b"ab"], False), ([b"abcd"], False)):
            client = w.connect()
            kept.clear()
            client.send(request())
            await w.shard.until(lambda: bool(kept))
            request_id = kept[0][1]
            w.shard.respond(request_id, 200, [["Content-Length", "3"]], mode=BODY_STREAM)
            for piece in pieces:
                w.shard.send([BODY, request_id, piece])
            w.shard.send([BODY_END, request_id])
            if complete:
                assert (await client.read_response()).body == b"abc"
                assert not client.ended
            else:
                await client.until(lambda: client.lost)  # noqa: B023


async def test_an_aborted_answer_breaks_the_connection() -> None:
    """So that nobody takes it for complete."""
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request())
        await w.shard.until(lambda: bool(kept))
        w.shard.respond(kept[0][1], 200, [], mode=BODY_STREAM)
        w.shard.send([BODY, kept[0][1], b"half"])
        w.shard.send([BODY_ABORT, kept[0][1], "oops"])
        await client.until(lambda: client.lost)
        assert not bytes(client.received).endswith(b"0\r\n\r\n")


async def test_a_streamed_answer_to_http_1_0_ends_with_the_connection() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        await w.shard.until(lambda: bool(kept))
        w.shard.respond(kept[0][1], 200, [], mode=BODY_STREAM)
        w.shard.send([BODY, kept[0][1], b"abc"])
        w.shard.send([BODY_END, kept[0][1]])
        data = await client.read_all()
        assert data.endswith(b"\r\n\r\nabc")
        assert b"chunked" not in data


async def test_a_streamed_answer_to_head_has_no_body() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("HEAD"))
        await w.shard.until(lambda: bool(kept))
        w.shard.respond(kept[0][1], 200, [], mode=BODY_STREAM)
        w.shard.send([BODY, kept[0][1], b"abc"])
        assert (await client.read_response(has_body=False)).status == 200
        await w.shard.next_of(CANCEL)
        w.shard.on_request = w.shard.serve
        client.send(request())
        assert (await client.read_response()).status == 400


async def test_a_slow_reader_stops_the_shard_not_the_gateway() -> None:
    """G6: credit is only given for what has left our memory."""
    async with world(body_window_bytes=65536) as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request())
        await w.shard.until(lambda: bool(kept))
        request_id = kept[0][1]
        client.transport.stall()
        w.shard.respond(request_id, 200, [], mode=BODY_STREAM)
        for _ in range(4):
            w.shard.send([BODY, request_id, b"x" * 30_000])
            await settle()
        given = sum(record[2] for record in w.shard.of_kind(BODY_CREDIT))
        assert given <= 65536
        client.transport.resume()
        await settle(50)
        assert sum(record[2] for record in w.shard.of_kind(BODY_CREDIT)) >= 110_000
        w.shard.send([BODY_END, request_id])
        assert len((await client.read_response()).body) == 120_000


async def test_a_reader_that_stops_for_good_is_cut_off() -> None:
    async with world(body_window_bytes=65536) as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request())
        await w.shard.until(lambda: bool(kept))
        w.shard.respond(kept[0][1], 200, [], mode=BODY_STREAM)
        await settle()
        client.transport.stall()
        for _ in range(3):
            w.shard.send([BODY, kept[0][1], b"x" * 30_000])
        await settle()
        await w.pass_time(16)
        await w.shard.next_of(CANCEL)


# --- how the app's answers come out ------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 302, 401, 403, 500])
async def test_an_upgrade_may_be_answered_with_anything(status: int) -> None:
    """It passes as plain HTTP, and the connection stays usable."""
    async with world() as w:
        w.shard.on_request = lambda record: w.shard.respond(
            record[1], status, [["X-A", "b"]], None if status == 204 else b"no", reason="Hm"
        )
        client = w.connect()
        for _ in range(2):
            client.send(handshake())
            response = await client.read_response()
            assert response.status_line == f"HTTP/1.1 {status} Hm"
            assert response.header("X-A") == "b"
            assert response.header("Connection") is None


@pytest.mark.parametrize(
    ("status", "text", "retry"),
    [(500, "Internal Server Error", None), (503, None, "1"), (504, None, None), (999, None, None)],
)
async def test_errors_of_the_shard(status: int, text: str | None, retry: str | None) -> None:
    """Nothing of an exception's text reaches a client."""
    async with world() as w:
        fields = {"name": "Oops", "message": "secret", "status": status, "remote": True}
        w.shard.on_request = lambda record: w.shard.send([FAILED, record[1], fields])
        for data in (request(), handshake()):
            client = w.connect()
            client.send(data)
            response = await client.read_response()
            assert response.status == (status if status < 600 else 500)
            assert response.header("Retry-After") == retry
            assert b"secret" not in response.body
            if text is not None:
                assert response.body == text.encode()


async def test_answers_that_http_does_not_allow() -> None:
    async with world() as w:
        for status, headers in (
            (101, []),
            (600, []),
            (100, []),
            (200, [["X", "a\r\nb"]]),
            (200, [["X Y", "a"]]),
        ):
            w.shard.on_request = lambda record, s=status, h=headers: w.shard.respond(  # type: ignore[misc]
                record[1], s, h
            )
            client = w.connect()
            client.send(request())
            response = await client.read_response()
            assert (response.status, response.body) == (500, b"Internal Server Error")


async def test_a_socket_for_a_request_that_is_no_upgrade() -> None:
    async with world() as w:
        w.shard.on_request = lambda record: (w.shard.accept(record[1]), None)[1]
        client = w.connect()
        client.send(request())
        assert (await client.read_response()).status == 500
        await w.shard.until(lambda: w.shard.count == 0)  # the object is told


async def test_a_subprotocol_that_was_not_offered() -> None:
    """RFC 6455 §4.2.2: 500, and the object's socket ends."""
    async with world() as w:
        w.shard.on_request = lambda record: (
            w.shard.accept(record[1], [["Sec-WebSocket-Protocol", "c"]]),
            None,
        )[1]
        client = w.connect()
        client.send(handshake("/websocket", "Sec-WebSocket-Protocol: a, b"))
        assert (await client.read_response()).status == 500
        await w.shard.until(lambda: w.shard.count == 0)
        client = w.connect()
        client.send(handshake("/websocket", "Sec-WebSocket-Protocol: a, c"))
        await client.expect(SWITCH[:-2] + b"Sec-WebSocket-Protocol: c\r\n\r\n")


# --- time --------------------------------------------------------------------------------------


async def test_a_client_that_says_nothing_or_not_enough() -> None:
    async with world() as w:
        silent, slow = w.connect(), w.connect()
        for _ in range(20):
            slow.send(b"G" if not slow.received else b"")
            await w.pass_time(0.75)
        await settle()
        await w.pass_time(1)
        assert silent.ended
        assert silent.received == b""
        assert slow.ended


async def test_a_dribbled_head() -> None:
    """HEAD_TIMEOUT_S is for the whole head, not for each byte."""
    async with world() as w:
        client = w.connect()
        for byte in handshake()[:40]:
            client.send(bytes((byte,)))
            await w.pass_time(0.5)
        assert client.ended


async def test_idle_keepalive() -> None:
    async with world(keepalive_timeout_s=30.0) as w:
        client = w.connect()
        client.send(request())
        await client.read_response()
        await w.pass_time(29)
        assert not client.ended
        client.send(request())
        await client.read_response()
        await w.pass_time(29)
        assert not client.ended
        await w.pass_time(2)
        assert client.ended
        assert client.received == b""


async def test_a_dribbled_body() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("POST", "/", "Content-Length: 10"))
        await w.shard.until(lambda: bool(kept))
        await w.pass_time(14)
        client.send(b"x")
        await w.pass_time(14)
        assert not client.received
        await w.pass_time(2)
        assert (await client.read_response()).status == 408


async def test_a_silent_object() -> None:
    """504 after UPGRADE_TIMEOUT_S; a plain request may take as long as it likes."""
    async with world() as w:
        kept = keep(w.shard)
        upgrade, plain = w.connect(), w.connect()
        upgrade.send(handshake())
        plain.send(request())
        await w.shard.until(lambda: len(kept) == 2)
        await w.pass_time(29)
        assert not upgrade.received
        await w.pass_time(2)
        response = await upgrade.read_response()
        assert response.status == 504
        assert response.body == b"ERROR: The app did not answer within 30 s."
        await w.shard.next_of(CANCEL)
        await w.pass_time(100)
        [plain_id] = [record[1] for record in kept if not record[3][3]]
        w.shard.respond(plain_id, 200, [], b"late")
        assert (await plain.read_response()).body == b"late"


async def test_a_101_that_comes_too_late() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(handshake())
        await w.shard.until(lambda: bool(kept))
        await w.pass_time(31)
        w.shard.accept(kept[0][1])
        await w.shard.until(lambda: w.shard.count == 0)


# --- clients that go ---------------------------------------------------------------------------


async def test_half_a_request_then_the_end() -> None:
    async with world() as w:
        client = w.connect()
        client.send(b"GET / HT")
        client.transport.write_eof()
        assert await client.read_all() == b""


async def test_requests_then_the_end() -> None:
    """All are answered."""
    async with world() as w:
        client = w.connect()
        client.send(request() * 3)
        client.transport.write_eof()
        assert (await client.read_all()).count(b"HTTP/1.1 400") == 3


async def test_an_upgrade_then_the_end() -> None:
    async with world() as w:
        client = w.connect()
        client.send(handshake())
        client.transport.write_eof()
        assert await client.read_all() == SWITCH
        await w.shard.until(lambda: w.shard.count == 0)


async def test_a_client_that_goes_while_the_app_works() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(handshake())
        await w.shard.until(lambda: bool(kept))
        client.transport.abort()
        await w.shard.next_of(CANCEL)
        w.shard.accept(kept[0][1])  # it had been on its way
        await w.shard.until(lambda: w.shard.count == 0)


async def test_a_body_cut_short() -> None:
    async with world() as w:
        kept = keep(w.shard)
        client = w.connect()
        client.send(request("POST", "/", "Content-Length: 10", body=b"abc"))
        await w.shard.until(lambda: bool(kept))
        client.transport.write_eof()
        await w.shard.next_of(CANCEL)
        assert await client.read_all() == b""


# --- bounds ------------------------------------------------------------------------------------


async def test_max_connections() -> None:
    async with world(max_connections=2) as w:
        first, second, third = w.connect(), w.connect(), w.connect()
        third.send(request())
        response = await third.read_response()
        assert (response.status, response.header("Retry-After")) == (503, "1")
        first.transport.abort()
        third.transport.abort()
        await settle()
        fourth = w.connect()
        for client in (second, fourth):
            client.send(request())
            assert (await client.read_response()).status == 400


async def test_a_flood_of_connections_is_cut_off() -> None:
    async with world(max_connections=2) as w:
        clients = [w.connect() for _ in range(100)]
        await settle()
        assert sum(client.lost for client in clients) > 60
        assert len(w.gateway.context.http_connections) < 40


async def test_others_are_served_while_one_floods() -> None:
    async with world() as w:
        keep(w.shard)
        flood = w.connect()
        for _ in range(50):
            flood.send(request("GET", "/" + "x" * 10_000))
        await settle()
        w.shard.on_request = w.shard.serve
        await asyncio.wait_for(w.upgraded(), 1)


async def test_a_flood_of_requests_lets_others_have_their_turn() -> None:
    async with world() as w:
        flood, other = w.connect(), w.connect()
        flood.send(b"GET / HTTP/1.1\r\n\r\n" * 2000)  # answered here, at once: no Host
        await settle(2)
        other.send(request())
        await other.until(lambda: bool(other.received))
        assert flood.received.count(b"HTTP/1.1 400") < 1000
        await flood.until(lambda: flood.received.count(b"HTTP/1.1 400") == 2000)


async def test_a_body_in_tiny_chunks_lets_others_have_their_turn() -> None:
    async with world() as w:
        kept = keep(w.shard)
        flood, other = w.connect(), w.connect()
        flood.send(request("POST", "/", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 50_000))
        await w.shard.until(lambda: len(kept) == 1)
        other.send(request())
        await w.shard.until(lambda: len(kept) == 2)
        assert len(w.shard.body(kept[0][1])) < 25_000
        flood.send(b"0\r\n\r\n")
        await w.shard.until(lambda: w.shard.ended(kept[0][1]))
        assert w.shard.body(kept[0][1]) == b"x" * 50_000


async def test_the_accept_value() -> None:
    """RFC 6455 §1.3."""
    assert ACCEPT.encode() in SWITCH
