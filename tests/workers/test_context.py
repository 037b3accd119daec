"""``ctx``: what is checked before the host is asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.fakes import FakeStateHost
from workers.auto_response import WebSocketRequestResponsePair
from workers.context import DurableObjectState, ExecutionContext
from workers.exceptions import DurableObjectAbort, JsException, RangeError
from workers.websocket import WebSocketPair


@pytest.fixture
def host() -> FakeStateHost:
    return FakeStateHost()


@pytest.fixture
def ctx(host: FakeStateHost) -> DurableObjectState:
    return DurableObjectState(host)


def test_what_it_shows(ctx: DurableObjectState, host: FakeStateHost) -> None:
    assert ctx.id.name == "room"
    assert str(ctx.id) == str(host.object_id)
    assert ctx.storage is host.storage
    assert (ctx.props, ctx.exports, ctx.container) == ({}, {}, None)


def test_wait_until_takes_anything(ctx: DurableObjectState, host: FakeStateHost) -> None:
    ctx.waitUntil(None)
    ctx.wait_until(5)
    assert host.waited == [None, 5]
    request = ExecutionContext(host)
    request.waitUntil("x")
    request.passThroughOnException()
    assert host.waited[-1] == "x"


async def test_block_concurrency_while(ctx: DurableObjectState) -> None:
    assert await ctx.blockConcurrencyWhile(lambda: 5) == 5

    async def initialise() -> int:
        return 6

    coroutine = initialise()
    with pytest.raises(TypeError, match="pass `initialize`, not"):
        ctx.block_concurrency_while(coroutine)  # type: ignore[call-overload]
    await coroutine


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (None, "Application called abort() to reset Durable Object."),
        ("why", "why"),
        (RangeError("custom"), "custom"),
    ],
)
def test_abort_tells_the_host_and_stops_the_caller(
    ctx: DurableObjectState, host: FakeStateHost, reason: Any, text: str
) -> None:
    with pytest.raises(DurableObjectAbort):
        ctx.abort(reason)
    ((error, retry_alarm),) = host.aborts
    assert (str(error), retry_alarm) == (text, True)
    if isinstance(reason, Exception):
        assert error is reason


def test_abort_passes_every_except_exception() -> None:
    assert not issubclass(DurableObjectAbort, Exception)


def test_abort_can_drop_the_alarm(ctx: DurableObjectState, host: FakeStateHost) -> None:
    with pytest.raises(DurableObjectAbort):
        ctx.abort("x", {"retryAlarm": False})
    with pytest.raises(DurableObjectAbort):
        ctx.abort(retryAlarm=False)
    assert [retry for _, retry in host.aborts] == [False, False]


def test_accepting_sockets(ctx: DurableObjectState, host: FakeStateHost) -> None:
    _, first = WebSocketPair()
    _, second = WebSocketPair()
    ctx.acceptWebSocket(first, ["a", "b", "a"])
    ctx.accept_web_socket(second)
    assert ctx.getWebSockets() == ctx.get_web_sockets() == [first, second]
    assert ctx.getWebSockets("b") == [first]
    assert ctx.getTags(first) == ctx.get_tags(first) == ["a", "b"]


def test_a_socket_is_accepted_once(ctx: DurableObjectState) -> None:
    client, server = WebSocketPair()
    ctx.acceptWebSocket(server)
    with pytest.raises(JsException) as caught:
        ctx.acceptWebSocket(server)
    assert str(caught.value) == (
        "Cannot call `acceptWebSocket()` if the WebSocket was already accepted via `accept()`"
    )
    with pytest.raises(JsException) as caught:
        ctx.acceptWebSocket(client)
    assert str(caught.value) == (
        "Cannot call `acceptWebSocket()` on this WebSocket because its pair has already been "
        "accepted or used in a Response."
    )


def test_what_is_no_socket_is_refused(ctx: DurableObjectState) -> None:
    for name in ("acceptWebSocket", "getTags", "getWebSocketAutoResponseTimestamp"):
        with pytest.raises(TypeError) as caught:
            getattr(ctx, name)("x")
        assert str(caught.value) == (
            f"Failed to execute '{name}' on 'DurableObjectState': parameter 1 is not of type "
            "'WebSocket'."
        )


def test_tags_are_limited(ctx: DurableObjectState) -> None:
    server = WebSocketPair()[1]
    with pytest.raises(TypeError, match="parameter 2 is not of type 'Array'"):
        ctx.acceptWebSocket(server, "tag")
    with pytest.raises(JsException, match=r"^a Hibernatable WebSocket .* more than 10 tags$"):
        ctx.acceptWebSocket(server, [str(n) for n in range(11)])
    long = "é" * 257
    with pytest.raises(JsException) as caught:
        ctx.acceptWebSocket(server, [long])
    assert str(caught.value) == f'"{long}" is longer than the max tag length (256 characters).'
    ctx.acceptWebSocket(server, ["é" * 256, *"ab" * 9])


def test_tags_of_a_socket_that_is_not_held(ctx: DurableObjectState, host: FakeStateHost) -> None:
    server = WebSocketPair()[1]
    with pytest.raises(JsException, match=r"^you must call 'acceptWebSocket\(\)' before"):
        ctx.getTags(server)
    server.host = host
    server.accept()
    with pytest.raises(JsException, match=r"^only hibernatable websockets can have tags\.$"):
        ctx.getTags(server)


def test_auto_response(ctx: DurableObjectState, host: FakeStateHost) -> None:
    pair = WebSocketRequestResponsePair("ping", "pong")
    ctx.setWebSocketAutoResponse(pair)
    assert ctx.getWebSocketAutoResponse() is pair
    assert (pair.request, pair.getResponse()) == ("ping", "pong")
    ctx.setWebSocketAutoResponse()
    assert ctx.getWebSocketAutoResponse() is None
    with pytest.raises(TypeError, match="'WebSocketRequestResponsePair'"):
        ctx.setWebSocketAutoResponse(("a", "b"))  # type: ignore[arg-type]
    assert ctx.getWebSocketAutoResponseTimestamp(WebSocketPair()[1]) is None


def test_an_auto_response_is_limited_in_bytes() -> None:
    WebSocketRequestResponsePair("é" * 1024, "x" * 2048)
    with pytest.raises(RangeError) as caught:
        WebSocketRequestResponsePair("x" * 2049, "")
    assert str(caught.value) == (
        "Request cannot be larger than 2048 bytes. A request of size 2049 was provided."
    )
    with pytest.raises(RangeError, match=r"^Response .* A response of size 2050 was provided\.$"):
        WebSocketRequestResponsePair.new("", "é" * 1025)


def test_event_timeout(ctx: DurableObjectState) -> None:
    ctx.setHibernatableWebSocketEventTimeout(604_800_000)
    assert ctx.getHibernatableWebSocketEventTimeout() == 604_800_000
    ctx.setHibernatableWebSocketEventTimeout(0)
    assert ctx.getHibernatableWebSocketEventTimeout() is None
    with pytest.raises(JsException, match=r"^Event timeout should not exceed 604800000 ms\.$"):
        ctx.setHibernatableWebSocketEventTimeout(604_800_001)
