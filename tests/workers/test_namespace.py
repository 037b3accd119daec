"""Ids, namespaces and stubs: rows I1-I14, F1 and the stub's own names of the reference."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.workers.fakes import FakeNamespaceHost
from workers.exceptions import JsException
from workers.namespace import DurableObjectId, DurableObjectNamespace
from workers.request import Request


@pytest.fixture
def host() -> FakeNamespaceHost:
    return FakeNamespaceHost("uk1")


@pytest.fixture
def rooms(host: FakeNamespaceHost) -> DurableObjectNamespace:
    return DurableObjectNamespace(host)


def test_an_id_from_a_name(rooms: DurableObjectNamespace) -> None:
    room = rooms.idFromName("room")
    assert room.toString() == room.to_string() == str(room)
    assert str(room) == "0ed66600c709a125c5ec81ef13cc8a6dc25b42e439451bf8bd32fa04a4f0c715"
    assert room.name == "room"
    assert room.toJSON() == {"name": "room"}
    assert rooms.idFromName(5).name == "5"
    with pytest.raises(TypeError, match="Failed to execute 'idFromName'"):
        rooms.idFromName()


def test_an_id_from_a_string_has_no_name(rooms: DurableObjectNamespace) -> None:
    room = rooms.idFromName("room")
    back = rooms.idFromString(str(room).upper())
    assert back.name is None
    assert back.equals(room)
    assert back == room
    assert len({back, room}) == 1
    assert rooms.idFromString(room) == room
    with pytest.raises(TypeError, match=r"^Invalid Durable Object ID: must be 64 hex digits$"):
        rooms.idFromString("abc")
    with pytest.raises(TypeError, match="not valid for this namespace"):
        rooms.idFromString("0" * 64)


def test_unique_ids(rooms: DurableObjectNamespace) -> None:
    first, second = rooms.newUniqueId(), rooms.new_unique_id({"jurisdiction": None})
    assert first != second
    assert first.name is None


def test_jurisdictions_do_not_exist(rooms: DurableObjectNamespace) -> None:
    assert rooms.jurisdiction(None) is rooms
    for call in (
        lambda: rooms.newUniqueId({"jurisdiction": "eu"}),
        lambda: rooms.newUniqueId(jurisdiction="eu"),
        lambda: rooms.jurisdiction("eu"),
    ):
        with pytest.raises(JsException, match="Jurisdiction restrictions are not implemented"):
            call()


def test_equals_wants_an_id(rooms: DurableObjectNamespace) -> None:
    other = DurableObjectNamespace(FakeNamespaceHost("other"))
    assert not rooms.idFromName("a").equals(other.idFromName("a"))
    with pytest.raises(TypeError, match="'equals' on 'DurableObjectId'"):
        rooms.idFromName("a").equals("x")  # type: ignore[arg-type]


def test_get_makes_a_stub_and_nothing_else(
    rooms: DurableObjectNamespace, host: FakeNamespaceHost
) -> None:
    stub = rooms.get(rooms.idFromName("room"), {"locationHint": "weur"})
    assert stub.id == rooms.idFromName("room")
    assert stub.name == "room"
    (channel,) = host.channels
    assert channel.object_id == stub.id.raw
    assert not channel.calls
    assert not channel.requests
    assert rooms.get_by_name("room").id == rooms.getByName("room").id == stub.id


def test_get_refuses_what_is_no_id_of_its_own(rooms: DurableObjectNamespace) -> None:
    with pytest.raises(TypeError) as caught:
        rooms.get("room")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Failed to execute 'get' on 'DurableObjectNamespace': parameter 1 is not of type "
        "'DurableObjectId'."
    )
    foreign = DurableObjectNamespace(FakeNamespaceHost("other")).idFromName("a")
    with pytest.raises(TypeError, match=r"^Durable Object ID is not valid for this namespace\.$"):
        rooms.get(foreign)
    assert rooms.get(DurableObjectId(rooms.idFromName("a").raw)).name == "a"


def test_routing_modes(rooms: DurableObjectNamespace) -> None:
    rooms.getByName("a", {"routingMode": "primary-only"})
    with pytest.raises(ValueError, match=r"^unknown routingMode: x$"):
        rooms.getByName("a", {"routingMode": "x"})


async def test_fetch_takes_a_url_or_a_request(
    rooms: DurableObjectNamespace, host: FakeNamespaceHost
) -> None:
    stub = rooms.getByName("room")
    assert await (await stub.fetch("http://x/y")).text() == "from the object"
    request = Request("http://x/z", method="POST", body="b")
    await stub.fetch(request)
    await stub.fetch("http://x/w", method="PUT", headers={"a": "b"})
    first, second, third = host.channels[0].requests
    assert first.url == "http://x/y"
    assert second is request
    assert (third.method, third.headers["a"]) == ("PUT", "b")
    with pytest.raises(TypeError, match=r"^Invalid URL: /rel$"):
        await stub.fetch("/rel")


async def test_every_other_name_is_a_method(
    rooms: DurableObjectNamespace, host: FakeNamespaceHost
) -> None:
    stub = rooms.getByName("room")
    assert await stub.add_message("hi", n=1) == ("add_message", ("hi",), {"n": 1})
    unawaited = stub._private()
    assert [call[0] for call in host.channels[0].calls] == ["add_message", "_private"]
    assert "not awaited" in repr(unawaited)


def test_names_that_never_become_calls(
    rooms: DurableObjectNamespace, host: FakeNamespaceHost
) -> None:
    stub: Any = rooms.getByName("room")
    assert not hasattr(stub, "then")
    assert stub.toString() == "[object DurableObject]"
    assert stub.valueOf() is stub
    assert stub.hasOwnProperty("id")
    with pytest.raises(TypeError, match=r"^Illegal constructor$"):
        stub.constructor()
    with pytest.raises(NotImplementedError):
        stub.connect("h:1")
    assert copy.copy(stub).id == stub.id
    assert host.channels[0].calls == []
