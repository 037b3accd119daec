"""``fetch``: one request, handed to the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.workers.fakes import FakeHost
from workers.fetch import fetch
from workers.host import enter_host, leave_host
from workers.request import Request
from workers.response import Response


@pytest.fixture
def host() -> Iterator[FakeHost]:
    host = FakeHost()
    token = enter_host(host)
    yield host
    leave_host(token)


async def test_a_url_with_options(host: FakeHost) -> None:
    response = await fetch("http://h/", method="POST", body="x", headers={"a": "b"})
    assert await response.text() == "from outside"
    (request,) = host.requests
    assert (request.method, request.headers["a"], await request.text()) == ("POST", "b", "x")


async def test_a_request_goes_as_it_is(host: FakeHost) -> None:
    request = Request("http://h/")
    await fetch(request)
    assert host.requests == [request]


async def test_options_are_keywords_only(host: FakeHost) -> None:
    with pytest.raises(TypeError, match=r"fetch\(\) takes 1 positional argument but 2 were given"):
        await cast("Any", fetch)("http://h/", {"method": "POST"})


async def test_a_fetcher_is_used_instead_of_the_host(host: FakeHost) -> None:
    async def fetcher(request: Request) -> Response:
        return Response(request.url)

    assert await (await fetch("http://h/x", fetcher=fetcher)).text() == "http://h/x"
    assert host.requests == []
