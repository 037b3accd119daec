"""What of an object may be called from outside, and what the caller holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers.fakes import FakeChannel, FakeStateHost, Ready
from workers.context import DurableObjectState
from workers.durable_object import DurableObject, prepare_instance
from workers.env import Env
from workers.rpc import RpcPromise, RpcStub, RpcTarget, StubMethod, resolve_method


class Mixin:
    def mixed(self) -> str:
        return "mixed"


class Room(Mixin, DurableObject):
    limit = 5

    def __init__(self, ctx: Any, env: Any) -> None:
        self.field = 1
        self.arrow: Callable[[], str] = lambda: "arrow"

    def greet(self) -> str:
        return "hello"

    def _quiet(self) -> str:
        return "psst"

    @staticmethod
    def static() -> str:
        return "static"

    def alarm(self) -> None: ...

    def then(self) -> None: ...


def room() -> Any:
    return prepare_instance(Room, DurableObjectState(FakeStateHost()), Env())


@pytest.mark.parametrize(
    ("name", "result"),
    [("greet", "hello"), ("mixed", "mixed"), ("_quiet", "psst"), ("arrow", "arrow"),
     ("static", "static")],
)  # fmt: skip
def test_any_callable_attribute_may_be_called(name: str, result: str) -> None:
    assert resolve_method(room(), name)() == result


@pytest.mark.parametrize(
    "name",
    ["missing", "field", "limit", "ctx", "env", "__init__", "__class__", "__dict__", "then",
     "fetch", "connect", "id", ""],
)  # fmt: skip
def test_everything_else_does_not_exist(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        resolve_method(room(), name)
    assert str(caught.value) == f"Method {name} does not exist"


def test_a_misspelt_method_is_answered_with_a_hint() -> None:
    with pytest.raises(TypeError) as caught:
        resolve_method(room(), "gret")
    assert caught.value.__notes__ == ["Room has a method 'greet'."]


@pytest.mark.parametrize(
    "name", ["alarm", "webSocketMessage", "webSocketClose", "webSocketError", "dup"]
)
def test_reserved_names(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        resolve_method(room(), name)
    assert str(caught.value) == f"'{name}' is a reserved method and cannot be called over RPC."


def test_the_constructor_is_illegal() -> None:
    with pytest.raises(TypeError, match=r"^Illegal constructor$"):
        resolve_method(room(), "constructor")


def test_a_class_without_the_base_has_no_rpc() -> None:
    class Plain:
        def greet(self) -> None: ...

    with pytest.raises(TypeError, match="does not support RPC, because its class was not declared"):
        resolve_method(Plain(), "greet")


def test_of_a_target_only_methods_are_seen() -> None:
    class Counter(RpcTarget):
        def __init__(self) -> None:
            self.hidden = lambda: None

        def increment(self) -> int:
            return 1

    assert resolve_method(Counter(), "increment")() == 1
    with pytest.raises(TypeError, match="Method hidden does not exist"):
        resolve_method(Counter(), "hidden")


async def test_a_promise_can_be_awaited_gathered_and_made_a_task() -> None:
    assert await RpcPromise(Ready(1), "f") == 1
    tasks: Any = asyncio.create_task(RpcPromise(Ready(2), "f")), RpcPromise(Ready(3), "f")
    assert await asyncio.gather(*tasks) == [2, 3]
    future = asyncio.get_running_loop().create_future()
    task: asyncio.Task[Any] = asyncio.create_task(RpcPromise(future, "f"))
    await asyncio.sleep(0)
    future.set_result(4)
    assert await task == 4


async def test_a_cancelled_task_lets_go_of_its_promise() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task: asyncio.Task[Any] = asyncio.create_task(RpcPromise(future, "f"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()


@pytest.mark.parametrize(
    "use",
    [bool, len, list, int, lambda p: p[0], lambda p: p + 1, lambda p: p > 1, lambda p: 1 in p],
)
def test_a_forgotten_await_is_told(use: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"count\(\) was not awaited: write `await stub.count\(\)`"):
        use(RpcPromise(Ready(1), "count"))


def test_a_forgotten_await_before_an_attribute_is_told() -> None:
    with pytest.raises(AttributeError, match=r"\(await stub.find\(\)\).name"):
        _ = RpcPromise(Ready(1), "find").name


async def test_a_forgotten_call_is_told() -> None:
    with pytest.raises(TypeError, match=r"count was not called: write `await stub.count\(\)`"):
        await StubMethod(FakeChannel(), "count")


async def test_a_stub_calls_the_function_or_its_methods() -> None:
    channel = FakeChannel()
    stub = RpcStub(channel)
    assert await stub(1, k=2) == (None, (1,), {"k": 2})
    assert await stub.increment(3) == ("increment", (3,), {})
    with pytest.raises(AttributeError):
        _ = stub.then
    with stub as same:
        assert same is stub
    assert channel.disposed == 1
    stub.dup().dispose()
    assert channel.disposed == 1
