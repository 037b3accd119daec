"""The events a WebSocket dispatches to its listeners (WHATWG WebSockets §4, DOM §2).

https://developers.cloudflare.com/workers/runtime-apis/websockets/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.websocket import WebSocket


class Bytes(bytes):
    """A binary message: ``bytes``, which also answer what Pyodide's ArrayBuffer proxies answer."""

    __slots__ = ()

    def to_py(self) -> memoryview:
        """The bytes as a ``memoryview``, as ``JsProxy.to_py()`` of an ArrayBuffer gives."""
        return memoryview(self)

    def to_bytes(self) -> bytes:
        """The bytes as a plain ``bytes`` object."""
        return bytes(self)

    @property
    def byteLength(self) -> int:
        """Number of bytes."""
        return len(self)


class Event:
    """Base of the events.

    Attributes:
        type: ``"message"``, ``"close"``, ``"error"`` or ``"open"``.
        target: the WebSocket it happened to.
    """

    __slots__ = ("target",)
    type: str = ""

    def __init__(self, target: WebSocket) -> None:
        self.target = target

    @property
    def currentTarget(self) -> WebSocket:
        """The same as :attr:`target`: these events do not bubble."""
        return self.target


class OpenEvent(Event):
    """An outgoing socket is connected."""

    __slots__ = ()
    type = "open"


class MessageEvent(Event):
    """A message has come.

    Attributes:
        data: ``str`` for a text message, :class:`Bytes` for a binary one.
    """

    __slots__ = ("data",)
    type = "message"

    def __init__(self, data: str | Bytes, target: WebSocket) -> None:
        self.data = data
        self.target = target


class CloseEvent(Event):
    """The connection has ended, or the peer asks to end it.

    Attributes:
        code: the peer's close code; 1005 when its Close frame had none, 1006 when none came.
        reason: the peer's reason, or a text that says why none came.
        wasClean: whether a Close frame came.
    """

    __slots__ = ("code", "reason", "wasClean")
    type = "close"

    def __init__(self, code: int, reason: str, was_clean: bool, target: WebSocket) -> None:
        super().__init__(target)
        self.code = code
        self.reason = reason
        self.wasClean = was_clean

    @property
    def was_clean(self) -> bool:
        """The same as :attr:`wasClean`."""
        return self.wasClean


class ErrorEvent(Event):
    """Something went wrong with the connection, or in a listener.

    Attributes:
        message: what, in words.
        error: the exception, if there is one.
    """

    __slots__ = ("error", "message")
    type = "error"

    def __init__(self, message: str, error: BaseException | None, target: WebSocket) -> None:
        super().__init__(target)
        self.message = message
        self.error: Any = error
