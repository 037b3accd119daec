"""Hosts that only remember what they were asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from common.ids import IdFactory, ObjectId
from workers.auto_response import WebSocketRequestResponsePair
from workers.env import Env
from workers.request import Request
from workers.response import Response
from workers.websocket import SocketHost, WebSocket


class Ready:
    """An awaitable that has its value already."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Any:
        return self.value
        yield


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeHost:
    def __init__(self, **bindings: Any) -> None:
        self.env = Env(bindings)
        self.requests: list[Request] = []
        self.waited: list[object] = []
        self.timers: list[tuple[Callable[[], object], float, bool]] = []
        self.microtasks: list[Callable[[], object]] = []
        self.lines: list[tuple[str, str]] = []
        self.opened: list[tuple[str, Sequence[str]]] = []

    def fetch(self, request: Request) -> Awaitable[Response]:
        self.requests.append(request)
        return Ready(Response("from outside"))

    def wait_until(self, awaitable: object) -> None:
        self.waited.append(awaitable)

    def socket_host(self) -> SocketHost:
        return self

    def accepted(self, socket: WebSocket) -> None:
        pass

    def open_socket(self, socket: WebSocket, url: str, protocols: Sequence[str]) -> None:
        self.opened.append((url, protocols))

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> FakeTimer:
        self.timers.append((callback, delay_s, repeat))
        return FakeTimer()

    def queue_microtask(self, callback: Callable[[], object]) -> None:
        self.microtasks.append(callback)

    def run_sync(self, awaitable: Awaitable[Any]) -> Any:
        try:
            next(awaitable.__await__())
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it suspended")

    def log(self, level: str, message: str) -> None:
        self.lines.append((level, message))


class FakeStateHost(FakeHost):
    """One activation."""

    def __init__(self) -> None:
        super().__init__()
        self.object_id = IdFactory("k").from_name("room")
        self.storage: Any = object()
        self.props: dict[str, Any] = {}
        self.exports: dict[str, Any] = {}
        self.aborts: list[tuple[BaseException, bool]] = []
        self.sockets: list[WebSocket] = []
        self.pair: WebSocketRequestResponsePair | None = None
        self.timeout_ms: int | None = None
        self.answered_at: dt.datetime | None = None

    def block_concurrency_while(self, callback: Callable[[], Any]) -> Awaitable[Any]:
        return Ready(callback())

    def abort(self, reason: BaseException, *, retry_alarm: bool) -> None:
        self.aborts.append((reason, retry_alarm))

    def accept_web_socket(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        socket.hold(tags)
        self.sockets.append(socket)

    def get_web_sockets(self, tag: str | None) -> list[WebSocket]:
        return [socket for socket in self.sockets if tag is None or tag in socket.tags]

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None) -> None:
        self.pair = pair

    def get_auto_response(self) -> WebSocketRequestResponsePair | None:
        return self.pair

    def auto_response_timestamp(self, socket: WebSocket) -> dt.datetime | None:
        return self.answered_at

    def set_event_timeout_ms(self, timeout_ms: int | None) -> None:
        self.timeout_ms = timeout_ms

    def get_event_timeout_ms(self) -> int | None:
        return self.timeout_ms


class FakeChannel:
    """A stub's channel: remembers calls, answers each with its description."""

    def __init__(self, object_id: ObjectId | None = None) -> None:
        self.object_id = object_id
        self.calls: list[tuple[str | None, tuple[Any, ...], dict[str, Any]]] = []
        self.requests: list[Request] = []
        self.disposed = 0

    def fetch(self, request: Request) -> Awaitable[Response]:
        self.requests.append(request)
        return Ready(Response("from the object"))

    def call(
        self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        self.calls.append((method, args, kwargs))
        return Ready((method, args, kwargs))

    def dup(self) -> FakeChannel:
        return FakeChannel()

    def dispose(self) -> None:
        self.disposed += 1


class FakeNamespaceHost:
    def __init__(self, unique_key: str = "k") -> None:
        self.ids = IdFactory(unique_key)
        self.channels: list[FakeChannel] = []

    def channel(self, object_id: ObjectId) -> FakeChannel:
        self.channels.append(FakeChannel(object_id))
        return self.channels[-1]
