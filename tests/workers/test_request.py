"""Request: what a client asks, or what an app asks of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPMethod

import pytest

from workers.body import take_body
from workers.exceptions import BodyUsedError
from workers.forms import FormData
from workers.request import Request
from workers.streams import ReadableStream
from workers.url import URL


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def from_wire(body: bytes | ReadableStream | None = None) -> Request:
    return Request.from_wire("POST", "http://h/p", [("Content-Type", "text/plain")], body)


def test_the_method_is_equal_to_its_name() -> None:
    request = Request("http://h/", method="post")
    assert request.method == "POST"
    assert request.method is HTTPMethod.POST
    assert Request("http://h/", method=HTTPMethod.PUT).method == "PUT"
    assert Request.from_wire("PURGE", "http://h/", []).method == "PURGE"


def test_defaults() -> None:
    request = Request("http://h/a?b=c")
    assert (request.method, request.url, request.redirect) == ("GET", "http://h/a?b=c", "follow")
    assert request.body is None
    assert request.body_used is request.bodyUsed is False
    assert request.cf is None
    assert request.cache == "default"
    assert request.referrer_policy == request.referrerPolicy == ""
    assert request.js_object is request


def test_a_request_of_a_client_does_not_follow_redirects() -> None:
    assert from_wire().redirect == "manual"


@pytest.mark.parametrize("url", ["/rel", "", "rel", "http://", "//h/p"])
def test_a_relative_url_is_refused(url: str) -> None:
    with pytest.raises(TypeError) as caught:
        Request(url)
    assert str(caught.value) == f"Invalid URL: {url}"


def test_urls_are_normalised_and_url_objects_accepted() -> None:
    assert Request("HTTP://Example.COM:80/a/../b").url == "http://example.com/b"
    assert Request(URL("http://h/x")).url == "http://h/x"


@pytest.mark.parametrize("method", ["", "A B", "ÄPFEL"])
def test_an_invalid_method_is_refused(method: str) -> None:
    with pytest.raises(TypeError, match="Invalid HTTP method"):
        Request("http://h/", method=method)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_have_no_body(method: str) -> None:
    with pytest.raises(TypeError, match="cannot have a body"):
        Request("http://h/", method=method, body="x")


def test_an_unknown_option_and_an_invalid_redirect_are_refused() -> None:
    with pytest.raises(TypeError, match="'heders'"):
        Request("http://h/", heders={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Invalid redirect value"):
        Request("http://h/", redirect="maybe")


async def test_the_body_implies_a_content_type_unless_one_is_given() -> None:
    assert Request("http://h/", method="POST", body="x").headers["content-type"] == (
        "text/plain;charset=UTF-8"
    )
    given = Request("http://h/", method="POST", body="x", headers={"Content-Type": "a/b"})
    assert given.headers["content-type"] == "a/b"
    assert Request("http://h/", method="POST", body=b"x").headers["content-type"] is None


async def test_a_body_is_read_once() -> None:
    request = from_wire(b"hello")
    assert await request.text() == "hello"
    assert request.body_used
    with pytest.raises(OSError, match="Body already used"):
        await request.bytes()
    with pytest.raises(BodyUsedError):
        request.clone()


async def test_no_body_reads_as_empty_any_number_of_times() -> None:
    request = from_wire()
    assert await request.text() == ""
    assert await request.bytes() == b""
    assert not request.body_used


async def test_every_reader() -> None:
    assert await from_wire(b"{}").json() == {}
    assert await from_wire(b"x").buffer() == b"x"
    assert await from_wire(b"x").arrayBuffer() == b"x"
    blob = await from_wire(b"x").blob()
    assert (await blob.bytes(), blob.content_type) == (b"x", "text/plain")
    form = FormData({"a": "1"})
    sent = Request("http://h/", method="POST", body=form)
    assert (await sent.form_data())["a"] == "1"


async def test_a_stream_body_is_joined() -> None:
    assert await from_wire(ReadableStream(chunks(b"a", b"b"))).text() == "ab"


async def test_the_body_property_is_always_the_same_stream() -> None:
    request = from_wire(b"abc")
    body = request.body
    assert body is not None
    assert request.body is body
    assert not request.body_used
    assert [chunk async for chunk in body] == [b"abc"]
    assert request.body_used
    with pytest.raises(BodyUsedError):
        await request.text()


async def test_a_clone_has_a_body_of_its_own() -> None:
    for source in (b"ab", ReadableStream(chunks(b"a", b"b"))):
        request = from_wire(source)
        clone = request.clone()
        clone.headers["x"] = "y"
        assert await clone.text() == await request.text() == "ab"
        assert request.headers["x"] is None


async def test_a_request_made_from_another_takes_its_body() -> None:
    first = from_wire(b"abc")
    second = Request(first, headers={"x": "y"})
    assert second.method == "POST"
    assert first.body_used
    assert await second.text() == "abc"
    with pytest.raises(BodyUsedError):
        Request(first)


async def test_a_new_body_leaves_the_old_one_alone() -> None:
    first = from_wire(b"abc")
    assert await Request(first, body="new").text() == "new"
    assert await first.text() == "abc"


async def test_new_takes_options_as_javascript_has_them() -> None:
    request = Request.new("http://h/", {"method": "PUT", "body": "x"}, headers={"a": "b"})
    assert (request.method, request.headers["a"], await request.text()) == ("PUT", "b", "x")


def test_take_body_uses_it_up() -> None:
    request = from_wire(b"x")
    assert take_body(request) == b"x"
    assert request.body_used
    with pytest.raises(BodyUsedError):
        take_body(request)


def test_a_locked_body_cannot_be_taken() -> None:
    request = from_wire(ReadableStream(chunks(b"a")))
    assert request.body is not None
    request.body.getReader()
    with pytest.raises(BodyUsedError):
        take_body(request)


def test_repr_is_that_of_the_sdk() -> None:
    assert repr(from_wire()) == "Request(method='POST', url='http://h/p')"
