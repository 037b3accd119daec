from __future__ import annotations

from typing import Any

import pytest

from gateway.refusal import Refusal
from gateway.responses import (
    BadResponseError,
    Framing,
    ResponseHead,
    encode_head,
    encode_refusal,
    encode_switch,
)
from tests.gateway.support import ACCEPT, SWITCH


def head(status: int = 200, *headers: list[str], **options: Any) -> ResponseHead:
    values: dict[str, Any] = {
        "reason": "",
        "method": "GET",
        "version": (1, 1),
        "body_bytes": 5,
        "close": False,
        "date": "",
        **options,
    }
    return encode_head(status, headers=list(headers), **values)


def lines(answer: ResponseHead) -> list[str]:
    assert answer.data.endswith(b"\r\n\r\n")
    return answer.data[:-4].decode("latin-1").split("\r\n")


def test_a_whole_body() -> None:
    answer = head(200, ["Content-Type", "text/plain"], ["X-A", "\xe9"])
    assert answer.data == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: \xe9\r\nContent-Length: 5\r\n\r\n"
    )
    assert answer.framing is Framing.LENGTH


def test_the_apps_reason() -> None:
    assert lines(head(200, reason="Fine"))[0] == "HTTP/1.1 200 Fine"
    assert lines(head(299))[0] == "HTTP/1.1 299 "
    assert lines(head(200, reason="a\r\nX: y"))[0] == "HTTP/1.1 200 OK"


def test_streams() -> None:
    chunked = head(200, body_bytes=None)
    assert chunked.framing is Framing.CHUNKED
    assert "Transfer-Encoding: chunked" in lines(chunked)
    sized = head(200, ["Content-Length", "7"], body_bytes=None)
    assert (sized.framing, sized.length) == (Framing.LENGTH, 7)
    old = head(200, body_bytes=None, version=(1, 0))
    assert old.framing is Framing.UNTIL_CLOSE
    assert "Connection: close" in lines(old)


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    """RFC 9112 §6.3 (1)."""
    assert head(status).framing is Framing.NONE


def test_204_has_no_length() -> None:
    """RFC 9110 §8.6."""
    assert lines(head(204, ["Content-Length", "5"], body_bytes=0)) == ["HTTP/1.1 204 No Content"]
    assert "Content-Length: 5" in lines(head(304, ["Content-Length", "5"], body_bytes=0))


def test_the_answer_to_head() -> None:
    answer = head(200, method="HEAD", body_bytes=42)
    assert answer.framing is Framing.NONE
    assert "Content-Length: 42" in lines(answer)
    assert lines(head(400, method="HEAD", body_bytes=0)) == ["HTTP/1.1 400 Bad Request"]
    assert "Content-Length: 9" in lines(head(200, ["Content-Length", "9"], method="HEAD"))


def test_the_length_is_ours() -> None:
    assert "Content-Length: 5" in lines(head(200, ["Content-Length", "9"]))


def test_hop_by_hop_fields_are_dropped() -> None:
    """RFC 9110 §7.6.1."""
    fields = [
        "Connection",
        "keep-alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ]
    answer = head(200, *([name, "x"] for name in fields))
    assert lines(answer) == ["HTTP/1.1 200 OK", "Content-Length: 5"]


def test_connection() -> None:
    assert "Connection: close" in lines(head(200, close=True))
    assert "Connection: keep-alive" in lines(head(200, version=(1, 0)))


def test_a_426_says_to_what() -> None:
    """RFC 9110 §15.5.22."""
    answer = lines(head(426, ["Upgrade", "foo"]))
    assert "Upgrade: websocket" in answer
    assert "Connection: Upgrade" in answer
    assert "Connection: close, Upgrade" in lines(head(426, close=True))


def test_date() -> None:
    assert "Date: now" in lines(head(200, date="now"))
    assert "Date: now" not in lines(head(200, ["date", "then"], date="now"))


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999, -1])
def test_statuses_that_are_none(status: int) -> None:
    with pytest.raises(BadResponseError):
        head(status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\0"),
        ("X Y", "a"),
        ("X:", "a"),
        ("", "a"),
        ("X\r\n", "a"),
        ("Content-Length", "x"),
        ("Content-Length", "-1"),
    ],
)
def test_fields_that_would_split_the_answer(name: str, value: str) -> None:
    with pytest.raises(BadResponseError):
        head(200, [name, value])
    if name != "Content-Length":
        with pytest.raises(BadResponseError):
            encode_switch(ACCEPT, [[name, value]], (), "")


def test_characters_outside_latin_1_go_out_as_utf8() -> None:
    assert "X: ✓".encode() in head(200, ["X", "✓"]).data


def test_the_101() -> None:
    assert encode_switch(ACCEPT, [], (), "") == SWITCH


def test_headers_of_the_101() -> None:
    """spec/websocket.md §7 (g)."""
    data = encode_switch(
        ACCEPT,
        [
            ["Set-Cookie", "a"],
            ["Set-Cookie", "b"],
            ["X-A", "1"],
            ["Date", "now"],
            ["Connection", "close"],
            ["Upgrade", "foo"],
            ["Sec-WebSocket-Accept", "foo"],
            ["Content-Length", "5"],
            ["Transfer-Encoding", "chunked"],
            ["Sec-WebSocket-Protocol", "b"],
        ],
        ("a", "b"),
        "permessage-deflate",
    )
    assert data == SWITCH[:-2] + (
        b"Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b\r\nX-A: 1\r\nDate: now\r\n\r\n"
    )


@pytest.mark.parametrize("chosen", [["c"], ["a, b"], ["a", "b"], [""]])
def test_a_subprotocol_must_be_one_of_those_offered(chosen: list[str]) -> None:
    """RFC 6455 §4.2.2 (5), §11.3.4."""
    with pytest.raises(BadResponseError):
        encode_switch(ACCEPT, [["Sec-WebSocket-Protocol", c] for c in chosen], ("a", "b"), "")


def test_a_refusal() -> None:
    refusal = Refusal(426, "no", (("Sec-WebSocket-Version", "13"),), upgrade=True)
    data = encode_refusal(refusal, version=(1, 1), date="now", head=False)
    assert data == (
        b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n"
        b"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 2\r\nDate: now\r\n"
        b"Connection: close, Upgrade\r\n\r\nno"
    )
    assert encode_refusal(refusal, version=(1, 1), date="", head=True).endswith(b"\r\n\r\n")
