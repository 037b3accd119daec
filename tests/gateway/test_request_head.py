"""The rows of spec/websocket.md §1 that an HTTP parser decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.request_head import BadHeadError, HeadParser, RequestHead

LINE = b"GET /x HTTP/1.1\r\n"
HOST = b"Host: h\r\n"
END = b"\r\n"
NO_HOST = "ERROR: A request needs a Host header."


async def read(*chunks: bytes, **limits: int) -> tuple[RequestHead | None, bytes]:
    values = {"max_head_bytes": 65536, "max_headers": 200, "max_url_bytes": 16384, **limits}
    parser = HeadParser(**values)
    head, rest = None, b""
    for chunk in chunks:
        assert head is None
        head, rest = parser.feed(chunk)
    return head, rest


async def refused(data: bytes, **limits: int) -> int:
    """The status, the same however *data* is cut up."""
    with pytest.raises(BadHeadError) as whole:
        await read(data, **limits)
    with pytest.raises(BadHeadError) as cut:
        await read(*(data[at : at + 1] for at in range(len(data))), **limits)
    assert whole.value.refusal.status == cut.value.refusal.status
    assert whole.value.refusal.close or whole.value.refusal.text == NO_HOST
    assert "\n" not in whole.value.refusal.text
    return whole.value.refusal.status


async def test_a_head() -> None:
    head, rest = await read(LINE + HOST + b"X: \xe9  \r\nx:\r\n" + END + b"rest")
    assert head == RequestHead(
        "GET", "/x", (1, 1), [["Host", "h"], ["X", "\xe9"], ["x", ""]], "h", False, 0, False
    )
    assert rest == b"rest"


@given(st.lists(st.integers(0, 60), max_size=5))
async def test_a_head_however_it_is_cut(places: list[int]) -> None:
    data = LINE + HOST + b"A: b\r\n" + END + b"body\r\n\r\n"
    cuts = sorted(place for place in places if place < len(LINE + HOST + b"A: b\r\n\r\n"))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    head, rest = await read(*pieces)
    assert head is not None
    assert head.headers == [["Host", "h"], ["A", "b"]]
    assert rest == b"body\r\n\r\n"


async def test_blank_lines_may_come_first() -> None:
    head, _ = await read(b"\r\n\r\n" + LINE + HOST + END)
    assert head is not None
    head, _ = await read(b"\r", b"\n", b"\r\n" + LINE + HOST + END)
    assert head is not None


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 5\r\n", 5),
        (b"Transfer-Encoding: chunked\r\n", None),
    ],
)
async def test_what_follows(fields: bytes, length: int | None) -> None:
    head, _ = await read(b"POST / HTTP/1.1\r\n" + HOST + fields + END)
    assert head is not None
    assert head.length == length
    assert head.has_body is (length != 0)


@pytest.mark.parametrize(
    ("data", "close"),
    [
        (LINE + HOST + END, False),
        (LINE + HOST + b"Connection: close\r\n" + END, True),
        (b"GET / HTTP/1.0\r\n" + END, True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n" + END, False),
    ],
)
async def test_who_wants_to_close(data: bytes, close: bool) -> None:
    head, _ = await read(data)
    assert head is not None
    assert head.close is close


async def test_what_follows_an_upgrade_is_kept() -> None:
    """The parser underneath drops it for protocols it does not know: so it never gets it."""
    for upgrade in (b"websocket", b"WebSocket", b"websocket, h2c", b"h2c"):
        data = LINE + HOST + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n" + END
        head, rest = await read(data + b"frames")
        assert head is not None
        assert rest == b"frames"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"GET / HTTP/9.9\r\nHost: h\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (LINE + HOST + HOST + END, 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET foo HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (LINE + HOST + b"X: a\r\n b\r\n" + END, 400),
        (LINE + b"Host : h\r\n" + END, 400),
        (LINE + HOST + b"nocolon\r\n" + END, 400),
        (LINE + HOST + b"X: a\0b\r\n" + END, 400),
        (LINE + HOST + b"X: a\x01b\r\n" + END, 400),
        (LINE + HOST + b"X@: a\r\n" + END, 400),
        (LINE + HOST + b": a\r\n" + END, 400),
        (LINE + HOST + b"Content-Length: x\r\n" + END, 400),
        (LINE + HOST + b"Content-Length: -1\r\n" + END, 400),
        (LINE + HOST + b"Content-Length: +1\r\n" + END, 400),
        (LINE + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n" + END, 400),
        (LINE + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n" + END, 400),
        (LINE + HOST + b"Transfer-Encoding: foo\r\n" + END, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"\x00\x01garbage", 400),
        (b"asdf\r\n\r\n", 400),
    ],
)  # fmt: skip
async def test_bad_heads(data: bytes, status: int) -> None:
    if data.startswith((b"FOO", b"get", b"asdf", b"\x16")):
        # Cut up, the parser has no whole word to judge by.
        with pytest.raises(BadHeadError) as caught:
            await read(data)
        assert caught.value.refusal.status == status
    else:
        assert await refused(data) == status


async def test_tls_on_this_port_is_named() -> None:
    with pytest.raises(BadHeadError, match="not HTTPS"):
        await read(b"\x16\x03\x01\x02\x00\x01\x00")


async def test_limits() -> None:
    """431 and 414, each before the head is complete."""
    url = b"GET /" + b"x" * 2000
    assert await refused(url, max_url_bytes=1000) == 414
    assert await refused(url + b" HTTP/1.1\r\n", max_url_bytes=1990, max_head_bytes=2000) == 414
    assert await refused(LINE + HOST + b"X: " + b"x" * 3000, max_head_bytes=2048) == 431
    assert await refused(LINE + HOST + b"x" * 3000, max_head_bytes=2048) == 431
    assert await refused(LINE + HOST + b"X: y\r\n" * 500, max_head_bytes=2048) == 431
    assert await refused(LINE + HOST + b"X: y\r\n" * 30 + END, max_headers=20) == 431
    head, _ = await read(LINE + HOST + b"X: y\r\n" * 19 + END, max_headers=20)
    assert head is not None
    head, _ = await read(b"GET /" + b"x" * 999 + b" HTTP/1.1\r\n" + HOST + END, max_url_bytes=1000)
    assert head is not None
    longest = LINE + HOST + b"X: "
    longest += b"x" * (2048 - len(longest) - 4) + b"\r\n\r\n"
    head, rest = await read(longest + b"y" * 5000, max_head_bytes=2048)
    assert head is not None
    assert len(rest) == 5000
    assert await refused(b"\r\n\r\n" * 1000, max_head_bytes=2048) == 431


async def test_expect() -> None:
    head, _ = await read(LINE + HOST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n" + END)
    assert head is not None
    assert head.expects_continue
