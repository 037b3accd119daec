"""``ctx``: the state of an object, and the context of an entry point's request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, overload

from workers.auto_response import WebSocketRequestResponsePair
from workers.exceptions import DurableObjectAbort, JsException
from workers.namespace import DurableObjectId
from workers.websocket import FRESH, HELD, WebSocket

if TYPE_CHECKING:
    import datetime as dt

    from workers.host import ExecutionHost, StateHost
    from workers.storage import DurableObjectStorage

T = TypeVar("T")

MAX_TAGS: Final = 10
MAX_TAG_CHARS: Final = 256
MAX_EVENT_TIMEOUT_MS: Final = 604_800_000

_ABORTED: Final = "Application called abort() to reset Durable Object."
_NOT_A_SOCKET: Final = (
    "Failed to execute '{}' on 'DurableObjectState': parameter 1 is not of type 'WebSocket'."
)


class ExecutionContext:
    """``ctx`` of an entry point: one request.

    Source: https://developers.cloudflare.com/workers/runtime-apis/context/
    """

    __slots__ = ("_host",)

    def __init__(self, host: ExecutionHost) -> None:
        self._host = host

    @property
    def props(self) -> Mapping[str, Any]:
        """What the caller's binding was configured with; ``{}`` for requests of clients."""
        return self._host.props

    @property
    def exports(self) -> Mapping[str, Any]:
        """Always empty: loopback bindings of exported classes do not exist here yet."""
        return self._host.exports

    def waitUntil(self, awaitable: object) -> None:
        """Keep the work going until ``awaitable`` is done, beyond the response.

        Args:
            awaitable: a coroutine or future; its failure is only logged. Anything else is ignored.

        Source: https://developers.cloudflare.com/workers/runtime-apis/context/#waituntil
        """
        self._host.wait_until(awaitable)

    def passThroughOnException(self) -> None:
        """Do nothing: there is no origin server behind the app."""

    wait_until = waitUntil
    pass_through_on_exception = passThroughOnException


class DurableObjectState:
    """``ctx`` of an object: its id, its storage, its sockets, its life.

    Source: https://developers.cloudflare.com/durable-objects/api/state/
    """

    __slots__ = ("__weakref__", "_host")

    def __init__(self, host: StateHost) -> None:
        self._host = host

    @property
    def id(self) -> DurableObjectId:
        """The object's id, with its name whenever any caller has ever used one."""
        return DurableObjectId(self._host.object_id)

    @property
    def storage(self) -> DurableObjectStorage:
        """The object's own durable storage.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/
        """
        return self._host.storage

    @property
    def props(self) -> Mapping[str, Any]:
        """Always ``{}``, as on Cloudflare for ordinary objects."""
        return self._host.props

    @property
    def exports(self) -> Mapping[str, Any]:
        """Always empty: loopback bindings of exported classes do not exist here yet."""
        return self._host.exports

    @property
    def container(self) -> None:
        """Always ``None``: objects have no containers here."""
        return

    # --- life --------------------------------------------------------------------------------

    def waitUntil(self, awaitable: object) -> None:
        """Keep the object in memory until ``awaitable`` is done.

        Args:
            awaitable: a coroutine or future; its failure is only logged. Anything else is ignored.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#waituntil
        """
        self._host.wait_until(awaitable)

    @overload
    def blockConcurrencyWhile(self, callback: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...
    @overload
    def blockConcurrencyWhile(self, callback: Callable[[], T]) -> Awaitable[T]: ...
    def blockConcurrencyWhile(self, callback: Callable[[], Any]) -> Awaitable[Any]:
        """Run ``callback`` while no other event of the object runs.

        It starts on a later turn, whether or not the result is awaited; in ``__init__`` it is
        called without ``await``, and the first event waits for it. Calls queue; one inside
        another's callback runs inside it, up to 64 deep. A callback that fails, or runs longer than
        30 s, resets the object.

        Args:
            callback: a function or coroutine function without arguments.

        Returns:
            an awaitable of the callback's value.

        Raises:
            TypeError: ``callback`` is not callable.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#blockconcurrencywhile
        """
        if not callable(callback):
            raise TypeError(
                "blockConcurrencyWhile() takes a function, "
                f"not {type(callback).__name__}: pass `initialize`, not `initialize()`"
            )
        return self._host.block_concurrency_while(callback)

    def abort(
        self,
        reason: str | BaseException | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        retryAlarm: bool = True,
    ) -> NoReturn:
        """Reset the object: forget its memory, its uncommitted writes and its unsent messages.

        Every call in flight fails with ``reason``; its sockets close with 1011.

        Args:
            reason: text or exception for the callers.
            options: ``{"retryAlarm": False}`` while ``alarm()`` runs drops the alarm.
            retryAlarm: the same as a keyword.

        Raises:
            DurableObjectAbort: always; not an ``Exception``, so only ``finally`` sees it.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#abort
        """
        error = reason if isinstance(reason, BaseException) else None
        if error is None:
            error = JsException(_ABORTED if reason is None else str(reason), "Error")
        retry = retryAlarm if options is None else bool(options.get("retryAlarm", retryAlarm))
        self._host.abort(error, retry_alarm=retry)
        raise DurableObjectAbort(str(error) or _ABORTED)

    # --- held sockets ------------------------------------------------------------------------

    def acceptWebSocket(self, ws: WebSocket, tags: Iterable[str] | None = None) -> None:
        """Hold a socket across hibernation: its events run ``webSocketMessage`` and the others.

        Args:
            ws: an end of a pair that was not accepted before.
            tags: at most 10 different ones of at most 256 characters, for :meth:`getWebSockets`.

        Raises:
            TypeError: ``ws`` is no WebSocket, or ``tags`` no list.
            JsException: it was accepted before, or there are too many or too long tags.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#acceptwebsocket
        """
        if not isinstance(ws, WebSocket):
            raise TypeError(_NOT_A_SOCKET.format("acceptWebSocket"))
        checked = () if tags is None else _checked_tags(tags)
        if ws.mode != FRESH:
            raise JsException(
                "Cannot call `acceptWebSocket()` if the WebSocket was already accepted via "
                "`accept()`",
                "Error",
            )
        other = ws.other
        if ws.taken or other is None or other.taken or other.mode != FRESH:
            raise JsException(
                "Cannot call `acceptWebSocket()` on this WebSocket because its pair has already "
                "been accepted or used in a Response.",
                "Error",
            )
        self._host.accept_web_socket(ws, checked)

    def getWebSockets(self, tag: str | None = None) -> list[WebSocket]:
        """Return the held sockets, oldest first; with ``tag``, those accepted with it.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#getwebsockets
        """
        return self._host.get_web_sockets(tag)

    def getTags(self, ws: WebSocket) -> list[str]:
        """Return the tags a held socket was accepted with.

        Raises:
            TypeError: ``ws`` is no WebSocket.
            JsException: it is not held.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#gettags
        """
        if not isinstance(ws, WebSocket):
            raise TypeError(_NOT_A_SOCKET.format("getTags"))
        if ws.mode == FRESH:
            raise JsException(
                "you must call 'acceptWebSocket()' before attempting to access the tags of a "
                "WebSocket.",
                "Error",
            )
        if ws.mode != HELD:
            raise JsException("only hibernatable websockets can have tags.", "Error")
        return list(ws.tags)

    def setWebSocketAutoResponse(self, pair: WebSocketRequestResponsePair | None = None) -> None:
        """Answer an exact text on all held sockets without waking the object.

        Args:
            pair: the text and its answer; ``None`` ends it.

        Raises:
            TypeError: ``pair`` is something else.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#setwebsocketautoresponse
        """
        if pair is not None and not isinstance(pair, WebSocketRequestResponsePair):
            raise TypeError(
                "Failed to execute 'setWebSocketAutoResponse' on 'DurableObjectState': parameter 1 "
                "is not of type 'WebSocketRequestResponsePair'."
            )
        self._host.set_auto_response(pair)

    def getWebSocketAutoResponse(self) -> WebSocketRequestResponsePair | None:
        """Return the pair that is set.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#getwebsocketautoresponse
        """
        return self._host.get_auto_response()

    def getWebSocketAutoResponseTimestamp(self, ws: WebSocket) -> dt.datetime | None:
        """When ``ws`` was last answered automatically (UTC), or ``None``.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#getwebsocketautoresponsetimestamp
        """
        if not isinstance(ws, WebSocket):
            raise TypeError(_NOT_A_SOCKET.format("getWebSocketAutoResponseTimestamp"))
        return self._host.auto_response_timestamp(ws)

    def setHibernatableWebSocketEventTimeout(self, timeout_ms: int | None = None) -> None:
        """Limit how long a handler of a held socket's event may run.

        Args:
            timeout_ms: 0..604,800,000 ms; 0 and ``None`` remove the limit.

        Raises:
            JsException: it is greater.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#sethibernatablewebsocketeventtimeout
        """
        timeout = int(timeout_ms or 0)
        if not 0 <= timeout <= MAX_EVENT_TIMEOUT_MS:
            raise JsException(
                f"Event timeout should not exceed {MAX_EVENT_TIMEOUT_MS} ms.", "Error"
            )
        self._host.set_event_timeout_ms(timeout or None)

    def getHibernatableWebSocketEventTimeout(self) -> int | None:
        """Return the limit in milliseconds, or ``None``.

        Source: https://developers.cloudflare.com/durable-objects/api/state/#gethibernatablewebsocketeventtimeout
        """
        return self._host.get_event_timeout_ms()

    wait_until = waitUntil
    block_concurrency_while = blockConcurrencyWhile
    accept_web_socket = acceptWebSocket
    get_web_sockets = getWebSockets
    get_tags = getTags
    set_web_socket_auto_response = setWebSocketAutoResponse
    get_web_socket_auto_response = getWebSocketAutoResponse
    get_web_socket_auto_response_timestamp = getWebSocketAutoResponseTimestamp
    set_hibernatable_web_socket_event_timeout = setHibernatableWebSocketEventTimeout
    get_hibernatable_web_socket_event_timeout = getHibernatableWebSocketEventTimeout

    def __repr__(self) -> str:
        return f"<DurableObjectState of {self._host.object_id.name or self._host.object_id}>"


def _checked_tags(tags: object) -> tuple[str, ...]:
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise TypeError(
            "Failed to execute 'acceptWebSocket' on 'DurableObjectState': parameter 2 is not of "
            "type 'Array'."
        )
    distinct = tuple(dict.fromkeys(tag if isinstance(tag, str) else str(tag) for tag in tags))
    if len(distinct) > MAX_TAGS:
        raise JsException(
            f"a Hibernatable WebSocket cannot have more than {MAX_TAGS} tags", "Error"
        )
    for tag in distinct:
        if len(tag) > MAX_TAG_CHARS:
            raise JsException(
                f'"{tag}" is longer than the max tag length ({MAX_TAG_CHARS} characters).', "Error"
            )
    return distinct
