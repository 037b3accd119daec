"""What the running code of an app asks of its process: the protocols of :mod:`workers.host`.

One :class:`ObjectHost` serves an activation (its ``ctx``, and ``current_host()`` in its code), one
:class:`EntryHost` the entry point. Both are thin: the work is done elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from common.ids import ObjectId
from common.wrangler import Project
from shard import stacks
from shard.held_sockets import HeldSockets
from shard.leaving import gate_before, pass_gate
from shard.timers import Timer, entry_timer, keep_alive, object_timer, run_soon
from workers.context import DurableObjectState, ExecutionContext
from workers.env import Env
from workers.namespace import DurableObjectNamespace

if TYPE_CHECKING:
    import datetime as dt

    from shard.activation import Activation
    from shard.entry import EntryPoint
    from shard.host import Shard
    from shard.namespaces import Namespace
    from workers.auto_response import WebSocketRequestResponsePair
    from workers.request import Request
    from workers.response import Response
    from workers.storage import DurableObjectStorage
    from workers.websocket import SocketHost, WebSocket

T = TypeVar("T")

log = structlog.get_logger(__name__)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def make_env(project: Project, namespaces: Mapping[str, Namespace]) -> Env:
    """The ``env`` of an app: its variables, and a namespace for each binding."""
    bindings: dict[str, Any] = dict(project.vars)
    for name, namespace in namespaces.items():
        bindings[name] = DurableObjectNamespace(namespace)
    return Env(bindings, declared_in=project.file.name)


class EntryHost:
    """Serves the entry point, and code that runs outside any handler."""

    def __init__(self, shard: Shard, entry: EntryPoint | None = None) -> None:
        self._shard = shard
        self._entry = entry

    @property
    def env(self) -> Env:
        return self._shard.env

    @property
    def props(self) -> Mapping[str, Any]:
        return _EMPTY

    @property
    def exports(self) -> Mapping[str, Any]:
        return _EMPTY

    @property
    def execution_context(self) -> ExecutionContext:
        """The ``ctx`` of one request."""
        return ExecutionContext(self)

    def fetch(self, request: Request) -> Awaitable[Response]:
        task = self._shard.outside_world.fetch(request)
        owner = self._socket_owner
        if owner is not None:
            # It keeps the object in memory, and ends with it.
            owner.waiting_for.add(task)
            task.add_done_callback(owner.waiting_for.discard)
        return task

    def wait_until(self, awaitable: object) -> None:
        keep_alive(awaitable, None)

    def socket_host(self) -> SocketHost:
        if self._entry is None:
            raise RuntimeError("a WebSocket can be accepted only while a request is served")
        return self._entry

    def open_socket(self, socket: WebSocket, url: str, protocols: Sequence[str]) -> None:
        self._shard.outside_world.open(socket, url, protocols, self.socket_host())

    @property
    def _socket_owner(self) -> Any:
        """Whose code runs; see :class:`shard.inbox.SocketOwner`. ``None`` outside any handler."""
        return self._entry

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> Timer:
        if self._entry is None:
            raise RuntimeError("a timer can be set only while a request or an event is handled")
        loop = asyncio.get_running_loop()
        return entry_timer(self._entry, callback, delay_s, repeat, loop)

    def queue_microtask(self, callback: Callable[[], object]) -> None:
        run_soon(callback, None)

    def run_sync(self, awaitable: Awaitable[T]) -> T:
        result: T = stacks.wait(awaitable)
        return result

    def log(self, level: str, message: str) -> None:
        getattr(log, level)(message)


class ObjectHost(EntryHost):
    """Serves one activation.

    Attributes:
        state: the ``ctx`` that the object's constructor gets.
    """

    def __init__(self, shard: Shard, activation: Activation) -> None:
        super().__init__(shard)
        self._activation = activation
        self.state = DurableObjectState(self)

    @property
    def object_id(self) -> ObjectId:
        return self._activation.slot.id

    @property
    def storage(self) -> DurableObjectStorage:
        storage = self._activation.storage
        if storage is None:
            storage = self._shard.make_storage(self._activation)
        return storage.api

    def wait_until(self, awaitable: object) -> None:
        keep_alive(awaitable, self._activation)

    def socket_host(self) -> SocketHost:
        return self._activation

    def fetch(self, request: Request) -> Awaitable[Response]:
        if gate_before(self._activation) is None:
            return super().fetch(request)
        return asyncio.get_running_loop().create_task(self._fetch_later(request))

    async def _fetch_later(self, request: Request) -> Response:
        await pass_gate(self._activation)
        return await super().fetch(request)

    def open_socket(self, socket: WebSocket, url: str, protocols: Sequence[str]) -> None:
        gate = gate_before(self._activation)
        if gate is None:
            super().open_socket(socket, url, protocols)
        else:
            gate.push(lambda: EntryHost.open_socket(self, socket, url, protocols))

    @property
    def _socket_owner(self) -> Any:
        return self._activation

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> Timer:
        loop = asyncio.get_running_loop()
        return object_timer(self._activation, callback, delay_s, repeat, loop)

    def queue_microtask(self, callback: Callable[[], object]) -> None:
        run_soon(callback, self._activation)

    def block_concurrency_while(
        self, callback: Callable[[], Awaitable[T]] | Callable[[], T]
    ) -> Awaitable[T]:
        timeout_s = self._shard.settings.block_concurrency_timeout_s
        return self._activation.block_concurrency_while(callback, timeout_s)

    def abort(self, reason: BaseException, *, retry_alarm: bool) -> None:
        activation = self._activation
        if not activation.dead:
            if not retry_alarm and activation.storage is not None:
                activation.storage.session.alarm.forsaken = True
            # What was sent before has left, unless it waited for a write that is lost now.
            activation.slot.reset(reason)

    # --- held sockets --------------------------------------------------------------------------

    @property
    def _held(self) -> HeldSockets:
        slot = self._activation.slot
        if slot.held is None:
            slot.held = HeldSockets(slot, self._shard.sockets, self._shard.clock)
        held: HeldSockets = slot.held
        return held

    def accept_web_socket(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        self._held.accept(socket, tags, self._activation)

    def get_web_sockets(self, tag: str | None) -> list[WebSocket]:
        activation = self._activation
        held: HeldSockets | None = activation.slot.held
        return [] if held is None or activation.dead else held.sockets(activation, tag)

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None) -> None:
        self._held.set_auto_response(pair)

    def get_auto_response(self) -> WebSocketRequestResponsePair | None:
        return self._held.auto_response

    def auto_response_timestamp(self, socket: WebSocket) -> dt.datetime | None:
        return self._held.answered_at(socket)

    def set_event_timeout_ms(self, timeout_ms: int | None) -> None:
        self._held.event_timeout_ms = timeout_ms
        if self._activation.instance is not None:
            self._activation.bind_message_handler()

    def get_event_timeout_ms(self) -> int | None:
        return self._held.event_timeout_ms
