"""What the running code of an app asks of its process: the protocols of :mod:`workers.host`.

One :class:`ObjectHost` serves an activation (its ``ctx``, and ``current_host()`` in its code), one
:class:`EntryHost` the entry point. Both are thin: the work is done elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import structlog

from common.ids import ObjectId
from common.wrangler import Project
from workers.context import DurableObjectState, ExecutionContext
from workers.env import Env
from workers.namespace import DurableObjectNamespace

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.entry import EntryPoint
    from shard.host import Shard
    from shard.namespaces import Namespace
    from workers.auto_response import WebSocketRequestResponsePair
    from workers.request import Request
    from workers.response import Response
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


class _Timer:
    """A callback of ``setTimeout`` or ``setInterval``, run as an event of its owner."""

    def __init__(
        self, run: Callable[[], None], delay_s: float, repeat: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._run = run
        self._delay_s = delay_s
        self._repeat = repeat
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = loop.call_later(delay_s, self._fire)
        self.ended: Callable[[], None] = lambda: None

    def _fire(self) -> None:
        if self._repeat:
            self._handle = self._loop.call_later(self._delay_s, self._fire)
        else:
            self.cancel()
        self._run()

    def cancel(self) -> None:
        """Do not run it (again)."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.ended()


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
        raise NotImplementedError("fetch() to the outside world is not available yet")

    def wait_until(self, awaitable: object) -> None:
        if hasattr(awaitable, "__await__"):
            task = asyncio.get_running_loop().create_task(_await(awaitable))
            task.add_done_callback(_log_failure)

    def socket_host(self) -> SocketHost:
        if self._entry is None:
            raise RuntimeError("a WebSocket can be accepted only while a request is served")
        return self._entry

    def open_socket(self, socket: WebSocket, url: str, protocols: Sequence[str]) -> None:
        raise NotImplementedError("outgoing WebSockets are not available yet")

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> _Timer:
        return _Timer(lambda: _run_logged(callback), delay_s, repeat, asyncio.get_running_loop())

    def queue_microtask(self, callback: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(_run_logged, callback)

    def run_sync(self, awaitable: Awaitable[T]) -> T:
        raise RuntimeError("run_sync() is not available yet")

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
    def storage(self) -> Any:
        raise NotImplementedError(
            "ctx.storage is not available yet: objects live in memory only in this version"
        )

    def wait_until(self, awaitable: object) -> None:
        if hasattr(awaitable, "__await__"):
            task = asyncio.get_running_loop().create_task(
                _await(awaitable), context=self._activation.context.copy()
            )
            task.add_done_callback(_log_failure)

    def socket_host(self) -> SocketHost:
        return self._activation

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> _Timer:
        activation = self._activation

        def run() -> None:
            if not activation.dead:
                activation.slot.call(lambda instance: (callback, ()), _log_outcome)

        timer = _Timer(run, delay_s, repeat, asyncio.get_running_loop())
        if not repeat:
            activation.held_up += 1

            def ended() -> None:
                activation.held_up -= 1

            timer.ended = ended
        return timer

    def block_concurrency_while(
        self, callback: Callable[[], Awaitable[T]] | Callable[[], T]
    ) -> Awaitable[T]:
        timeout_s = self._shard.settings.block_concurrency_timeout_s
        return self._activation.block_concurrency_while(callback, timeout_s)

    def abort(self, reason: BaseException, *, retry_alarm: bool) -> None:
        activation = self._activation
        if not activation.dead:
            # Outputs of the running step are lost with it; what follows of it is not run.
            activation.slot.reset(reason)

    def accept_web_socket(self, socket: WebSocket, tags: tuple[str, ...]) -> NoReturn:
        raise NotImplementedError("hibernatable WebSockets are not available yet: use accept()")

    def get_web_sockets(self, tag: str | None) -> list[WebSocket]:
        return []

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None) -> NoReturn:
        raise NotImplementedError("hibernatable WebSockets are not available yet")

    def get_auto_response(self) -> WebSocketRequestResponsePair | None:
        return None

    def auto_response_timestamp(self, socket: WebSocket) -> None:
        return None

    def set_event_timeout_ms(self, timeout_ms: int | None) -> NoReturn:
        raise NotImplementedError("hibernatable WebSockets are not available yet")

    def get_event_timeout_ms(self) -> int | None:
        return None


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("wait_until.failed", exc_info=error)


def _log_outcome(value: Any, error: BaseException | None) -> None:
    if error is not None:
        log.error("timer.failed", exc_info=error)


def _run_logged(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception as error:
        log.error("timer.failed", exc_info=error)
