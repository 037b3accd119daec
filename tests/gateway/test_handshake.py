"""The table of spec/websocket.md §1, as far as it is decided before a shard is asked."""

from __future__ import annotations

import pytest

from gateway import handshake
from gateway.handshake import Accept
from gateway.refusal import Refusal
from tests.gateway.support import ACCEPT, KEY

GOOD = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def judge(
    *more: tuple[str, str],
    method: str = "GET",
    version: tuple[int, int] = (1, 1),
    without: str = "",
    has_body: bool = False,
    compression: bool = False,
    **changed: str,
) -> Accept | Refusal | None:
    headers = {**GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    headers.pop(without, None)
    return handshake.check(
        method,
        version,
        [*headers.items(), *more],
        has_body=has_body,
        compression=compression,
    )


def refused(answer: Accept | Refusal | None) -> tuple[int, str]:
    assert isinstance(answer, Refusal)
    assert answer.close
    assert "\n" not in answer.text
    return answer.status, answer.text


def test_a_good_handshake() -> None:
    """The key and answer of RFC 6455 §1.3."""
    assert judge() == Accept(ACCEPT, (), None)


@pytest.mark.parametrize(
    "upgrade",
    ["websocket", "WebSocket", "WEBSOCKET", "websocket, h2c", "h2c,websocket", " websocket "],
)
def test_upgrade_is_a_list_in_any_letter_case(upgrade: str) -> None:
    """§4.2.1 (3)."""
    assert isinstance(judge(Upgrade=upgrade), Accept)


@pytest.mark.parametrize("upgrade", ["h2c", "", "websockets", "web socket"])
def test_another_upgrade_is_plain_http(upgrade: str) -> None:
    assert judge(Upgrade=upgrade) is None
    assert judge(without="Upgrade") is None


@pytest.mark.parametrize("connection", ["Upgrade", "UPGRADE", "keep-alive, Upgrade", "upgrade,x"])
def test_connection_is_a_list_in_any_letter_case(connection: str) -> None:
    assert isinstance(judge(Connection=connection), Accept)


def test_connection_must_contain_upgrade() -> None:
    """§4.2.1 (4)."""
    text = "ERROR: The Connection header of a WebSocket must contain Upgrade."
    assert refused(judge(Connection="keep-alive")) == (400, text)
    assert refused(judge(without="Connection")) == (400, text)


def test_connection_may_be_repeated() -> None:
    assert isinstance(judge(("Connection", "Upgrade"), Connection="keep-alive"), Accept)


def test_connection_close_contradicts() -> None:
    assert refused(judge(Connection="Upgrade, close"))[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS"])
def test_only_get(method: str) -> None:
    """§4.2.1 (1)."""
    text = "ERROR: WebSocket must be initiated with a GET request."
    assert refused(judge(method=method)) == (400, text)


def test_only_http_1_1() -> None:
    """§4.2.1 (1)."""
    assert refused(judge(version=(1, 0)))[0] == 400


def test_no_body() -> None:
    assert refused(judge(has_body=True))[0] == 400


@pytest.mark.parametrize("version", ["8", "14", "13, 8", "thirteen", "", "13.0"])
def test_only_version_13(version: str) -> None:
    """§4.2.2 (4), §4.4; RFC 9110 §15.5.22 for the Upgrade header."""
    answer = judge(Sec_WebSocket_Version=version)
    assert refused(answer) == (426, "ERROR: The requested WebSocket version is not supported.")
    assert isinstance(answer, Refusal)
    assert ("Sec-WebSocket-Version", "13") in answer.headers
    assert ("Upgrade", "websocket") in answer.headers
    assert refused(judge(without="Sec-WebSocket-Version"))[0] == 426
    assert refused(judge(("Sec-WebSocket-Version", "13")))[0] == 426


def test_the_key_is_needed() -> None:
    """§4.2.1 (5)."""
    expected = 400, "ERROR: Missing Sec-WebSocket-Key"
    assert refused(judge(without="Sec-WebSocket-Key")) == expected
    assert refused(judge(Sec_WebSocket_Key="")) == expected


@pytest.mark.parametrize(
    "key",
    [
        "c2hvcnQ=",
        "not base64 at all!!!!!!!",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==x",
        "dGhlIHNhbXBsZSBub25jZQ= =",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "\xe9GhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_the_key_must_be_base64_of_16_bytes(key: str) -> None:
    """§4.2.1 (5)."""
    expected = 400, "ERROR: Sec-WebSocket-Key is not base64 of 16 bytes"
    assert refused(judge(Sec_WebSocket_Key=key)) == expected


def test_exactly_one_key() -> None:
    """§11.3.1."""
    assert refused(judge(("Sec-WebSocket-Key", KEY)))[0] == 400


def test_subprotocols_keep_their_order() -> None:
    answer = judge(("Sec-WebSocket-Protocol", "superchat,"), Sec_WebSocket_Protocol="chat, b")
    assert isinstance(answer, Accept)
    assert answer.protocols == ("chat", "b", "superchat")


def test_compression_only_where_it_is_on() -> None:
    off = judge(Sec_WebSocket_Extensions="permessage-deflate")
    on = judge(Sec_WebSocket_Extensions="permessage-deflate", compression=True)
    assert isinstance(off, Accept)
    assert isinstance(on, Accept)
    assert off.deflate is None
    assert on.deflate is not None
