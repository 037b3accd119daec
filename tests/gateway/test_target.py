from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusal import Refusal
from gateway.target import absolute_url


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/", "http://h/"),
        ("/websocket", "http://h/websocket"),
        ("/websocket?x=1", "http://h/websocket?x=1"),
        ("/websocket/", "http://h/websocket/"),
        ("/WebSocket", "http://h/WebSocket"),
        ("/%77ebsocket", "http://h/%77ebsocket"),
        ("/a%2Fwebsocket", "http://h/a%2Fwebsocket"),
        ("/websocket/.", "http://h/websocket/"),
        ("/a/b/websocket", "http://h/a/b/websocket"),
        ("//websocket", "http://h//websocket"),
        ("/a/../websocket", "http://h/websocket"),
        ("/../../websocket", "http://h/websocket"),
        ("/a/%2e%2E/websocket", "http://h/websocket"),
        ("/a/.%2e", "http://h/"),
        ("/a/b/..", "http://h/a/"),
        ("/a/%2e/b", "http://h/a/b"),
        ("/other?next=/websocket", "http://h/other?next=/websocket"),
        ("/other?next=/../websocket", "http://h/other?next=/../websocket"),
        ("/websocket#frag", "http://h/websocket"),
        ("/a#b?c", "http://h/a"),
        ("/a?b#c?d", "http://h/a?b"),
        ("/a?", "http://h/a?"),
        ("/a\\b", "http://h/a/b"),
        ('/a"<>`{}^', "http://h/a%22%3C%3E%60%7B%7D%5E"),
        ("/a?\"<>'`{}", "http://h/a?%22%3C%3E%27`{}"),
        ("/a/.well-known/.x/..y", "http://h/a/.well-known/.x/..y"),
        ("*", "http://h/"),
        ("http://other:80/x/../y", "http://other/y"),
        ("http://other", "http://other/"),
        ("http://other?q", "http://other/?q"),
        ("HTTPS://Other:443/x", "https://other/x"),
        ("https://other:80/x", "https://other:80/x"),
    ],
)
def test_targets(target: str, url: str) -> None:
    """As the WHATWG URL Standard parses them; spec/websocket.md §1."""
    assert absolute_url(target, "h") == url


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8787", "localhost:8787"),
        ("localhost:80", "localhost"),
        ("localhost:", "localhost"),
        ("localhost:08787", "localhost:8787"),
        ("127.0.0.1:8787", "127.0.0.1:8787"),
        ("[::1]:8787", "[::1]:8787"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_hosts(host: str, authority: str) -> None:
    assert absolute_url("/", host) == f"http://{authority}/"


@pytest.mark.parametrize(
    "host",
    ["", "a b", "a/b", "a:b", "a@b", "user:pw@h", "h:99999", "h:1:2", "[::1", "a\\b", "a?b", "a#b",
     "h,h", "\xe9"],
)  # fmt: skip
def test_hosts_that_are_none(host: str) -> None:
    """RFC 9112 §3.2: 400."""
    answer = absolute_url("/", host)
    assert isinstance(answer, Refusal)
    assert answer.status == 400


@pytest.mark.parametrize("target", ["ws://x/y", "http:///x", "ftp://x", "foo", "", "http://a b/"])
def test_targets_that_are_none(target: str) -> None:
    answer = absolute_url(target, "h")
    assert isinstance(answer, Refusal)
    assert answer.status == 400


@given(st.text("/.%2eEa?#\\", max_size=30))
def test_normalising_again_changes_nothing(rest: str) -> None:
    url = absolute_url("/" + rest, "h")
    assert isinstance(url, str)
    assert absolute_url(url, "ignored.but.valid") == url
    path = url.removeprefix("http://h").partition("?")[0]
    assert not {".", ".."} & {part.lower().replace("%2e", ".") for part in path.split("/")}
