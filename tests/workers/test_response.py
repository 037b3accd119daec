"""Response: what an app answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest

from workers.blob import Blob
from workers.exceptions import BodyUsedError, RangeError
from workers.forms import FormData
from workers.response import FetchResponse, Response
from workers.search_params import URLSearchParams
from workers.streams import ReadableStream
from workers.websocket import WebSocketPair

STATUS_TEXT = (
    "Responses may only be constructed with status codes in the range 200 to 599, inclusive."
)
BODY_TEXT = "Response with null body status (101, 204, 205, or 304) cannot have a body."


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_defaults() -> None:
    response = Response()
    assert (response.status, response.status_text, response.ok) == (200, "", True)
    assert response.body is None
    assert response.web_socket is response.webSocket is None
    assert response.url == ""
    assert isinstance(response, FetchResponse)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999])
def test_a_status_out_of_range_is_refused(status: int) -> None:
    with pytest.raises(RangeError) as caught:
        Response(None, status=status)
    assert str(caught.value) == STATUS_TEXT
    assert isinstance(caught.value, ValueError)


def test_a_websocket_needs_status_101() -> None:
    client, _ = WebSocketPair()
    for status in (None, 200):
        with pytest.raises(
            RangeError, match=r"^Responses with a WebSocket must have status code 101\.$"
        ):
            Response(None, status=status, web_socket=client)
    assert Response(None, status=101, web_socket=client).web_socket is client


def test_what_is_no_websocket_is_refused() -> None:
    with pytest.raises(TypeError) as caught:
        Response(None, status=101, web_socket="x")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Incorrect type for the 'webSocket' field on 'InitializerDict': the provided value is not "
        "of type 'WebSocket'."
    )


@pytest.mark.parametrize("status", [101, 204, 205, 304])
def test_null_body_statuses_have_no_body(status: int) -> None:
    socket = WebSocketPair()[0] if status == 101 else None
    with pytest.raises(TypeError) as caught:
        Response("x", status=status, web_socket=socket)
    assert str(caught.value) == BODY_TEXT
    assert Response("", status=status, web_socket=socket).body is None


async def test_a_body_that_was_not_awaited_is_called_that() -> None:
    async def count() -> int:
        return 1

    coroutine = count()
    with pytest.raises(TypeError, match=r"coroutine: it was not awaited: .*count"):
        Response(coroutine)  # type: ignore[arg-type]
    assert await coroutine == 1


@pytest.mark.parametrize(
    ("body", "name"), [(5, "int"), ([], "list"), ({}, "dict"), (object(), "object")]
)
def test_other_bodies_are_refused(body: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^Unsupported type in Response: {name}$"):
        Response(body)


async def test_what_a_body_may_be() -> None:
    assert await Response("hé").bytes() == "hé".encode()
    assert await Response(b"x").bytes() == b"x"
    assert await Response(bytearray(b"x")).bytes() == b"x"
    assert await Response(memoryview(b"x")).bytes() == b"x"
    assert await Response(Blob("x", "a/b")).text() == "x"
    assert await Response(URLSearchParams("a=1")).text() == "a=1"
    assert (await Response(FormData({"a": "1"})).formData())["a"] == "1"
    assert await Response(chunks(b"a", b"b")).text() == "ab"
    assert await Response(ReadableStream(chunks(b"a"))).string() == "a"
    assert bytes(await Response(b"x").memoryview()) == b"x"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("x", "text/plain;charset=UTF-8"),
        (b"x", None),
        (Blob("x", "a/b"), "a/b"),
        (URLSearchParams("a=1"), "application/x-www-form-urlencoded;charset=UTF-8"),
    ],
)
def test_the_body_implies_a_content_type(body: Any, content_type: str | None) -> None:
    assert Response(body).headers["content-type"] == content_type
    assert Response(body, headers={"content-type": "x/y"}).headers.get_all("content-type") == [
        "x/y"
    ]


async def test_json_builds_on_the_class_and_reads_on_an_instance() -> None:
    response = Response.json({"a": [1]}, status=HTTPStatus.CREATED, headers={"x": "y"})
    assert (response.status, response.headers["x"]) == (201, "y")
    assert response.headers["content-type"] == "application/json"
    assert await response.json() == {"a": [1]}
    assert await Response.from_json([1]).text() == json.dumps([1])


def test_json_keeps_a_content_type_and_takes_javascript_options() -> None:
    kept = Response.json({}, headers={"Content-Type": "application/problem+json"})
    assert kept.headers["content-type"] == "application/problem+json"
    assert Response.json({}, {"status": 404, "statusText": "Gone fishing"}).status == 404
    with pytest.raises(TypeError):
        Response.json(object())


def test_redirect() -> None:
    response = Response.redirect("http://h/a", 308)
    assert (response.status, response.headers["location"]) == (308, "http://h/a")
    assert Response.redirect("http://h/").status == 302
    with pytest.raises(ValueError, match="redirect status"):
        Response.redirect("http://h/", 200)
    with pytest.raises(TypeError, match="Invalid URL"):
        Response.redirect("/relative")


def test_error_is_of_type_error() -> None:
    assert (Response.error().type, Response.error().status) == ("error", 0)


def test_new_takes_both_spellings_and_a_response_as_options() -> None:
    assert Response.new("x", {"status": 201, "statusText": "Made"}).status_text == "Made"
    made = Response.new(None, status=202, status_text="Later", headers={"a": "b"})
    assert (made.status, made.statusText) == (202, "Later")
    assert Response.new("y", made).headers["a"] == "b"
    client, _ = WebSocketPair()
    assert Response.new(None, {"status": 101, "webSocket": client}).web_socket is client


async def test_a_response_of_a_response_is_like_it() -> None:
    first = Response("x", 201, "Made", {"a": "b"})
    second = Response(first)
    assert (second.status, second.status_text, second.headers["a"]) == (201, "Made", "b")
    assert await second.text() == "x"
    assert first.body_used
    with pytest.raises(ValueError, match="Expected no options"):
        Response(Response(), status=200)
    with pytest.raises(BodyUsedError):
        Response(first)


async def test_replace_body_keeps_the_rest() -> None:
    response = Response("x", 201, headers={"a": "b"}).replace_body("new")
    assert (response.status, response.headers["a"], await response.text()) == (201, "b", "new")


async def test_clone() -> None:
    response = Response(chunks(b"a", b"b"))
    clone = response.clone()
    assert await response.text() == await clone.text() == "ab"
    client, _ = WebSocketPair()
    with pytest.raises(TypeError) as caught:
        Response(None, status=101, web_socket=client).clone()
    assert str(caught.value) == "Cannot clone a response to a WebSocket handshake."


async def test_a_used_body_stays_used() -> None:
    response = Response("x")
    await response.text()
    with pytest.raises(OSError, match="Body already used"):
        await response.text()
    assert response.bodyUsed


def test_several_cookies_stay_several() -> None:
    response = Response(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert response.headers.getSetCookie() == ["a=1", "b=2"]


def test_raise_for_status() -> None:
    Response(status=399).raise_for_status()
    with pytest.raises(OSError, match="404 Client Error: Not Found"):
        Response(status=404).raise_for_status()


def test_repr() -> None:
    assert repr(Response("x", 404)) == (
        "Response(status=404, content_type='text/plain;charset=UTF-8')"
    )
