"""Outgoing WebSockets: the port between an app's ``WebSocket`` and a server elsewhere.

The HTTP client makes the connection and the handshake; from the 101 on, its compiled frame reader
feeds :class:`OutgoingSocket` directly, without a task and without a future for each message.

::

    DIALLING ── 101 ──▶ OPEN ── Close sent or received ──▶ CLOSING ── both ──▶ ENDED
        │                 │            (CLOSE_TIMEOUT_S)                         ▲
        └── failed ───────┴── connection lost, protocol error, slow peer ────────┘
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import ClientResponse, WebSocketError, WSMsgType
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

from common.close_reasons import LOST_TEXT, UNCAUGHT
from shard.inbox import Inbox, SocketOwner
from workers.events import CloseEvent, ErrorEvent, Event, OpenEvent
from workers.websocket import LOST, NO_STATUS, WebSocket

if TYPE_CHECKING:
    from common.settings import Settings

log = structlog.get_logger(__name__)

UNACCEPTED_TIMEOUT_S: Final = 30.0
"""How long the socket of a ``fetch`` may stay without ``accept()`` before it is closed."""

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PONG: Final = 0x8A
_pack_small: Final = Struct(">BB").pack
_pack_medium: Final = Struct(">BBH").pack
_pack_long: Final = Struct(">BBQ").pack


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The bounds of a socket that ends in this process.

    Attributes:
        waiting_bytes: what may wait for the owner before reading pauses.
        unsent_bytes: what may wait for a slow peer before the socket ends.
        message_bytes: largest message that is read.
        close_timeout_s: how long the peer has to answer a Close.
    """

    waiting_bytes: int
    unsent_bytes: int
    message_bytes: int
    close_timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> SocketLimits:
        """Those that are configured."""
        return cls(
            settings.socket_buffer_bytes,
            settings.connection_buffer_bytes,
            settings.max_message_bytes,
            settings.close_timeout_s,
        )


class OutgoingSocket:
    """The port of one outgoing socket.

    Args:
        ws: the app's end.
        forget: called once, when nothing more will happen.

    Attributes:
        ended: the connection is gone and the app has been told, or will not be.
        drained: called when the peer has read some of what waited for it.
    """

    def __init__(
        self,
        ws: WebSocket,
        limits: SocketLimits,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[OutgoingSocket], None],
    ) -> None:
        self.ws = ws
        self.ended = False
        self._limits = limits
        self._loop = loop
        self._forget = forget
        self._inbox = Inbox(ws, self, loop)
        self._owner: SocketOwner | None = None
        self._dialling: asyncio.Task[ClientResponse] | None = None
        self._response: ClientResponse | None = None
        self._protocol: Any = None
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._accept_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._close_read = False

    # --- life ----------------------------------------------------------------------------------

    def owned_by(self, owner: Any) -> None:
        """*owner* uses the socket from now on, and is kept in memory by it."""
        if self._accept_timer is not None:
            self._accept_timer.cancel()
            self._accept_timer = None
        if self.ended:
            owner.regular_sockets.discard(self.ws)
            return
        self._owner = owner
        owner.slot.sockets.add(self)
        owner.regular_sockets.add(self.ws)

    def dial(self, dialling: asyncio.Task[ClientResponse]) -> None:
        """The connection is being made by *dialling*, whose result is the answer 101."""
        self._dialling = dialling
        dialling.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[ClientResponse]) -> None:
        self._dialling = None
        if task.cancelled():
            self._fail("WebSocket is closed before the connection is established.")
        elif (error := task.exception()) is not None:
            self._fail(f"WebSocket connection to {self.ws.url} failed: {error}", error)
        elif self.ended or self.ws.close_sent:
            task.result().close()
            self._fail("WebSocket is closed before the connection is established.")
        else:
            response = task.result()
            self.ws.opened(response.headers.get("Sec-WebSocket-Protocol", ""))
            self._inbox.put(OpenEvent(self.ws))
            self.join(response)

    def join(self, response: ClientResponse) -> None:
        """Carry the frames of the connection that *response*, a checked 101, has opened."""
        connection = response.connection
        assert connection is not None
        self._response = response
        self._protocol = protocol = connection.protocol
        self._transport = connection.transport
        assert protocol is not None
        if self._owner is None:
            self._accept_timer = self._loop.call_later(UNACCEPTED_TIMEOUT_S, self._not_accepted)
        frames = _Frames(self, protocol, self._loop)
        self._parser = WebSocketReader(frames, self._limits.message_bytes, False, True)
        # What came in the same packet as the 101 is read at once.
        protocol.set_parser(self._parser, frames)

    def reset(self) -> None:
        """The owner is gone: the peer is told, the app's old code is not."""
        self._inbox.close()
        if self._dialling is not None:
            self._dialling.cancel()
        elif self._transport is not None and not self.ws.close_sent and not self.ended:
            self._write_close(1001, "the object was reset")
        self._finish()

    # --- out: the app's socket sends (SocketPort) ----------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Write one message; a peer that lets too much wait is given up."""
        if self.ended or self._transport is None:
            return
        if self._transport.is_closing():
            self._lose(LOST, LOST_TEXT)  # it is lost already, the event loop has yet to say so
            return
        if isinstance(message, str):
            self._write(_TEXT, message.encode())
        else:
            self._write(_BINARY, message)
        if self.unsent_bytes > self._limits.unsent_bytes:
            self._lose(1013, "the peer reads too slowly", abort=True)

    def close(self, code: int | None, reason: str) -> None:
        """Write a Close; after that the peer has a while to answer."""
        if self._dialling is not None:
            self._dialling.cancel()
        elif not self.ended and self._transport is not None:
            self._write_close(code, reason)
            if self._close_read:
                self._finish()
            else:
                self._give_up_later()

    def enqueue(self, event: Event) -> None:
        """Deliver what was kept until ``accept()``, and read on."""
        self._inbox.put(event)

    @property
    def unsent_bytes(self) -> int:
        """What the peer has not taken yet, as far as this process can tell."""
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent, or is gone."""
        if not self.ended and self._protocol.writing_paused:
            await self._protocol._drain_helper()

    def _write(self, first: int, payload: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(_client_frame(first, payload))

    def _write_close(self, code: int | None, reason: str) -> None:
        body = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
        self._write(_CLOSE, body)

    # --- in: from the frame reader -------------------------------------------------------------

    def frame(self, kind: WSMsgType, data: Any, extra: Any) -> None:
        """A message or control frame has come (hot path)."""
        if self._close_read or self.ended:
            return  # RFC 6455 §5.5.1: nothing counts after a Close
        if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
            event = self.ws.arrived(data)
            if event is not None:
                self._inbox.put(event)
            else:
                self._pause(True)  # until accept(): then enqueue() comes
        elif kind is WSMsgType.PING:
            if self.unsent_bytes <= self._limits.unsent_bytes:
                self._write(_PONG, bytes(data))
        elif kind is WSMsgType.CLOSE:
            self._closed(int(data) or NO_STATUS, str(extra or ""))

    def _closed(self, code: int, reason: str) -> None:
        self._close_read = True
        event = self.ws.closed_by_peer(code, reason, True)
        if event is not None:
            self._inbox.put(event)
        if self.ws.close_sent:
            self._finish()
        else:
            self._give_up_later()

    def violated(self, error: BaseException) -> None:
        """What came is no WebSocket frame: the connection fails (RFC 6455 §7.1.7)."""
        if self.ended:
            return
        if isinstance(error, WebSocketError) and not self.ws.close_sent:
            self._write_close(int(error.code), "")
        self._tell_error(f"WebSocket protocol error: {error}", error)
        self._lose(LOST, str(error))

    def stream_ended(self) -> None:
        """The connection is gone."""
        if not self._close_read:
            self._lose(LOST, LOST_TEXT)
        else:
            self._finish()

    # --- what becomes of the events (InboxPort) ------------------------------------------------

    def inbox_changed(self) -> None:
        waiting = self._inbox.waiting_bytes
        if not self._paused:
            if waiting > self._limits.waiting_bytes:
                self._pause(True)
        elif waiting <= self._limits.waiting_bytes // 2 and not self.ws.keeps_events:
            self._pause(False)

    def inbox_refused(self) -> None:
        self._lose(1013, "the object is overloaded", abort=True)

    def listener_raised(self, error: BaseException) -> None:
        self._tell_error(f"Uncaught {type(error).__name__}: {error}", error)
        if not self.ws.close_sent:
            self.ws.close(*UNCAUGHT[:2])

    def listeners_closed(self, event: CloseEvent) -> None:
        """Answer the peer's Close if the app did not."""
        if event.wasClean and not self.ws.close_sent and not self.ended:
            self.ws.close(None if event.code == NO_STATUS else event.code)

    # --- the end -------------------------------------------------------------------------------

    def _fail(self, text: str, error: BaseException | None = None) -> None:
        if not self.ended:
            self._tell_error(text, error)
            self._lose(LOST, text)

    def _tell_error(self, text: str, error: BaseException | None) -> None:
        if not self.ws.keeps_events:
            self._inbox.put(ErrorEvent(text, error, self.ws))

    def _lose(self, code: int, text: str, *, abort: bool = False) -> None:
        if self.ended:
            return
        event = self.ws.closed_by_peer(code, text, False)
        if event is not None:
            self._inbox.put(event)
        if abort and self._transport is not None:
            self._transport.abort()
        self._finish()

    def _give_up_later(self) -> None:
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(self._limits.close_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._lose(LOST, "the closing handshake took too long", abort=True)

    def _not_accepted(self) -> None:
        log.warning("socket.never_accepted", url=self.ws.url)
        self._write_close(1001, "nobody accepted this socket")
        self._finish()

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        for timer in (self._accept_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        if self._response is not None:
            # Closing writes out what is buffered; a peer that does not read must not hold it up.
            transport = self._transport
            self._response.close()
            if transport is not None and transport.get_write_buffer_size():
                self._loop.call_later(self._limits.close_timeout_s, transport.abort)
        self._response = self._protocol = self._parser = None
        owner: Any = self._owner
        if owner is not None:
            owner.slot.sockets.discard(self)
            owner.regular_sockets.discard(self.ws)
        self._forget(self)

    def _pause(self, paused: bool) -> None:
        if self._paused != paused and self._protocol is not None:
            self._paused = paused
            if paused:
                self._protocol.pause_reading()
            else:
                self._protocol.resume_reading()


class _Frames(WebSocketDataQueue):
    """Takes what the frame reader completes, and passes it on at once."""

    def __init__(
        self, socket: OutgoingSocket, protocol: Any, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(protocol, 1 << 16, loop=loop)
        self._socket = socket

    def feed_data(self, data: Any, size: int) -> None:
        # The compiled reader ignores what is raised here.
        try:
            self._socket.frame(data.type, data.data, data.extra)
        except Exception as error:
            log.exception("socket.frame_failed")
            self._socket.violated(error)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        self._socket.violated(exc)

    def feed_eof(self) -> None:
        self._socket.stream_ended()


def _client_frame(first: int, payload: bytes) -> bytes:
    """One frame as a client sends it: masked with a fresh key (RFC 6455 §5.3)."""
    size = len(payload)
    if size < 126:
        head = _pack_small(first, 0x80 | size)
    elif size < 65536:
        head = _pack_medium(first, 0x80 | 126, size)
    else:
        head = _pack_long(first, 0x80 | 127, size)
    key = os.urandom(4)
    masked = bytearray(payload)
    websocket_mask(key, masked)
    return b"".join((head, key, masked))
