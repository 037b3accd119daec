"""What the public API needs from the process that runs an app.

``workers`` does no I/O and knows no event loop: each effect goes through one of the protocols
below, which the ``shard`` package implements (and tests fake).

::

    Host            one for each activation and each entry-point request; found by current_host()
    StateHost       behind a DurableObjectState: one activation
    StorageHost     behind ctx.storage (with KeyValueHost, SqlHost, TransactionHost, RowSource)
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
    from workers.convert import JsDict
    from workers.env import Env
    from workers.key_range import KeyRange
    from workers.request import Request
    from workers.response import Response
    from workers.storage import DurableObjectStorage
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
    def storage(self) -> DurableObjectStorage:
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


class KeyValueHost(Protocol):
    """The key-value data and the alarm of one object. Keys are valid Unicode.

    Every method does its work before it returns.
    """

    def get(self, key: str) -> Any:
        """Return the value, or ``None``."""

    def get_many(self, keys: Sequence[str]) -> JsDict:
        """Return those that exist, in the order of the keys."""

    def put(self, entries: Sequence[tuple[str, Any]], *, unconfirmed: bool) -> None:
        """Store values; with ``unconfirmed``, outputs do not wait for them.

        Raises:
            DataCloneError: one cannot be stored; then none is.
        """

    def delete(self, keys: Sequence[str], *, unconfirmed: bool) -> int:
        """Delete keys; return how many existed."""

    def list(self, key_range: KeyRange) -> JsDict:
        """Return the keys of the range and their values, in its order."""

    def first(self, key_range: KeyRange) -> tuple[str, Any] | None:
        """Return the first key of the range in its order, whatever its limit, and its value."""

    def get_alarm(self) -> int | None:
        """Return when the alarm is due, in milliseconds since 1970."""

    def set_alarm(self, due_ms: int | None, *, unconfirmed: bool) -> None:
        """Set the alarm; ``None`` removes it.

        Raises:
            TypeError: the object's class has no ``alarm()``.
        """


class RowSource(Protocol):
    """The rows of a statement."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; empty for a statement without a result."""

    @property
    def rows_read(self) -> int:
        """How many rows have been read."""

    @property
    def rows_written(self) -> int:
        """How many rows and index entries have been written."""

    def fetch(self) -> tuple[Any, ...] | None:
        """Return the next row; ``None`` after the last."""


class SqlHost(Protocol):
    """The SQL database of one object."""

    def exec(self, query: str, bindings: tuple[Any, ...]) -> RowSource:
        """Run all statements of ``query``; the rows are those of the last.

        Raises:
            JsException: SQLite refuses it, or it is not for objects.
            TypeError: a binding of a type that SQL has not.
        """

    @property
    def database_size(self) -> int:
        """Bytes of the pages in use."""


class TransactionHost(KeyValueHost, Protocol):
    """One ``transaction()`` under way."""

    @property
    def ended(self) -> bool:
        """It has been committed or undone; nothing more can be done through it."""

    @property
    def rolled_back(self) -> bool:
        """:meth:`rollback` has been called."""

    def rollback(self) -> None:
        """Undo it: what it has written and will write. No effect a second time.

        Raises:
            JsException: a transaction inside it is still running.
        """


class StorageHost(KeyValueHost, SqlHost, Protocol):
    """Behind ``ctx.storage``: one activation's storage."""

    def delete_all(self) -> None:
        """Delete keys, tables and the alarm.

        Raises:
            JsException: a transaction is under way.
        """

    def transaction(self, closure: Callable[[TransactionHost], Any]) -> Awaitable[Any]:
        """Run ``closure`` as a transaction, while no other event of the object runs."""

    def transaction_sync(self, callback: Callable[[], T]) -> T:
        """Run ``callback`` as a transaction; undo it and raise if it raises."""

    def sync(self) -> Awaitable[None]:
        """Wait until all earlier writes are durable."""

    def bookmark(self, at_ms: int | None) -> Awaitable[str]:
        """Return a bookmark of the state at that time, or now.

        Raises:
            JsException: not available.
        """

    def restore(self, bookmark: str) -> Awaitable[str]:
        """Go back to ``bookmark`` when the object is next constructed.

        Raises:
            JsException: not available.
        """


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
