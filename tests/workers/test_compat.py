"""The ``js`` and ``pyodide`` modules, imported as an app imports them."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.fakes import FakeHost, Ready
from workers import compat
from workers.convert import import_from_javascript, python_from_rpc, python_to_rpc
from workers.exceptions import DataCloneError, InvalidAccessError, JsException, RangeError
from workers.host import enter_host, leave_host
from workers.request import Request
from workers.serialization import deserialize, serialize


@pytest.fixture
def host() -> Iterator[FakeHost]:
    host = FakeHost(ROOMS=1)
    token = enter_host(host)
    yield host
    leave_host(token)


@pytest.fixture
def app_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path, compat.PATH])
    yield
    for name in list(sys.modules):
        if name.partition(".")[0] in ("js", "pyodide"):
            del sys.modules[name]


@pytest.fixture
def js(app_path: None) -> Any:
    return importlib.import_module("js")


@pytest.fixture
def ffi(app_path: None) -> Any:
    return importlib.import_module("pyodide.ffi")


def test_the_path_holds_these_two_packages_and_nothing_else_to_import() -> None:
    names = {path.stem for path in Path(compat.PATH).iterdir()} - {"__pycache__", "__init__"}
    assert names == {"js", "pyodide"}


def test_constructors_are_those_of_workers(js: Any) -> None:
    assert js.Response.new("x", {"status": 201}).status == 201
    assert js.Request.new("http://h/", method="PUT").method == "PUT"
    assert js.Headers.new({"A": "b"}).get("a") == "b"
    assert js.URL.new("/x", "http://h").href == "http://h/x"
    assert js.FormData.new().keys() == []
    client, server = js.WebSocketPair.new().object_values()
    assert client.other is server
    assert js.Object.values(js.WebSocketPair.new())[0].other is not None


def test_a_missing_name_is_told(js: Any) -> None:
    with pytest.raises(AttributeError, match="module 'js' has no 'Proxy' here"):
        _ = js.Proxy
    assert not hasattr(js, "__wrapped__")


def test_date(js: Any) -> None:
    assert isinstance(js.Date.now(), int)
    moment = js.Date.new(1_769_860_800_123)
    assert moment.toISOString() == moment.toJSON() == "2026-01-31T12:00:00.123Z"
    assert moment.getTime() == moment.valueOf() == 1_769_860_800_123
    assert js.Date.new("2026-01-31").getTime() == js.Date.parse("2026-01-31T00:00:00Z")
    assert js.Date.new(moment).getTime() == moment.getTime()
    local = js.Date.new(2026, 12, 31, 23, 59, 58, 7)
    assert (local.getFullYear(), local.getMonth(), local.getDate()) == (2027, 0, 31)
    assert (local.getHours(), local.getMinutes(), local.getSeconds()) == (23, 59, 58)
    assert local.getMilliseconds() == 7
    assert deserialize(serialize(moment)) == dt.datetime(2026, 1, 31, 12, 0, 0, 123000, dt.UTC)
    assert abs(js.Date.new().getTime() - js.Date.now()) < 60_000
    for bad in ("never", math.nan, math.inf, 1e20):
        with pytest.raises(RangeError, match="Invalid time value"):
            js.Date.new(bad)


def test_json(js: Any) -> None:
    value = {"a": [1, 2.0, math.nan, None, True], "d": js.Date.new(0), "é": "é", 1: (2,)}
    assert js.JSON.stringify(value) == (
        '{"a":[1,2,null,null,true],"d":"1970-01-01T00:00:00.000Z","é":"é","1":[2]}'
    )
    assert js.JSON.stringify([1], None, 2) == "[\n  1\n]"
    assert js.JSON.parse('{"a":{"b":1}}').a.b == 1
    with pytest.raises(ValueError, match="Expecting"):
        js.JSON.parse("{")


def test_collections(js: Any) -> None:
    assert js.Object.fromEntries([["a", 1]]).a == 1
    assert js.Object.entries(js.Object.assign({}, {"a": 1}, None)) == [["a", 1]]
    assert js.Object.keys(js.Object.new()) == js.Object.values({}) == []
    mapping = js.Map.new([[1, 2]]).set("k", "v")
    assert (mapping.get("k"), mapping.has(1), mapping.size) == ("v", True, 2)
    assert mapping.entries() == [[1, 2], ["k", "v"]]
    assert mapping.delete(1)
    assert not mapping.delete(1)
    items = js.Set.new([1])
    items.add(2)
    assert (items.has(2), items.size, items.delete(1), items.to_py()) == (True, 2, True, {2})
    array = js.Array.new(1, 2)
    assert (array.push(3), array.length, js.Array.isArray(array)) == (3, 3, True)
    seen: list[Any] = []
    array.forEach(seen.append)
    mapping.forEach(lambda value, key: seen.append((key, value)))
    assert seen == [1, 2, 3, ("k", "v")]
    assert deserialize(serialize([mapping, items, array])) == [{"k": "v"}, {2}, [1, 2, 3]]


def test_buffers(js: Any) -> None:
    array = js.Uint8Array.new([1, 2, 3])
    assert (array.length, array.byteLength, array.to_bytes()) == (3, 3, b"\1\2\3")
    assert bytes(array.to_py()) == b"\1\2\3"
    array.set(b"\x09", 2)
    assert array.slice(1) == b"\2\x09"
    with pytest.raises(ValueError, match="out of bounds"):
        array.set(b"ab", 2)
    assert js.ArrayBuffer.new(2) == b"\0\0"
    assert js.Uint8Array.new(b"abcd", 1, 2) == b"bc"
    assert js.TextDecoder.new().decode(js.TextEncoder.new().encode("é")) == "é"


def test_numbers(js: Any) -> None:
    assert js.Number("12") == 12
    assert js.Number("0x10") == 16
    assert js.Number("1.5") == 1.5
    assert js.Number("") == js.Number(None) == 0
    assert js.isNaN("x")
    assert js.parseInt("12px") == 12
    assert js.parseInt("ff", 16) == 255
    assert js.parseFloat(" -1.5e2x") == -150.0
    assert math.isnan(js.parseInt("x"))
    assert js.Number.isInteger(2.0)
    assert not js.Number.isInteger(True)
    assert js.undefined is None


def test_errors_can_be_raised_and_caught_as_pythons(js: Any) -> None:
    with pytest.raises(JsException, match="boom"):
        raise js.Error.new("boom")
    with pytest.raises(TypeError, match="type"):
        raise js.TypeError.new("type")
    with pytest.raises(ValueError, match="range"):
        raise js.RangeError.new("range")


def test_base64_and_uri(js: Any) -> None:
    assert js.btoa("hé") == "aOk="
    assert js.atob(" aO\nk") == "hé"
    with pytest.raises(InvalidAccessError, match="Latin1"):
        js.btoa("€")
    with pytest.raises(InvalidAccessError, match="base64"):
        js.atob("a$")
    assert js.encodeURIComponent("a b/é'") == "a%20b%2F%C3%A9'"
    assert js.decodeURIComponent("%C3%A9") == "é"


def test_timers_go_to_the_host(js: Any, host: FakeHost) -> None:
    seen: list[int] = []
    timer = js.setTimeout(seen.append, 1500, 7)
    js.setInterval(seen.append, -5)
    js.queueMicrotask(seen.clear)
    (callback, delay_s, repeat), (_, zero, again) = host.timers
    callback()
    assert (seen, delay_s, repeat, zero, again) == ([7], 1.5, False, 0.0, True)
    js.clearTimeout(timer)
    js.clearInterval(None)
    assert timer.cancelled
    assert host.microtasks == [seen.clear]
    with pytest.raises(TypeError, match="a timer needs a function"):
        js.setTimeout("code", 0)


async def test_fetch_takes_a_dict(js: Any, host: FakeHost) -> None:
    await js.fetch("http://h/", {"method": "POST", "body": "x"})
    await js.fetch(Request("http://i/"))
    assert [(str(r.method), r.url) for r in host.requests] == [
        ("POST", "http://h/"),
        ("GET", "http://i/"),
    ]


def test_console(js: Any, host: FakeHost) -> None:
    js.console.log("a", {"b": [1]}, None)
    js.console.warn("w")
    js.console.error(ValueError("e"))
    assert host.lines == [("info", 'a {"b":[1]} None'), ("warning", "w"), ("error", "e")]


def test_console_outside_an_app_is_logging(js: Any, caplog: pytest.LogCaptureFixture) -> None:
    js.console.error("no host")
    assert caplog.messages == ["no host"]


def test_clone_and_crypto(js: Any) -> None:
    value = {"a": [1]}
    clone = js.structuredClone(value)
    assert clone == value
    assert clone["a"] is not value["a"]
    with pytest.raises(DataCloneError):
        js.structuredClone(len)
    assert len(js.crypto.randomUUID()) == 36
    array = js.Uint8Array.new(16)
    assert js.crypto.getRandomValues(array) is array
    assert any(array)


def test_to_js_leaves_values_as_they_are(js: Any, ffi: Any) -> None:
    value = [1, {"a": (2,)}]
    assert ffi.to_js(value) is value
    converted = ffi.to_js(value, dict_converter=js.Object.fromEntries)
    assert converted == [1, {"a": [2]}]
    assert converted[1].a == [2]
    assert not isinstance(value, ffi.JsProxy)
    assert ffi.jsnull is None
    assert ffi.JsException is JsException


async def test_proxies(ffi: Any) -> None:
    async def listener(event: int) -> int:
        return event + 1

    proxy = ffi.create_proxy(listener)
    assert await proxy(1) == 2
    assert proxy == listener
    assert proxy == proxy.copy()
    assert hash(proxy) == hash(listener)
    assert proxy.__name__ == "listener"
    proxy.destroy()
    ffi.destroy_proxies([proxy])
    once = ffi.create_once_callable(lambda: 5)
    assert once() == 5
    with pytest.raises(RuntimeError, match="can only be called once"):
        once()


def test_run_sync(ffi: Any, host: FakeHost) -> None:
    assert ffi.can_run_sync()
    assert ffi.run_sync(Ready(5)) == 5


def test_run_sync_outside_an_app(ffi: Any) -> None:
    assert not ffi.can_run_sync()
    with pytest.raises(RuntimeError, match="inside a running app"):
        ffi.run_sync(Ready(5))


async def test_pyodide_http(app_path: None, host: FakeHost) -> None:
    http = importlib.import_module("pyodide.http")
    response = await http.pyfetch("http://h/", method="POST")
    assert isinstance(response, http.FetchResponse)
    assert importlib.import_module("pyodide").__version__ != "0.26.0a2"


def test_import_from_javascript(host: FakeHost) -> None:
    module = import_from_javascript("cloudflare:workers")
    assert module.env.ROOMS == 1
    module.waitUntil("x")
    assert host.waited == ["x"]
    with pytest.raises(ImportError, match="'node:fs'"):
        import_from_javascript("node:fs")


async def test_rpc_conversions_are_checks() -> None:
    value: dict[str, list[Any]] = {"a": [1, (2,)]}
    value["a"].append(value["a"])
    assert python_to_rpc(value) is value
    assert python_from_rpc(value) is value
    pending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(TypeError, match=r"Awaitable .*Future"):
        python_to_rpc({"a": [pending]})
    pending.cancel()
