"""Which request a redirect asks for (WHATWG Fetch §4.4)."""

from __future__ import annotations

import pytest

from shard.redirects import Hop, next_hop

HEADERS = [("Authorization", "secret"), ("Content-Type", "text/plain"), ("X-A", "b")]


def hop(method: str = "POST", *, streams: bool = False) -> Hop:
    return Hop(method, "https://a.test/one/two?x", HEADERS, None if streams else b"body", streams)


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ],
)
def test_the_method_of_the_next_request(status: int, method: str, becomes: str) -> None:
    followed = next_hop(hop(method), status, "/x")
    assert followed.method == becomes
    kept = becomes == method
    assert (followed.body is not None) is kept
    assert (("Content-Type", "text/plain") in followed.headers) is kept


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("three", "https://a.test/one/three"),
        ("/three?y", "https://a.test/three?y"),
        ("//b.test/x", "https://b.test/x"),
        ("http://a.test/x#fragment", "http://a.test/x"),
    ],
)
def test_a_location_may_be_relative(location: str, url: str) -> None:
    assert next_hop(hop(), 307, location).url == url


@pytest.mark.parametrize(
    ("location", "told"),
    [("https://a.test/x", True), ("http://a.test/x", False), ("https://a.test:444/", False)],
)
def test_secrets_stay_within_their_origin(location: str, told: bool) -> None:
    followed = next_hop(hop(), 307, location)
    assert (("Authorization", "secret") in followed.headers) is told
    assert ("X-A", "b") in followed.headers


def test_a_stream_cannot_be_sent_twice() -> None:
    with pytest.raises(TypeError, match="stream"):
        next_hop(hop(streams=True), 307, "/x")
    assert next_hop(hop(streams=True), 303, "/x").streams is False


def test_a_location_that_is_no_url() -> None:
    with pytest.raises(TypeError, match="invalid URL"):
        next_hop(hop(), 302, "http://[")
