"""The events of WebSockets (WHATWG WebSockets §4)."""

from __future__ import annotations

import pytest

from workers.events import Bytes, CloseEvent, ErrorEvent, Event, MessageEvent, OpenEvent
from workers.websocket import WebSocket


@pytest.fixture
def socket() -> WebSocket:
    return WebSocket()


def test_types_and_targets(socket: WebSocket) -> None:
    events: list[Event] = [
        OpenEvent(socket),
        MessageEvent("text", socket),
        CloseEvent(1000, "bye", True, socket),
        ErrorEvent("text", None, socket),
    ]
    assert [event.type for event in events] == ["open", "message", "close", "error"]
    assert all(event.target is socket and event.currentTarget is socket for event in events)


def test_a_close_event_says_how_it_ended(socket: WebSocket) -> None:
    event = CloseEvent(1006, "gone", False, socket)
    assert (event.code, event.reason, event.wasClean, event.was_clean) == (
        1006,
        "gone",
        False,
        False,
    )


def test_an_error_event_carries_the_exception(socket: WebSocket) -> None:
    error = ValueError("no")
    event = ErrorEvent("words", error, socket)
    assert (event.message, event.error) == ("words", error)


def test_binary_data_are_bytes_that_answer_like_an_array_buffer() -> None:
    """§0, "raw values": bytes, and also ``to_py`` and ``to_bytes``."""
    data = Bytes(b"\x00\xff")
    assert data == b"\x00\xff"
    assert isinstance(data, bytes)
    assert type(data.to_bytes()) is bytes
    assert data.to_bytes() == data
    assert bytes(data.to_py()) == data
    assert data.byteLength == 2
