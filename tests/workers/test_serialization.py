"""Values as bytes: what goes in comes out, or is refused in words."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import math
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from http import HTTPMethod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.fakes import FakeChannel
from workers.blob import Blob, File
from workers.convert import JsDict
from workers.exceptions import DataCloneError, JsException, RemoteError, get_flags, set_flags
from workers.forms import FormData
from workers.headers import Headers
from workers.request import Request
from workers.response import Response
from workers.rpc import RpcPromise, RpcStub, RpcTarget
from workers.serialization import (
    MAX_CALL_BYTES,
    deserialize,
    deserialize_call,
    serialize,
    serialize_call,
    serialize_error,
    serialize_result,
)
from workers.streams import ReadableStream
from workers.url import URL
from workers.websocket import WebSocketPair


def round_trip(value: Any) -> Any:
    return deserialize(serialize(value))


any_text = st.text(st.characters(exclude_categories=[]), max_size=5)
hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary(max_size=5)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes(timezones=st.just(dt.UTC)),
    lambda inner: st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.sets(hashables, max_size=3)
    ),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type, all the way down; -0.0 is not 0.0."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and len(left) == len(right)
            and all(
                same(a, b) and same(x, y)
                for (a, x), (b, y) in zip(left.items(), right.items(), strict=True)
            )
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and left == right
    return bool(left == right)


@given(values)
def test_round_trip(value: Any) -> None:
    assert same(value, round_trip(value))


@given(st.binary(max_size=40))
def test_malformed_bytes_raise_nothing_but_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        deserialize(data)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63), (1 << 64) - 1, 1 << 64, -(1 << 64), 10**99])
def test_integers_of_any_size(value: int) -> None:
    assert round_trip(value) == value


def test_nan_is_nan() -> None:
    assert math.isnan(round_trip(math.nan))


def test_a_float_stays_a_float() -> None:
    assert type(round_trip(1.0)) is float
    assert type(round_trip(1)) is int


def test_tuples_arrive_as_lists_and_buffers_as_bytes() -> None:
    assert round_trip((1, (2,))) == [1, [2]]
    assert round_trip([bytearray(b"a"), memoryview(b"b")]) == [b"a", b"b"]
    with pytest.raises(DataCloneError, match="not C-contiguous"):
        serialize(memoryview(b"abcd")[::2])


def test_tuples_stay_tuples_where_lists_cannot_be() -> None:
    assert round_trip({(1, (2, 3)): "x"}) == {(1, (2, 3)): "x"}
    assert round_trip({(1, 2)}) == {(1, 2)}
    assert round_trip([{frozenset({(1,)}): {(2,): 3}}]) == [{frozenset({(1,)}): {(2,): 3}}]


def test_dicts_have_attribute_access() -> None:
    value = round_trip({"a": {"b": 1}})
    assert isinstance(value, JsDict)
    assert value.a.b == value["a"]["b"] == 1
    with pytest.raises(AttributeError):
        _ = value.missing


def test_subclasses_of_built_in_types_arrive_as_those() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    point = namedtuple("point", "x y")
    value = [OrderedDict(a=1), defaultdict(int, b=2), Level.LOW, HTTPMethod.GET, point(1, 2)]
    back = round_trip(value)
    assert back == [{"a": 1}, {"b": 2}, 1, "GET", [1, 2]]
    assert [type(item) for item in back] == [JsDict, JsDict, int, str, list]


def test_datetimes_arrive_in_utc() -> None:
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    moment = dt.datetime(2026, 1, 31, 12, 0, 0, 123456, zone)
    assert round_trip(moment) == moment
    assert round_trip(moment).tzinfo is dt.UTC
    naive = dt.datetime(2026, 1, 31, 12)
    assert round_trip(naive) == naive.astimezone()
    with pytest.raises(DataCloneError, match="out of range"):
        serialize(dt.datetime(9999, 12, 31, 23, 59, tzinfo=dt.timezone(-dt.timedelta(hours=1))))


@dataclasses.dataclass
class Point:
    x: int = 0


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        (Point(), "Point"),
        (lambda: 1, "function"),
        (int, "type"),
        (range(3), "range"),
        (1j, "complex"),
        (dt.date(2026, 1, 1), "date"),
        ((_ for _ in ""), "generator"),
        (FormData(), "FormData"),
        (URL("http://h/"), "URL"),
        (WebSocketPair()[0], "WebSocket"),
        (Request("http://h/"), "Request"),
        (RpcTarget(), "RpcTarget"),
        (Blob("x"), "Blob"),
        (Headers(), "Headers"),
        (Response(), "Response"),
    ],
)
def test_refused(value: Any, name: str) -> None:
    for nested in (value, [value], {"a": {"b": value}}):
        with pytest.raises(DataCloneError) as caught:
            serialize(nested)
        assert str(caught.value) == (
            f'Could not serialize object of type "{name}". '
            "This type does not support serialization."
        )


async def test_awaitables_are_refused_by_name() -> None:
    async def answer() -> int:
        return 1

    coroutine = answer()
    with pytest.raises(TypeError, match=r"Awaitable <class 'coroutine'> cannot be sent over RPC"):
        serialize([coroutine])
    await coroutine
    with pytest.raises(TypeError, match=r"Awaitable .*RpcPromise"):
        serialize(RpcPromise(FakeChannel().call("x", (), {}), "x"))


def test_a_value_that_contains_itself_is_refused_with_the_place() -> None:
    value: dict[str, Any] = {"a": [1, {}]}
    value["a"][1]["back"] = value
    with pytest.raises(DataCloneError) as caught:
        serialize(value)
    assert str(caught.value) == (
        "Could not serialize a value that contains itself: value['a'][1]['back']."
    )


def test_a_deep_value_is_refused_and_the_next_one_is_not() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(DataCloneError, match="nested more than 500 levels"):
        serialize(deep)
    assert round_trip([[1]]) == [[1]]


def test_shared_references_arrive_twice() -> None:
    shared = [1]
    first, second = round_trip([shared, shared])
    assert first == second
    assert first is not second


def test_the_limit_of_a_call_is_told_with_the_size() -> None:
    half = b"x" * (MAX_CALL_BYTES // 2)
    with pytest.raises(JsException) as caught:
        serialize_result([half, half])
    assert str(caught.value).startswith(
        "Serialized RPC arguments or return values are limited to 32MiB, but the size of this "
        "value was: 33554"
    )
    assert str(caught.value).endswith(" bytes.")
    assert serialize(b"x" * MAX_CALL_BYTES)


def test_arguments_of_a_call() -> None:
    assert deserialize_call(serialize_call((1, "a"), {})) == ([1, "a"], {})
    assert deserialize_call(serialize_call((), {"k": None})) == ([], {"k": None})
    with pytest.raises(ValueError, match="malformed"):
        deserialize_call(serialize("text"))


# --- exceptions -----------------------------------------------------------------------------


class AppError(ValueError):
    """An app's own, whose constructor takes something else than its arguments."""

    def __init__(self, code: int, detail: object) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_keeps_class_message_and_properties() -> None:
    back = round_trip(AppError(7, {"why": "x"}))
    assert type(back) is AppError
    assert (str(back), back.code, back.detail) == ("code 7", 7, {"why": "x"})
    assert not hasattr(back, "__notes__")


def test_a_raised_exception_brings_its_traceback_as_a_note() -> None:
    back = deserialize(serialize_error(raised(KeyError("k"))))
    assert (type(back), back.args) == (KeyError, ("k",))
    assert "in raised" in back.remote_traceback
    assert back.__notes__ == ["Raised in another object:\n" + back.remote_traceback]
    again = deserialize(serialize_error(raised(back)))
    assert len(again.__notes__) == 1


def test_the_cause_and_notes_come_along() -> None:
    error = AppError(1, None)
    error.__cause__ = OSError(2, "gone")
    error.add_note("see the manual")
    back = round_trip(error)
    assert isinstance(back.__cause__, FileNotFoundError)
    assert back.__notes__ == ["see the manual"]


def test_what_cannot_be_sent_becomes_text_or_is_left_out() -> None:
    error = ValueError("x", object())
    error.socket = object()  # type: ignore[attr-defined]
    back = round_trip(error)
    assert back.args[1].startswith("<object object")
    assert not hasattr(back, "socket")


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        ExceptionGroup("group", [ValueError(1), TypeError("x")]),
        JsException("m", "CustomError"),
        TimeoutError(),
    ],
)
def test_special_exceptions(error: Exception) -> None:
    back = round_trip(error)
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_an_unknown_class_arrives_as_remote_error() -> None:
    local = type("Elsewhere", (Exception,), {"__module__": "no.such.module"})
    back = round_trip(local("text"))
    assert type(back) is RemoteError
    assert (back.name, back.message) == ("Elsewhere", "text")


def test_what_is_no_exception_class_is_never_made() -> None:
    for module, name in (("os", "system"), ("builtins", "int"), ("builtins", "KeyboardInterrupt")):
        fake = type(name, (Exception,), {"__module__": module, "__qualname__": name})
        assert type(round_trip(fake("x"))) is RemoteError


def test_even_a_base_exception_can_be_told() -> None:
    assert type(deserialize(serialize_error(raised(SystemExit(3))))) is RemoteError


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert isinstance(round_trip(first), ValueError)


def test_flags() -> None:
    error = set_flags(ValueError("x"), remote=True, durable_object_reset=True)
    assert get_flags(error) == {"remote": True, "durableObjectReset": True}
    assert not hasattr(error, "retryable")
    assert get_flags(round_trip(set_flags(OSError(), retryable=True, overloaded=True))) == {
        "retryable": True,
        "overloaded": True,
    }


# --- what is passed by reference --------------------------------------------------------------


class Table:
    """Both sides of a handle table, in one."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.taken: list[int] = []

    def put(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def take(self, data: Any) -> Any:
        self.taken.append(data)
        return self.values[data]


def through(value: Any) -> tuple[Any, Table]:
    table = Table()
    return deserialize(serialize(value, table), table), table


def test_functions_targets_stubs_and_streams_go_through_the_table() -> None:
    async def source() -> Any:
        yield b""

    target, stub, stream = RpcTarget(), RpcStub(FakeChannel()), ReadableStream(source())
    given = {"f": len, "t": target, "s": [stub], "r": {"x": stream}}
    back, table = through(given)
    assert back.f is len
    assert back.t is target
    assert back.s[0] is stub
    assert back.r.x is stream
    assert table.taken == [0, 1, 2, 3]


def test_a_second_attempt_takes_each_handle_once() -> None:
    back, table = through([len, {(1, 2): max}])
    assert back == [len, {(1, 2): max}]
    assert table.taken == [0, 1]


async def test_requests_and_responses_travel_with_their_bodies() -> None:
    request = Request("http://h/", method="POST", body="hi", headers={"a": "b"})
    back, _ = through([request])
    assert isinstance(back[0], Request)
    assert (back[0].method, back[0].url, back[0].headers["A"]) == ("POST", "http://h/", "b")
    assert await back[0].text() == "hi"
    assert request.body_used
    answer, _ = through(Response("yes", 201, "Made"))
    assert (answer.status, answer.status_text, await answer.text()) == (201, "Made", "yes")


def test_blobs_files_and_headers_travel() -> None:
    given = [Blob("x", "a/b"), File("y", "n.txt", last_modified=5), Headers({"A": "b"})]
    back, _ = through(given)
    assert back[:2] == given[:2]
    assert back[1].last_modified == 5
    assert back[2]["a"] == "b"


def test_a_websocket_is_refused_even_in_a_response() -> None:
    response = Response(None, status=101, web_socket=WebSocketPair()[0])
    with pytest.raises(DataCloneError, match='type "WebSocket"'):
        serialize(response, Table())


def test_a_handle_is_refused_without_a_table() -> None:
    with pytest.raises(ValueError, match="unknown type"):
        deserialize(serialize(len, Table()))


def test_uuid_and_decimal() -> None:
    value = [uuid.UUID(int=5), Decimal("1.10"), Decimal("-Infinity")]
    assert round_trip(value) == value
    assert str(round_trip(Decimal("1.10"))) == "1.10"
