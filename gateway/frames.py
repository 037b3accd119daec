"""WebSocket frames (RFC 6455 §5) as a machine without I/O: bytes in, events out; messages to bytes.

Theory of operation
-------------------
:meth:`FrameParser.feed` takes whatever the socket gave and returns what it completes, as a list of
pairs ``(kind, value)``:

==================  ================================================================================
``TEXT``            ``str``: a whole text message
``LARGE_TEXT``      ``bytearray`` of valid UTF-8: a text message that goes on as it is, not decoded
``BINARY``          ``bytes`` or ``bytearray``: a whole binary message
``PING``, ``PONG``  ``bytes``
``CLOSE``           ``(code, reason)``; an empty Close is ``(1005, "")`` (§7.1.5)
``VIOLATION``       ``(code, text)``: the connection must fail with this code (§7.1.7)
==================  ================================================================================

After ``CLOSE`` or ``VIOLATION`` the parser ignores all input. Everything that can be refused from a
frame's header is refused before any of its payload has come.

Work is linear in the bytes received however they are cut up, and memory grows with the bytes that
have arrived, not with the length that a header claims. A chunk may hold tens of thousands of tiny
frames: after :data:`EVENTS_PER_FEED` of them the rest waits for another ``feed(b"")``.

Nine of ten chunks are one small text frame and nothing else: :func:`small_text` reads those alone.
"""

from __future__ import annotations

import codecs
import struct
from typing import Any, Final, Protocol, TypeAlias

from gateway.masking import apply_mask

TEXT: Final = 1
BINARY: Final = 2
LARGE_TEXT: Final = 3
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
VIOLATION: Final = 16

Event: TypeAlias = tuple[int, Any]
Buffer: TypeAlias = bytes | bytearray | memoryview

PROTOCOL_ERROR: Final = 1002
INVALID_PAYLOAD: Final = 1007
TOO_LARGE: Final = 1009
NO_STATUS: Final = 1005

LARGE_TEXT_BYTES: Final = 8192
"""Text messages from this size on are validated but not decoded."""
EVENTS_PER_FEED: Final = 256
"""Frames that one call reads at most; some 0.3 ms of work."""
SMALL_CHUNK_BYTES: Final = 4096
"""Pieces of a payload below this size are gathered, so that a dribble does not become a list of
a million bytes objects."""

_CONTINUATION: Final = 0
_FIN: Final = 0x80
_RSV1: Final = 0x40
_RSV2_3: Final = 0x30
_MASKED: Final = 0x80

MAX_CONTROL_BYTES: Final = 125
MAX_REASON_BYTES: Final = 123


class Inflate(Protocol):
    """Decompresses one message (RFC 7692 §7.2.2)."""

    def __call__(self, payload: bytearray, max_bytes: int) -> bytearray:
        """Return the message.

        Raises:
            OverflowError: it has more than *max_bytes* bytes.
            ValueError: *payload* is not compressed data.
        """


def small_text(chunk: bytes) -> str | None:
    """The text in *chunk* if that is exactly one unfragmented masked text frame of <= 125 bytes.

    ``None`` for anything else, errors included: those are for :class:`FrameParser` to judge.
    """
    size = len(chunk)
    if 6 <= size < 132 and chunk[0] == 0x81 and chunk[1] == size + 122:
        payload = bytearray(chunk[6:])
        apply_mask(chunk[2:6], payload)
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None
    return None


class FrameParser:
    """Reads what one client sends.

    Args:
        max_message_bytes: largest message, over all its fragments and after decompression.
        inflate: decompresses messages, if permessage-deflate was negotiated.
    """

    __slots__ = (
        "_backlog",
        "_budget",
        "_decoder",
        "_done",
        "_first",
        "_frame_bytes",
        "_head",
        "_inflate",
        "_key",
        "_max_bytes",
        "_message",
        "_message_kind",
        "_missing",
        "_pieces",
    )

    def __init__(self, max_message_bytes: int, inflate: Inflate | None = None) -> None:
        self._max_bytes = max_message_bytes
        self._inflate = inflate
        self._done = False
        self._backlog = b""  # whole frames that were left for the next call
        self._budget = 0  # frames that this call may still read
        self._head = b""  # an incomplete frame header: at most 13 bytes
        self._first = 0  # first byte of the frame whose payload is being collected
        self._key = b""
        self._frame_bytes = 0  # size of that payload
        self._missing = 0  # bytes of that payload that have not come yet
        self._pieces: list[Any] = []
        self._message: bytearray | None = None  # fragments so far
        self._message_kind = 0  # first byte of the first fragment, without FIN
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def is_idle(self) -> bool:
        """Between messages, with nothing kept: the next chunk may be read by itself."""
        return (
            not (self._head or self._missing or self._done or self._backlog)
            and self._message is None
        )

    @property
    def partial_bytes(self) -> int:
        """Bytes kept here of a message that has not come to its end."""
        fragments = len(self._message) if self._message is not None else 0
        return fragments + (self._frame_bytes - self._missing if self._missing else 0)

    @property
    def has_backlog(self) -> bool:
        """More has come than one call reads: call :meth:`feed` again, soon, with ``b""``."""
        return bool(self._backlog)

    def feed(self, data: bytes) -> list[Event]:
        """The events that *data* completes."""
        events: list[Event] = []
        if self._done:
            return events
        position = 0
        if self._missing:
            position = self._collect(data, events)
        elif self._head:
            data = self._head + data
            self._head = b""
        elif self._backlog:
            data = self._backlog + data
            self._backlog = b""
        end = len(data)
        self._budget = EVENTS_PER_FEED
        while end - position >= 2 and self._budget:
            self._budget -= 1
            position = self._frame(data, position, end, events)
            if position < 0:
                return events
        if position < end and not self._done:
            if end - position < 2:
                self._head = data[position:]
            else:
                self._backlog = data[position:]
        return events

    # --- one frame -----------------------------------------------------------------------------

    def _frame(self, data: bytes, start: int, end: int, events: list[Event]) -> int:
        """Read the frame at *start*; where the next one begins, or -1 when the data has run out."""
        first = data[start]
        second = data[start + 1]
        length = second & 0x7F
        at = start + 2
        if (
            first != 0x81 or second < _MASKED or self._message is not None
        ) and not self._check_start(first, second, events):
            return -1
        if length > MAX_CONTROL_BYTES:
            size = 2 if length == 126 else 8
            if end - at < size:
                self._head = data[start:]
                return -1
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        room = self._max_bytes - len(self._message) if self._message else self._max_bytes
        if length > room and not first & 8:
            self._refuse_length(length, events)
            return -1
        if end - at < 4:
            self._head = data[start:]
            return -1
        key = data[at : at + 4]
        at += 4
        stop = at + length
        if stop > end:
            self._first = first
            self._key = key
            self._frame_bytes = length
            self._missing = stop - end
            self._pieces = [memoryview(data)[at:] if end - at > SMALL_CHUNK_BYTES else data[at:]]
            return -1
        # A slice of bytes copies once; through a view, a large payload is not copied twice.
        payload = bytearray(data[at:stop] if length < 1024 else memoryview(data)[at:stop])
        apply_mask(key, payload)
        self._complete(first, payload, events)
        return stop

    def _collect(self, data: bytes, events: list[Event]) -> int:
        """Take what is missing of a payload; where the next frame begins in *data*."""
        size = len(data)
        taken = min(size, self._missing)
        self._missing -= taken
        pieces = self._pieces
        piece: Buffer = data if taken == size else memoryview(data)[:taken]
        if taken >= SMALL_CHUNK_BYTES:
            pieces.append(piece)
        elif type(pieces[-1]) is bytearray:
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))
        if not self._missing:
            payload = bytearray().join(pieces)
            self._pieces = []
            apply_mask(self._key, payload)
            self._complete(self._first, payload, events)
        return taken

    def _complete(self, first: int, payload: bytearray, events: list[Event]) -> None:
        if first == 0x81:
            self._text(payload, events)
        elif first & 8:
            self._control(first & 0x0F, payload, events)
        elif self._message is None and first & _FIN:
            self._whole(first, payload, events)
        else:
            self._fragment(first, payload, events)

    # --- what a header may say -----------------------------------------------------------------

    def _check_start(self, first: int, second: int, events: list[Event]) -> bool:
        fault = self._start_fault(first, second)
        if fault:
            self._fail(PROTOCOL_ERROR, fault, events)
            return False
        return True

    def _start_fault(self, first: int, second: int) -> str:
        opcode = first & 0x0F
        if first & _RSV2_3:
            return "Received frame had RSV bits 2 or 3 set"
        if first & _RSV1 and (self._inflate is None or opcode not in (TEXT, BINARY)):
            return "Received a WebSocket frame whose compression bit was set, " + (
                "but the compression extension was not negotiated for this connection."
                if self._inflate is None
                else "which only the first frame of a message may have."
            )
        if opcode & 8:
            if opcode > PONG:
                return f"Unknown opcode {opcode}"
            if not first & _FIN:
                return "Received fragmented control frame"
            if second & 0x7F > MAX_CONTROL_BYTES:
                return "Received control frame with more than 125 bytes"
        elif opcode > BINARY:
            return f"Unknown opcode {opcode}"
        elif opcode == _CONTINUATION:
            if self._message is None:
                return "Unexpected continuation frame"
        elif self._message is not None:
            return "Missing continuation frame"
        if not second & _MASKED:
            return "Received a frame that was not masked"  # §5.1
        return ""

    def _refuse_length(self, length: int, events: list[Event]) -> None:
        if length >> 63:
            self._fail(PROTOCOL_ERROR, "Received a frame length with its top bit set", events)
            return
        total = length + (len(self._message) if self._message else 0)
        self._fail(TOO_LARGE, f"Message is too large: {total} > {self._max_bytes}", events)

    # --- what a payload may hold ---------------------------------------------------------------

    def _text(self, payload: bytearray, events: list[Event]) -> None:
        try:
            if len(payload) < LARGE_TEXT_BYTES:
                events.append((TEXT, payload.decode()))
            else:
                if not payload.isascii():
                    payload.decode()
                events.append((LARGE_TEXT, payload))
        except UnicodeDecodeError:
            self._fail(INVALID_PAYLOAD, "Text message is not valid UTF-8", events)

    def _whole(self, first: int, payload: bytearray, events: list[Event]) -> None:
        if first & _RSV1:
            inflated = self._inflated(payload, events)
            if inflated is None:
                return
            payload = inflated
        if first & 0x0F == TEXT:
            self._text(payload, events)
        else:
            # msgpack and the log want bytes; a large one goes on as it is.
            events.append((BINARY, payload if len(payload) >= LARGE_TEXT_BYTES else bytes(payload)))

    def _fragment(self, first: int, payload: bytearray, events: list[Event]) -> None:
        if self._message is None:
            self._message = payload
            self._message_kind = first & ~_FIN
            if self._message_kind == TEXT:
                self._decoder = codecs.getincrementaldecoder("utf-8")()
        else:
            self._message += payload
        final = bool(first & _FIN)
        if self._decoder is not None:
            try:
                # Only to fail at the first bad fragment rather than at the last (§8.1).
                self._decoder.decode(bytes(payload), final)
            except UnicodeDecodeError:
                self._fail(INVALID_PAYLOAD, "Text message is not valid UTF-8", events)
                return
        if final:
            message, kind = self._message, self._message_kind
            self._message = self._decoder = None
            self._whole(kind, message, events)

    def _inflated(self, payload: bytearray, events: list[Event]) -> bytearray | None:
        assert self._inflate is not None
        try:
            return self._inflate(payload, self._max_bytes)
        except OverflowError:
            self._fail(TOO_LARGE, f"Message is too large: inflates past {self._max_bytes}", events)
        except ValueError:
            self._fail(INVALID_PAYLOAD, "Invalid compressed data", events)
        return None

    def _control(self, opcode: int, payload: bytearray, events: list[Event]) -> None:
        if opcode != CLOSE:
            events.append((opcode, bytes(payload)))
            return
        if not payload:
            self._finish()
            events.append((CLOSE, (NO_STATUS, "")))
            return
        if len(payload) == 1:
            self._fail(PROTOCOL_ERROR, "Received a Close frame with half a status code", events)
            return
        code = int.from_bytes(payload[:2], "big")
        if not is_sendable(code):
            self._fail(PROTOCOL_ERROR, f"Received the close code {code}, which is invalid", events)
            return
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            self._fail(INVALID_PAYLOAD, "Close reason is not valid UTF-8", events)
            return
        self._finish()
        events.append((CLOSE, (code, reason)))

    # --- the end -------------------------------------------------------------------------------

    def _fail(self, code: int, text: str, events: list[Event]) -> None:
        self._finish()
        events.append((VIOLATION, (code, text)))

    def _finish(self) -> None:
        self._done = True
        self._budget = 0
        self._head = b""
        self._missing = 0
        self._pieces = []
        self._message = self._decoder = None


def is_sendable(code: int) -> bool:
    """Whether a Close frame may carry *code* (§7.4; the registry as of 2026 ends at 1014)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and not 1004 <= code <= 1006)


# --- encoding: a server's frames are never masked nor fragmented ----------------------------------

_TEXT_HEADS: Final = [bytes((_FIN | TEXT, size)) for size in range(126)]
_BINARY_HEADS: Final = [bytes((_FIN | BINARY, size)) for size in range(126)]
_pack_medium: Final = struct.Struct(">BBH").pack
_pack_long: Final = struct.Struct(">BBQ").pack
_COMPRESSED: Final = _RSV1


def encode_message(payload: str | Buffer) -> bytes:
    """One message as one frame: ``str`` as text, bytes-like as binary."""
    if type(payload) is str:
        try:
            raw = payload.encode()
        except UnicodeEncodeError:  # lone surrogates become U+FFFD, as in a browser's send()
            raw = payload.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        size = len(raw)
        if size < 126:
            return _TEXT_HEADS[size] + raw
        return _head(_FIN | TEXT, size) + raw
    size = len(payload)
    if size < 126:
        return _BINARY_HEADS[size] + payload  # type: ignore[operator]
    return b"".join((_head(_FIN | BINARY, size), payload))  # type: ignore[arg-type]


def encode_raw_text(payload: Buffer) -> bytes:
    """One text message that is UTF-8 already."""
    return b"".join((_head(_FIN | TEXT, len(payload)), payload))


def encode_compressed(payload: bytes, is_text: bool) -> bytes:
    """One message whose *payload* has been compressed (RFC 7692 §7.2.1)."""
    first = _FIN | _COMPRESSED | (TEXT if is_text else BINARY)
    return _head(first, len(payload)) + payload


def encode_ping(payload: bytes = b"") -> bytes:
    """A Ping of at most 125 bytes."""
    return bytes((_FIN | PING, len(payload))) + payload


def encode_pong(payload: bytes) -> bytes:
    """The answer to a Ping with that payload (§5.5.3)."""
    return bytes((_FIN | PONG, len(payload))) + payload


def encode_close(code: int | None, reason: str = "") -> bytes:
    """A Close; *code* ``None`` or 1005 makes it empty. A reason over 123 bytes is cut (§5.5)."""
    if code is None or code == NO_STATUS:
        return b"\x88\x00"
    raw = reason.encode("utf-8", "replace")
    if len(raw) > MAX_REASON_BYTES:
        raw = raw[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
    return bytes((_FIN | CLOSE, 2 + len(raw), code >> 8, code & 0xFF)) + raw


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return _pack_medium(first, 126, size)
    return _pack_long(first, 127, size)
