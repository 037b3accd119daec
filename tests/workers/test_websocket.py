"""WebSockets as an app sees them (spec: websocket.md §7), with a port that only writes down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from workers.events import Bytes, CloseEvent, Event, MessageEvent
from workers.exceptions import InvalidAccessError
from workers.host import enter_host, leave_host
from workers.websocket import (
    CLOSED,
    CLOSING,
    MAX_FRESH_INBOX_BYTES,
    MAX_UNSENT_BYTES,
    OPEN,
    WebSocket,
    WebSocketPair,
)

NOT_ACCEPTED = (
    "You must call one of accept() or state.acceptWebSocket() on this WebSocket before sending "
    "messages."
)
AFTER_CLOSE = r"Can't call WebSocket send\(\) after close\(\)\."


class Port:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.out: list[Any] = []
        self.events: list[Event] = []

    def send(self, message: str | bytes) -> None:
        self.out.append(message)

    def close(self, code: int | None, reason: str) -> None:
        self.out.append((code, reason))

    def enqueue(self, event: Event) -> None:
        self.events.append(event)


class Owner:
    """Accepts sockets: the host of the running code, and of its sockets."""

    def socket_host(self) -> Owner:
        return self

    def accepted(self, socket: WebSocket) -> None:
        for event in socket.kept_events():
            socket.port.enqueue(event)


@pytest.fixture(autouse=True)
def owner() -> Iterator[Owner]:
    one = Owner()
    token = enter_host(one)  # type: ignore[arg-type]
    yield one
    leave_host(token)


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def ws(port: Port) -> WebSocket:
    """An accepted server end whose client is there."""
    pair = WebSocketPair()
    server = pair[0].take()
    server.accept()
    server.connect(port)
    return server


# --- a fresh pair ---------------------------------------------------------------------------------


def test_a_fresh_pair() -> None:
    client, server = WebSocketPair()
    for end in (client, server):
        assert end.readyState == end.ready_state == OPEN == 1
        assert end.url is None
        assert (end.protocol, end.extensions) == ("", "")


def test_the_spellings_of_a_pair() -> None:
    pair = WebSocketPair.new()
    client, server = pair
    assert pair.object_values() == (client, server)
    assert (pair[0], pair["1"]) == (client, server)
    assert len(pair) == 2
    assert client.other is server
    assert server.other is client


def test_before_accept_nothing_can_be_sent() -> None:
    """§7."""
    _, server = WebSocketPair()
    with pytest.raises(TypeError) as sending:
        server.send("x")
    with pytest.raises(TypeError) as closing:
        server.close()
    assert str(sending.value) == str(closing.value) == NOT_ACCEPTED


def test_accepting_twice_has_no_effect() -> None:
    """§7."""
    _, server = WebSocketPair()
    server.accept()
    server.accept()


def test_accepting_a_hibernatable_socket_is_refused() -> None:
    """§7."""
    _, server = WebSocketPair()
    server.hold(())
    with pytest.raises(TypeError, match=r"Can't accept\(\) WebSocket after enabling hibernation\."):
        server.accept()


def test_an_end_that_left_in_a_response_cannot_be_accepted() -> None:
    client, _ = WebSocketPair()
    client.take()
    with pytest.raises(TypeError):
        client.accept()
    with pytest.raises(TypeError):
        client.take()


def test_an_end_that_is_in_use_cannot_leave_in_a_response() -> None:
    """§5: refused before the 101 is written."""
    client, _ = WebSocketPair()
    client.accept()
    with pytest.raises(TypeError):
        client.take()


# --- sending --------------------------------------------------------------------------------------


def test_what_can_be_sent(ws: WebSocket, port: Port) -> None:
    for message in ("text", "", b"bytes", bytearray(b"array"), memoryview(b"view"), Bytes(b"own")):
        ws.send(message)
    assert port.out == ["text", "", b"bytes", b"array", b"view", b"own"]
    assert [type(each) for each in port.out[2:]] == [bytes] * 4


@pytest.mark.parametrize("message", [None, 5, {"a": 1}, object(), ["x"]])
def test_what_cannot_be_sent(ws: WebSocket, port: Port, message: Any) -> None:
    """§7: for Python, better refused than stringified."""
    with pytest.raises(TypeError, match="takes str or bytes"):
        ws.send(message)
    assert port.out == []


def test_a_message_that_changes_afterwards_was_copied(ws: WebSocket, port: Port) -> None:
    data = bytearray(b"before")
    ws.send(data)
    data[:] = b"after!"
    assert port.out == [b"before"]


def test_a_lone_surrogate_becomes_the_replacement_character(ws: WebSocket, port: Port) -> None:
    """§7 Q, RFC 6455 §8.1: a text frame is always UTF-8."""
    ws.send("\ud800x")
    ws.send("\U0001f600")
    assert port.out == ["\ufffdx", "\U0001f600"]


def test_what_is_sent_before_the_client_is_there_waits_in_order() -> None:
    """§7: sends + close inside fetch."""
    client, server = WebSocketPair()
    client.take()
    server.accept()
    server.send("a")
    server.send(b"b")
    server.close(3000, "c")
    port = Port()
    server.connect(port)
    assert port.out == ["a", b"b", (3000, "c")]


def test_what_waits_for_a_client_that_never_comes_is_bounded() -> None:
    """G6."""
    client, server = WebSocketPair()
    client.take()
    server.accept()
    for _ in range(MAX_UNSENT_BYTES // 1000 + 100):
        server.send(b"x" * 1000)
    port = Port()
    server.connect(port)
    assert [each[0] for each in port.out] == [1013]


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 1016, 2999, 3000, 4999])
def test_codes_that_may_be_sent(ws: WebSocket, port: Port, code: int) -> None:
    ws.close(code, "why")
    assert port.out == [(code, "why")]
    assert ws.readyState == CLOSING == 2


@pytest.mark.parametrize("code", [1004, 1005, 1006, 1015, 999, 0, -1, 5000, 65536])
def test_codes_that_may_not(ws: WebSocket, port: Port, code: int) -> None:
    with pytest.raises(InvalidAccessError) as refused:
        ws.close(code)
    assert str(refused.value) == f"Invalid WebSocket close code: {code}."
    assert ws.readyState == OPEN
    assert port.out == []


@pytest.mark.parametrize(("code", "sent"), [("1000", 1000), (1000.9, 1000)])
def test_codes_are_made_integers(ws: WebSocket, port: Port, code: Any, sent: int) -> None:
    ws.close(code)
    assert port.out == [(sent, "")]


@pytest.mark.parametrize("code", ["abc", float("nan"), {}, []])
def test_what_is_no_number_counts_as_0(ws: WebSocket, code: Any) -> None:
    with pytest.raises(InvalidAccessError, match=r"code: 0\."):
        ws.close(code)


def test_a_code_beyond_32_bits(ws: WebSocket) -> None:
    with pytest.raises(TypeError, match=r"between -2147483648 and 2147483647 \(inclusive\)\."):
        ws.close(1 << 31)


def test_close_without_a_code_is_an_empty_close(ws: WebSocket, port: Port) -> None:
    ws.close()
    assert port.out == [(None, "")]


def test_a_reason_needs_a_code(ws: WebSocket, port: Port) -> None:
    with pytest.raises(InvalidAccessError, match="you must also specify a code"):
        ws.close(None, "why")
    assert port.out == []


def test_a_reason_has_at_most_123_bytes(ws: WebSocket, port: Port) -> None:
    """§6, RFC 6455 §5.5."""
    with pytest.raises(SyntaxError, match=r"longer than 123 bytes when UTF-8 encoded\."):
        ws.close(1000, "é" * 62)
    ws.close(1000, "é" * 61 + "x")
    assert len(port.out) == 1


def test_the_second_close_is_ignored(ws: WebSocket, port: Port) -> None:
    ws.close(3000, "first")
    ws.close(3001, "second")
    assert port.out == [(3000, "first")]


def test_send_after_close(ws: WebSocket, port: Port) -> None:
    ws.close()
    with pytest.raises(TypeError, match=AFTER_CLOSE):
        ws.send("x")
    assert port.out == [(None, "")]


@pytest.mark.parametrize("code", [1000, 1005, 1006, 1015, 5000])
def test_close_with_the_code_just_received_never_throws(
    ws: WebSocket, port: Port, code: int
) -> None:
    """As decided: what cannot be sent becomes an empty Close."""
    ws.closed_by_peer(code, "", code != 1006)
    ws.close(code, "reason")
    expected = [] if code == 1006 else [(code, "reason")] if code == 1000 else [(None, "")]
    assert port.out == expected
    assert ws.readyState == CLOSED


def test_only_the_code_received_is_forgiven(ws: WebSocket) -> None:
    ws.closed_by_peer(1005, "", True)
    with pytest.raises(InvalidAccessError):
        ws.close(1006)


# --- the peer closes ------------------------------------------------------------------------------


def test_the_close_event(ws: WebSocket) -> None:
    event = ws.closed_by_peer(3000, "bye", True)
    assert event is not None
    assert (event.code, event.reason, event.wasClean, event.target) == (3000, "bye", True, ws)
    assert ws.readyState == CLOSING


def test_it_comes_once_whatever_follows(ws: WebSocket) -> None:
    """G5."""
    assert ws.closed_by_peer(1000, "", True) is not None
    assert ws.closed_by_peer(1000, "", True) is None
    assert ws.closed_by_peer(1006, "", False) is None
    assert ws.readyState == CLOSED


def test_in_a_close_listener_words_still_go_out_before_our_close(ws: WebSocket, port: Port) -> None:
    """§7: send() in a close listener."""
    ws.closed_by_peer(1000, "", True)
    ws.send("last words")
    ws.close(1000)
    assert port.out == ["last words", (1000, "")]
    assert ws.readyState == CLOSED == 3


def test_after_the_client_is_lost_everything_is_dropped_silently(ws: WebSocket, port: Port) -> None:
    """§7."""
    ws.closed_by_peer(1006, "gone", False)
    ws.send("x")
    ws.close(1000)
    assert port.out == []
    assert ws.readyState == CLOSED


# --- what comes before accept ---------------------------------------------------------------------


def test_events_are_kept_until_accept(owner: Owner, port: Port) -> None:
    """§7: accept() 300 ms after the response."""
    client, server = WebSocketPair()
    client.take()
    server.connect(port)
    assert server.arrived("a") is None
    assert server.arrived(b"b") is None
    assert server.closed_by_peer(1000, "", True) is None
    server.accept()
    first, second, third = port.events
    assert isinstance(first, MessageEvent)
    assert first.data == "a"
    assert isinstance(second, MessageEvent)
    assert type(second.data) is Bytes
    assert isinstance(third, CloseEvent)
    assert server.arrived("c") is not None


def test_what_is_kept_is_bounded_and_ends_in_one_close_event(port: Port) -> None:
    client, server = WebSocketPair()
    client.take()
    server.connect(port)
    for _ in range(100):
        server.arrived(b"x" * (MAX_FRESH_INBOX_BYTES // 50))
    assert [each[0] for each in port.out] == [1013]
    assert server.closed_by_peer(1006, "", False) is None
    server.accept()
    (event,) = port.events
    assert isinstance(event, CloseEvent)
    assert event.code == 1006


# --- listeners ------------------------------------------------------------------------------------


def test_listeners_run_in_the_order_they_were_added(ws: WebSocket) -> None:
    def one(event: Event) -> None: ...

    def other(event: Event) -> None: ...

    ws.addEventListener("message", one)
    ws.add_event_listener("message", other)
    ws.addEventListener("message", one)
    assert ws.listeners("message") == (one, other)
    ws.removeEventListener("message", one)
    ws.removeEventListener("close", one)
    assert ws.listeners("message") == (other,)


def test_a_listener_must_be_callable(ws: WebSocket) -> None:
    with pytest.raises(TypeError, match="not callable"):
        ws.addEventListener("message", "no")  # type: ignore[arg-type]


def test_once(ws: WebSocket) -> None:
    calls = []

    def listener(event: Event) -> None:
        calls.append(event)

    ws.addEventListener("message", listener, {"once": True})
    event = MessageEvent("x", ws)
    for _ in range(2):
        for each in ws.listeners("message"):
            each(event)
    assert calls == [event]
    ws.addEventListener("message", listener, {"once": True})
    ws.removeEventListener("message", listener)
    assert ws.listeners("message") == ()


@pytest.mark.parametrize("kind", ["message", "close", "error", "open"])
def test_properties_are_listeners_that_can_be_replaced(ws: WebSocket, kind: str) -> None:
    calls: list[str] = []
    name = f"on{kind}"
    assert getattr(ws, name) is None
    setattr(ws, name, lambda event: calls.append("first"))
    second = lambda event: calls.append("second")  # noqa: E731
    setattr(ws, name, second)
    assert getattr(ws, name) is second
    for each in ws.listeners(kind):
        each(Event(ws))
    assert calls == ["second"]
    setattr(ws, name, None)
    assert ws.listeners(kind) == ()


def test_binary_type_is_accepted(ws: WebSocket) -> None:
    """§6: either way messages arrive as bytes."""
    assert ws.binary_type == "arraybuffer"
    ws.binary_type = "blob"
    assert ws.binaryType == "blob"
    event = ws.arrived(b"x")
    assert event is not None
    assert event.data == b"x"
