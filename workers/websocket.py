"""WebSockets as an app sees them: one end of a pair, or an outgoing connection.

https://developers.cloudflare.com/workers/runtime-apis/websockets/

A socket does no I/O. What the app sends goes to its *port* (a connection held by a gateway, the
other end of the pair, …) and what arrives is handed in by the host through
:meth:`WebSocket.arrived` and :meth:`WebSocket.closed_by_peer`. Which listeners then run, and when,
the host decides: it knows the object's gates.

::

              accept()                close() ─▶ CLOSING ─▶ peer's Close ─┐
    FRESH ──────────────▶ ACCEPTED ──┤                                    ├─▶ CLOSED
          acceptWebSocket() (HELD)    peer's Close ─▶ CLOSING ─▶ close() ─┘
                                      connection lost ────────────────────▶ CLOSED
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Final, Protocol, cast

from workers.events import Bytes, CloseEvent, Event, MessageEvent
from workers.exceptions import InvalidAccessError, JsException
from workers.host import current_host
from workers.message_stream import MessageStream
from workers.socket_url import socket_url, subprotocols

CONNECTING: Final = 0
OPEN: Final = 1
CLOSING: Final = 2
CLOSED: Final = 3

FRESH: Final = 0
REGULAR: Final = 1
HELD: Final = 2

MAX_REASON_BYTES: Final = 123
"""A control frame carries 125 bytes, two of which are the code (RFC 6455 §5.5.1)."""
MAX_FRESH_INBOX_BYTES: Final = 1 << 20
"""Messages kept for a socket that has not been accepted yet; beyond that it is closed."""

MAX_UNSENT_BYTES: Final = 16 << 20
"""What may be sent to a socket whose other end nobody has yet; beyond that it is closed."""

NO_STATUS: Final = 1005
LOST: Final = 1006

Listener = Callable[..., Any]


class SocketPort(Protocol):
    """Where the messages of a socket go; the host implements it."""

    def send(self, message: str | bytes) -> None:
        """Pass one message on. It must not block; when it cannot keep it, it ends the socket."""

    def close(self, code: int | None, reason: str) -> None:
        """Pass the Close on: *code* ``None`` is a Close frame without a body."""

    def enqueue(self, event: Event) -> None:
        """Have the listeners of *event* run under the gates of the socket's owner."""


class HeldPort(SocketPort, Protocol):
    """The port of a hibernatable socket; the host implements it."""

    def attached(self, data: bytes | None) -> None:
        """The app has given the socket another attachment, serialized."""


class AttachmentCodec(Protocol):
    """Attachments as bytes; :mod:`workers.attachment` implements it."""

    def write(self, value: Any) -> bytes | None:
        """*value* as bytes."""

    def read(self, data: bytes | None) -> Any:
        """A fresh copy of what was written."""


class SocketHost(Protocol):
    """Whose code uses a socket, and who therefore runs its listeners; the host implements it."""

    def accepted(self, socket: WebSocket) -> None:
        """The app called :meth:`WebSocket.accept`: kept messages may be delivered."""


class OutputGate(Protocol):
    """Keeps what an object sends until what it may reveal is durable."""

    held: bool
    """What is sent now has to go through :meth:`push`."""

    def push(
        self,
        release: Callable[[], None],
        drop: Callable[[BaseException], None] | None = None,
        size: int = 0,
    ) -> None:
        """Call *release* once it may leave, or *drop* if it never will; *size* is in bytes."""


def outputs_of(host: object) -> OutputGate | None:
    """The output gate of a host; ``None`` as long as it has written nothing, or never does."""
    return getattr(host, "outputs", None)


class _Waiting:
    """The port of a socket whose other end is not there yet: keeps everything, in order."""

    __slots__ = ("kept", "kept_bytes")

    def __init__(self) -> None:
        self.kept: list[tuple[int | None, str] | str | bytes] = []
        self.kept_bytes = 0

    def send(self, message: str | bytes) -> None:
        if self.kept_bytes > MAX_UNSENT_BYTES:
            return
        self.kept_bytes += len(message) + _KEPT_EVENT_BYTES
        if self.kept_bytes > MAX_UNSENT_BYTES:
            self.kept = [(1013, "Too much was sent before the connection was established.")]
        else:
            self.kept.append(message)

    def close(self, code: int | None, reason: str) -> None:
        self.kept.append((code, reason))

    def enqueue(self, event: Event) -> None:
        """Nothing can have come yet."""


class WebSocket:
    """One end of a WebSocket: of a pair, or (with *url*) an outgoing connection.

    An outgoing one connects at once; its events ``open``, ``message``, ``error`` and ``close`` tell
    how. ``async for message in ws`` gives the messages of either kind.

    Args:
        url: where to connect: ``ws:`` or ``wss:`` (``http:`` and ``https:`` mean the same).
        protocols: the subprotocol to offer, or several.

    Raises:
        SyntaxError: *url* or *protocols* is not valid.
        RuntimeError: an outgoing one is made outside a running app.

    Attributes:
        url: of an outgoing socket, else ``None``.
        protocol: the negotiated subprotocol of an outgoing socket, else ``""``.
        extensions: always ``""``: the gateway hides compression from the app.
        binaryType: accepted for compatibility; binary messages always arrive as bytes.
    """

    CONNECTING = CONNECTING
    OPEN = OPEN
    CLOSING = CLOSING
    CLOSED = CLOSED

    # Set by workers.attachment: what can be attached knows sockets, so it cannot be imported here.
    attachments: ClassVar[AttachmentCodec]

    __slots__ = (
        "__weakref__",
        "_close_received",
        "_close_sent",
        "_close_told",
        "_connecting",
        "_direct_send",
        "_inbox",
        "_inbox_bytes",
        "_listeners",
        "_lost",
        "_message_listeners",
        "_mode",
        "_other",
        "_peer_code",
        "_port",
        "_port_send",
        "_stream",
        "_taken",
        "attachment",
        "binaryType",
        "extensions",
        "host",
        "protocol",
        "tags",
        "url",
    )

    def __init__(self, url: object = None, protocols: str | Iterable[str] | None = None) -> None:
        self._mode = FRESH
        self._port: SocketPort = _Waiting()
        self._direct_send: Callable[[str | bytes], None] = self._port.send
        self._port_send: Callable[[str | bytes], None] = self._direct_send
        self._other: WebSocket | None = None
        self._taken = False
        self._close_sent = False
        self._close_received = False
        self._close_told = False
        self._connecting = False
        self._lost = False
        self._stream: MessageStream | None = None
        self._peer_code: int | None = None
        self._message_listeners: tuple[Listener, ...] = ()
        self._listeners: dict[str, tuple[Listener, ...]] | None = None
        self._inbox: list[Event] | None = None
        self._inbox_bytes = 0
        self.attachment: bytes | None = None
        self.tags: tuple[str, ...] = ()
        self.host: SocketHost | None = None
        self.url: str | None = None
        self.protocol = ""
        self.extensions = ""
        self.binaryType = "arraybuffer"
        if url is not None:
            self._dial(url, protocols)

    @classmethod
    def new(cls, url: object, protocols: str | Iterable[str] | None = None) -> WebSocket:
        """The same as calling the class, as Pyodide spells JavaScript's ``new``."""
        return cls(url, protocols)

    def _dial(self, url: object, protocols: str | Iterable[str] | None) -> None:
        self.url = socket_url(url)
        offered = subprotocols(protocols)
        host = current_host()
        self.host = host.socket_host()
        self._connecting = True
        host.open_socket(self, self.url, offered)

    # --- the app's side ------------------------------------------------------------------------

    def accept(self, options: object = None) -> None:
        """Begin to use this end here: messages are dispatched to its listeners.

        Raises:
            TypeError: the socket is hibernatable, or its other end was accepted or returned here.
        """
        if self._mode == REGULAR or self._connecting:
            return
        if self._mode == HELD:
            raise TypeError("Can't accept() WebSocket after enabling hibernation.")
        if self._taken:
            raise TypeError("Can't accept() WebSocket that was already used in a response.")
        self._mode = REGULAR
        if self.host is None:
            self.host = current_host().socket_host()
        self.host.accepted(self)

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send one message: ``str`` as text, bytes-like as binary.

        After the connection is lost it is silently dropped: the close event tells.

        Raises:
            TypeError: not accepted yet, closed by this end, or neither text nor bytes.
            JsException: an outgoing socket that is not open yet (``InvalidStateError``).
        """
        if type(message) is str:
            # A lone surrogate has no UTF-8 form: WHATWG puts U+FFFD (RFC 6455 §8.1).
            if not message.isascii():
                message = _scalar_values(message)
        elif type(message) is not bytes:
            message = _as_payload(message)
        if self._close_sent or self._mode == FRESH:
            self._refuse_send()
        if not self._lost:
            self._port_send(message)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a Close frame; nothing may be sent after it. A second call does nothing.

        The code that the peer's own Close had is always accepted: 1005 becomes an empty Close, and
        1006 just ends the socket.

        Args:
            code: 1000..4999 without 1004, 1005, 1006 and 1015 (RFC 6455 §7.4), or ``None``.
            reason: at most 123 bytes of UTF-8; only with a code.

        Raises:
            InvalidAccessError: another code, or a reason without a code.
            SyntaxError: a longer reason.
            TypeError: not accepted yet.
        """
        if self._mode == FRESH and not self._connecting:
            raise TypeError(_NOT_ACCEPTED)
        text = "" if reason is None else _scalar_values(str(reason))
        if code is not None:
            code = _as_code(code)
            if not 1000 <= code <= 4999 or code in (1004, NO_STATUS, LOST, 1015):
                if code != self._peer_code:
                    raise InvalidAccessError(f"Invalid WebSocket close code: {code}.")
                code, text = None, ""
        elif text:
            raise InvalidAccessError(
                "If you specify a WebSocket close reason, you must also specify a code."
            )
        if len(text.encode()) > MAX_REASON_BYTES:
            raise SyntaxError(
                "WebSocket close reason must not be longer than 123 bytes when UTF-8 encoded."
            )
        if self._close_sent:
            return
        self._close_sent = True
        if not self._lost:
            gate = outputs_of(self.host)
            if gate is not None and gate.held:
                gate.push(lambda: self._port.close(code, text))
            else:
                self._port.close(code, text)

    def serializeAttachment(self, value: object) -> None:
        """Attach *value* to the socket; a hibernatable one keeps it when its object sleeps.

        Args:
            value: what can be stored, at most 16,384 bytes serialized; it is copied.

        Raises:
            DataCloneError: it cannot be serialized; the old attachment stays.
            JsException: it is too large; the old attachment stays.

        Source: https://developers.cloudflare.com/durable-objects/api/websockets/#serializeattachment
        """
        self.attachment = data = self.attachments.write(value)
        if self._mode == HELD:
            cast("HeldPort", self._port).attached(data)

    def deserializeAttachment(self) -> Any:
        """Return a fresh copy of the attachment; ``None`` if there is none.

        Source: https://developers.cloudflare.com/durable-objects/api/websockets/#deserializeattachment
        """
        return self.attachments.read(self.attachment)

    def addEventListener(self, type: str, listener: Listener, options: object = None) -> None:
        """Call *listener*, a function or coroutine function, with each event of that type.

        Args:
            type: ``"message"``, ``"close"``, ``"error"`` or ``"open"``.
            listener: called with the event; adding the same one twice has no effect.
            options: ``{"once": True}`` removes it before its first call.

        Raises:
            TypeError: *listener* is not callable.
        """
        if not callable(listener):
            raise TypeError(f"addEventListener: the listener is not callable: {listener!r}")
        if _option(options, "once"):
            listener = _Once(self, type, listener)
        if self._listeners is None:
            self._listeners = {}
        listeners = self._listeners.get(type, ())
        if listener not in listeners:
            self._set_listeners(type, (*listeners, listener))

    def removeEventListener(self, type: str, listener: Listener, options: object = None) -> None:
        """Call *listener* no more; no effect if it was never added."""
        if self._listeners is not None:
            kept = tuple(each for each in self._listeners.get(type, ()) if each != listener)
            self._set_listeners(type, kept)

    def _set_listeners(self, type: str, listeners: tuple[Listener, ...]) -> None:
        assert self._listeners is not None
        self._listeners[type] = listeners
        if type == "message":
            self._message_listeners = listeners

    def _on(self, type: str) -> Listener | None:
        for listener in (self._listeners or {}).get(type, ()):
            if isinstance(listener, _Property):
                return listener.function
        return None

    def _set_on(self, type: str, function: Listener | None) -> None:
        for listener in (self._listeners or {}).get(type, ()):
            if isinstance(listener, _Property):
                self.removeEventListener(type, listener)
        if function is not None:
            self.addEventListener(type, _Property(function))

    @property
    def onmessage(self) -> Listener | None:
        """The listener for messages that is set by assignment."""
        return self._on("message")

    @onmessage.setter
    def onmessage(self, function: Listener | None) -> None:
        self._set_on("message", function)

    @property
    def onclose(self) -> Listener | None:
        """The listener for the close event that is set by assignment."""
        return self._on("close")

    @onclose.setter
    def onclose(self, function: Listener | None) -> None:
        self._set_on("close", function)

    @property
    def onerror(self) -> Listener | None:
        """The listener for the error event that is set by assignment."""
        return self._on("error")

    @onerror.setter
    def onerror(self, function: Listener | None) -> None:
        self._set_on("error", function)

    @property
    def onopen(self) -> Listener | None:
        """The listener for the open event that is set by assignment."""
        return self._on("open")

    @onopen.setter
    def onopen(self, function: Listener | None) -> None:
        self._set_on("open", function)

    @property
    def readyState(self) -> int:
        """0 connecting, 1 open, 2 closing (one side has sent Close), 3 closed."""
        if self._lost or (self._close_sent and self._close_received):
            return CLOSED
        if self._close_sent or self._close_received:
            return CLOSING
        return CONNECTING if self._connecting else OPEN

    def __aiter__(self) -> MessageStream:
        """The messages from now on, ``str`` or ``bytes``; ends when the socket closes.

        Accepts the socket if that has not been done. Begin in the same step in which you accept it
        or open it: messages that come before are for its listeners only.

        Raises:
            TypeError: it is hibernatable, or was returned in a response.
        """
        if self._mode == HELD:
            raise TypeError("a hibernatable WebSocket's messages go to webSocketMessage()")
        if self._stream is None:
            self._stream = MessageStream(self, closed=self._close_told)
            self.accept()
        return self._stream

    serialize_attachment = serializeAttachment
    deserialize_attachment = deserializeAttachment
    add_event_listener = addEventListener
    remove_event_listener = removeEventListener
    ready_state = readyState

    @property
    def binary_type(self) -> str:
        """The same as :attr:`binaryType`."""
        return self.binaryType

    @binary_type.setter
    def binary_type(self, value: str) -> None:
        self.binaryType = value

    # --- the host's side -----------------------------------------------------------------------

    @property
    def mode(self) -> int:
        """:data:`FRESH`, :data:`REGULAR` (``accept``) or :data:`HELD` (``acceptWebSocket``)."""
        return self._mode

    @property
    def other(self) -> WebSocket | None:
        """The other end of its pair."""
        return self._other

    @property
    def taken(self) -> bool:
        """Whether this end was returned in a response, so that a client holds it now."""
        return self._taken

    @property
    def close_sent(self) -> bool:
        """Whether this end has sent its Close."""
        return self._close_sent

    @property
    def ended(self) -> bool:
        """Whether the peer has sent Close or is gone: nothing more will arrive."""
        return self._close_received or self._lost

    def listeners(self, type: str) -> tuple[Listener, ...]:
        """The listeners for events of that type, in the order they were added.

        The host asks once for each event, to run them.
        """
        if type == "close":
            self._close_told = True
        return () if self._listeners is None else self._listeners.get(type, ())

    def take(self) -> WebSocket:
        """Mark this end as returned in a response; the other end, which stays, is the answer.

        Raises:
            TypeError: it was accepted, or returned before.
        """
        if self._mode != FRESH or self._taken:
            raise TypeError("Can't return WebSocket in a Response after calling accept().")
        if self._other is None:
            raise TypeError("Can't return an outgoing WebSocket in a Response.")
        self._taken = True
        return self._other

    def hold(self, tags: tuple[str, ...]) -> None:
        """Make it hibernatable: ``acceptWebSocket`` has checked that it may be."""
        self._mode = HELD
        self.tags = tags

    def wake(self, port: SocketPort, attachment: bytes | None, *, close_sent: bool) -> None:
        """Make this new object stand for a held socket that was accepted in an earlier life."""
        self._port = port
        self.divert(port.send)
        self.attachment = attachment
        self._close_sent = close_sent

    def opened(self, protocol: str) -> None:
        """The connection of an outgoing socket is made; *protocol* was chosen, or is ``""``."""
        self._connecting = False
        self._mode = REGULAR
        self.protocol = protocol

    def connect(self, port: SocketPort) -> None:
        """Let *port* carry what this end sends, beginning with what it has sent so far."""
        waiting, self._port = self._port, port
        self.divert(port.send)
        if isinstance(waiting, _Waiting):
            for item in waiting.kept:
                if type(item) is tuple:
                    port.close(*item)
                else:
                    port.send(item)  # type: ignore[arg-type]

    def arrived(self, message: str | bytes) -> MessageEvent | None:
        """A message has come: the event to run its listeners with, or ``None`` if it is kept."""
        event = MessageEvent(message if isinstance(message, str) else Bytes(message), self)
        if self.keeps_events:
            self._keep(event, len(message))
            return None
        return event

    def closed_by_peer(self, code: int, reason: str, was_clean: bool) -> CloseEvent | None:
        """The other end has sent Close (*was_clean*), or is gone: the close event, once.

        ``None`` if it is kept until ``accept``, or has been told already.
        """
        if self._lost or (was_clean and self._close_received):
            return None
        told = self._close_received
        self._close_received = was_clean or told
        self._lost = not was_clean
        if told:
            return None
        self._peer_code = code
        event = CloseEvent(code, reason, was_clean, self)
        if self.keeps_events:
            self._keep(event, 0)
            return None
        return event

    def kept_events(self) -> list[Event]:
        """What came before ``accept``, oldest first; from now on events are dispatched at once."""
        kept, self._inbox = self._inbox or [], None
        self._inbox_bytes = 0
        return kept

    @property
    def keeps_events(self) -> bool:
        """Whether what arrives is kept, because nobody has accepted this end yet."""
        return self.host is None or self._inbox is not None

    @property
    def port(self) -> SocketPort:
        """Where what it sends goes."""
        return self._port

    def divert(self, send: Callable[[str | bytes], None]) -> None:
        """Let *send* stand in for its port's ``send``: one call less for each message."""
        self._direct_send = send
        self._port_send = send if outputs_of(self.host) is None else self._gated_send

    def gate_sends(self) -> None:
        """Its host has an output gate from now on: what is sent goes through that."""
        self._port_send = self._gated_send

    def _gated_send(self, message: str | bytes) -> None:
        gate = outputs_of(self.host)
        if gate is not None and gate.held:
            gate.push(lambda: self._direct_send(message), None, len(message))
        else:
            self._direct_send(message)

    def _keep(self, event: Event, size: int) -> None:
        is_message = type(event) is MessageEvent
        if is_message and self._lost:
            return
        self._inbox_bytes += size + _KEPT_EVENT_BYTES
        if self._inbox and is_message and self._inbox_bytes > MAX_FRESH_INBOX_BYTES:
            self._inbox = [CloseEvent(LOST, _NOT_ACCEPTED_IN_TIME, False, self)]
            self._lost = True
            self._port.close(1013, _NOT_ACCEPTED_IN_TIME)
            return
        if self._inbox is None:
            self._inbox = []
        self._inbox.append(event)

    def _refuse_send(self) -> None:
        if self._connecting and not self._close_sent:
            raise JsException(
                "Failed to execute 'send' on 'WebSocket': Still in CONNECTING state.",
                "InvalidStateError",
            )
        if self._mode == FRESH and not self._connecting:
            raise TypeError(_NOT_ACCEPTED)
        raise TypeError("Can't call WebSocket send() after close().")


class WebSocketPair:
    """Two ends that are each other's peer: return one in a ``Response``, accept the other.

    https://developers.cloudflare.com/workers/runtime-apis/websockets/#constructor

    ``client, server = WebSocketPair()`` and ``WebSocketPair.new().object_values()`` give both ends;
    ``pair[0]`` and ``pair[1]`` one of them.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        client, server = WebSocket(), WebSocket()
        client._other, server._other = server, client
        self._ends = (client, server)

    @classmethod
    def new(cls) -> WebSocketPair:
        """The same as calling the class, as Pyodide spells JavaScript's ``new``."""
        return cls()

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(self._ends)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int | str) -> WebSocket:
        return self._ends[int(index)]

    def object_values(self) -> tuple[WebSocket, WebSocket]:
        """Both ends, as ``Object.values`` gives them."""
        return self._ends


class _Property:
    """A listener set by ``onmessage = …``; compares by identity, so it can be replaced."""

    __slots__ = ("function",)

    def __init__(self, function: Listener) -> None:
        self.function = function

    def __call__(self, event: Event) -> Any:
        return self.function(event)


class _Once:
    __slots__ = ("function", "socket", "type")

    def __init__(self, socket: WebSocket, type: str, function: Listener) -> None:
        self.socket = socket
        self.type = type
        self.function = function

    def __eq__(self, other: object) -> bool:
        return other == self.function

    def __hash__(self) -> int:
        return hash(self.function)

    def __call__(self, event: Event) -> Any:
        self.socket.removeEventListener(self.type, self)
        return self.function(event)


_KEPT_EVENT_BYTES: Final = 200
"""What a kept message counts beside its payload."""
_NOT_ACCEPTED_IN_TIME: Final = "Nobody accepted the WebSocket before its buffer was full."
_NOT_ACCEPTED: Final = (
    "You must call one of accept() or state.acceptWebSocket() on this WebSocket before sending "
    "messages."
)


def _option(options: object, name: str) -> bool:
    if isinstance(options, dict):
        return bool(options.get(name))
    return bool(getattr(options, name, False))


def _scalar_values(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _as_payload(message: object) -> str | bytes:
    if isinstance(message, str):
        return _scalar_values(str(message))
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise TypeError(
        f"WebSocket send() takes str or bytes, not {type(message).__name__}: "
        "encode it first, for example with json.dumps"
    )


def _as_code(code: object) -> int:
    try:
        number = int(code)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        number = 0
    if not -(1 << 31) <= number < 1 << 31:
        raise TypeError(
            "Value out of range. Must be between -2147483648 and 2147483647 (inclusive)."
        )
    return int(number)
