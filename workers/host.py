"""What the public API needs from the process that runs an app.

``workers`` does no I/O and knows no event loop: each effect goes through one of the protocols
below, which the ``shard`` package implements (and tests fake).

::

    Host            one for each activation and each entry-point request; found by current_host()
    StateHost       behind a DurableObjectState: one activation
    ExecutionHost   behind an ExecutionContext: one entry-point request
    NamespaceHost   behind a DurableObjectNamespace: one binding
    StubChannel     behind a stub: one ordered stream of calls to one object
    TargetChannel   behind an RpcStub: calls to a function or RpcTarget of another object

Rules for every awaitable that a host returns: the work has begun when the method returns (calls
leave in the order they were made, awaited or not), it may be dropped without being awaited, and it
can be awaited once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import datetime as dt

    from common.ids import IdFactory, ObjectId
    from workers.auto_response import WebSocketRequestResponsePair
    from workers.env import Env
    from workers.request import Request
    from workers.response import Response
    from workers.websocket import SocketHost, WebSocket

T = TypeVar("T")


class Timer(Protocol):
    """A callback that will run later."""

    def cancel(self) -> None:
        """Do not run it (again). No effect if it has run or was cancelled."""


class Host(Protocol):
    """What the code that runs now can ask of its process."""

    @property
    def env(self) -> Env:
        """The bindings of the app: the same for all its objects and requests."""

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Send ``request`` to the outside world, once the output gate lets it leave.

        Follows redirects as ``request.redirect`` says. A request with ``Upgrade: websocket`` may
        give a response with a ``web_socket``.
        """

    def wait_until(self, awaitable: object) -> None:
        """Keep the object or request alive until ``awaitable`` is done; its failure is logged.

        Anything that is not awaitable is accepted and ignored.
        """

    def socket_host(self) -> SocketHost:
        """Who dispatches the events of the regular sockets that the running code accepts."""

    def open_socket(self, socket: WebSocket, url: str, protocols: Sequence[str]) -> None:
        """Connect an outgoing ``socket`` (``WebSocket.new(url, protocols)``); events tell how."""

    def set_timer(
        self, callback: Callable[[], object], delay_s: float, *, repeat: bool = False
    ) -> Timer:
        """Run ``callback`` after ``delay_s`` seconds (>= 0) under the object's gates.

        With ``repeat``, again and again. If it returns a coroutine, that is run too.
        """

    def queue_microtask(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` when the running step has ended, before any other event."""

    def run_sync(self, awaitable: Awaitable[T]) -> T:
        """Block the calling (synchronous) code until ``awaitable`` is done; other objects go on.

        Raises:
            RuntimeError: the calling code cannot be suspended here.
        """

    def log(self, level: str, message: str) -> None:
        """Write a line of ``console``; ``level`` is debug, info, warning or error."""


class ExecutionHost(Protocol):
    """Behind the ``ctx`` of an entry point: one request."""

    @property
    def props(self) -> Mapping[str, Any]:
        """``ctx.props``."""

    @property
    def exports(self) -> Mapping[str, Any]:
        """``ctx.exports``: loopback bindings by the names of the classes the app exports."""

    def wait_until(self, awaitable: object) -> None:
        """See :meth:`Host.wait_until`."""


class StateHost(ExecutionHost, Protocol):
    """Behind the ``ctx`` of an object: one activation.

    Arguments have been checked already; the limits and texts are those of ``workers.context``.
    """

    @property
    def object_id(self) -> ObjectId:
        """The id, with the name whenever any caller has ever used one."""

    @property
    def storage(self) -> Any:
        """``ctx.storage``."""

    def block_concurrency_while(
        self, callback: Callable[[], Awaitable[T]] | Callable[[], T]
    ) -> Awaitable[T]:
        """Run ``callback`` on a later turn while no other event of the object runs."""

    def abort(self, reason: BaseException, *, retry_alarm: bool) -> None:
        """Reset the object, after the code that is running has been left. Returns at once."""

    def accept_web_socket(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        """Hold ``socket`` across hibernation, under these tags."""

    def get_web_sockets(self, tag: str | None) -> list[WebSocket]:
        """Return the held sockets (with that tag), oldest first; a new list."""

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None) -> None:
        """Answer ``pair.request`` without waking the object; ``None`` answers nothing."""

    def get_auto_response(self) -> WebSocketRequestResponsePair | None:
        """Return the pair that is set."""

    def auto_response_timestamp(self, socket: WebSocket) -> dt.datetime | None:
        """When ``socket`` was last answered automatically; timezone-aware."""

    def set_event_timeout_ms(self, timeout_ms: int | None) -> None:
        """How long a WebSocket event handler may run, 1..604,800,000 ms; ``None`` is no limit."""

    def get_event_timeout_ms(self) -> int | None:
        """Return the limit that is set."""


class StubChannel(Protocol):
    """One ordered stream of calls to one object; made for each stub, broken for ever by a reset."""

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Send ``request`` to the object's ``fetch``."""

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Call ``method`` of the object. The arguments have been read when this returns.

        Raises:
            DataCloneError: an argument cannot be sent.
        """


class TargetChannel(Protocol):
    """Calls to one function or :class:`~workers.rpc.RpcTarget` of another object.

    The target is kept there until the channel is disposed of, or collected.
    """

    def call(
        self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        """Call ``method`` of the target; ``None`` calls the function itself.

        Raises:
            DataCloneError: an argument cannot be sent.
        """

    def dup(self) -> TargetChannel:
        """Another channel to the same target, disposed of separately."""

    def dispose(self) -> None:
        """Let the target go. No effect if it was let go before."""


class NamespaceHost(Protocol):
    """Behind one Durable Object binding."""

    @property
    def ids(self) -> IdFactory:
        """Makes and checks the ids of the namespace."""

    def channel(self, object_id: ObjectId) -> StubChannel:
        """Return a new channel to an object. Does nothing else: no message, no construction."""


_current: ContextVar[Host | None] = ContextVar("limpet_host", default=None)
_process_host: Host | None = None


def current_host() -> Host:
    """Return the host of the code that runs now.

    Outside any handler (while the app's module is imported) it is the process's own, if the process
    has set one with :func:`set_process_host`.

    Raises:
        RuntimeError: no app is running here.
    """
    host = _current.get() or _process_host
    if host is None:
        raise RuntimeError(
            "this call works only inside a running app (an object or an entry point): "
            "start it with `limpet up`, or in tests use the in-process cluster"
        )
    return host


def enter_host(host: Host) -> Token[Host | None]:
    """Make ``host`` the current one of this context; undo with :func:`leave_host`."""
    return _current.set(host)


def leave_host(token: Token[Host | None]) -> None:
    """Undo :func:`enter_host`."""
    _current.reset(token)


def set_process_host(host: Host | None) -> None:
    """Set what serves code outside any handler: module level, and tasks without a context."""
    global _process_host
    _process_host = host
