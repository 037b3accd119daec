"""One client's WebSocket after the 101: frames in, frames out, and the closing handshake.

There are tens of thousands of these, so an idle one holds no parser, timer or task; and each
message passes through :meth:`Connection.data_received`, so that does nothing but what a message
needs. What the frames say is :mod:`gateway.frames`; how a connection ends is the table in
:mod:`gateway.closing`; here is only what carries it out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from common.close_reasons import AWAY, CROWDED, LOST_TEXT, SLOW
from gateway.closing import STEPS, Cause, Phase, Tcp, Tell, Write
from gateway.deflate import Deflate, inflate
from gateway.frames import (
    BINARY,
    CLOSE,
    LARGE_TEXT,
    NO_STATUS,
    PING,
    TEXT,
    TOO_LARGE,
    VIOLATION,
    FrameParser,
    encode_close,
    encode_ping,
    encode_pong,
    is_sendable,
    small_text,
)
from gateway.keepalive import Action

if TYPE_CHECKING:
    from common.link.session import LinkSession
    from gateway.context import Context

LOST_CODE: Final = 1006
TRY_AGAIN_LATER: Final = AWAY.code

PONGS_BYTES: Final = 16 * 1024
"""Pongs are gathered up to this size before they are written."""

PAUSED_BY_SHARD: Final = 1
PAUSED_BY_LINK: Final = 2
PAUSED_BY_HOLD: Final = 4
PAUSED_FOR_A_TURN: Final = 8
PAUSED_FOR_GOOD: Final = 16


class Home(Protocol):
    """The relay to the shard where the other end of a connection lives."""

    context: Context
    session: LinkSession | None

    def producer_congests(self, connection: Connection) -> None:
        """The link has more than it can send, and *connection* has just added to it."""

    def keep(self, connection: Connection, kind: int, value: Any) -> None:
        """A message has come while there is no session; see :meth:`FrameParser.feed`."""

    def auto_answered(self, connection: Connection) -> None:
        """A message has been answered here, as the object has asked for."""

    def closed(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        """Tell the object, once, how the client's side ended."""

    def release(self, connection: Connection) -> None:
        """Nothing may be sent to *connection* any more."""


class Connection(asyncio.Protocol):
    """A client's WebSocket.

    Args:
        number: its id on the link.
        home: the relay that it is attached to.
        transport: of the client; this becomes its protocol.
        deflate: what compression was agreed.
    """

    __slots__ = (
        "_close",
        "_fast",
        "_home",
        "_parser",
        "_partial_bytes",
        "_pauses",
        "_phase",
        "_pinged_at",
        "auto",
        "deflate",
        "forwarded_seq",
        "guarded",
        "heard_at",
        "id",
        "out",
        "partition",
        "slot",
        "transport",
    )

    def __init__(
        self, number: int, home: Home, transport: asyncio.Transport, deflate: Deflate | None
    ) -> None:
        self.id = number
        self.transport = transport
        self.deflate = deflate
        self.auto: tuple[str, bytes] | None = None
        """A text that is answered here, and the frame that answers it."""
        self.out: Any = None
        """What the batch under way holds for this client: ``None``, a frame, or a list of them."""
        self.guarded = False
        """Writing needs a look at the state first: it is closing, or the client reads slowly."""
        self.forwarded_seq = 0
        """Number of the batch with this client's last frame: not handled while unacknowledged."""
        self.partition = -1
        """Of its object; -1 if the other end is no object's."""
        self.slot = 0
        self._home = home
        self._phase = Phase.OPEN
        self._fast = True  # between messages, and messages may be forwarded
        self._parser: FrameParser | None = None
        self._partial_bytes = 0  # of an unfinished message, as all clients' account has it
        self._pauses = 0
        self._pinged_at = 0.0
        self._close: tuple[int, str] | None = None  # the client's, or that of a fault of its
        deadlines = home.context.deadlines
        self.heard_at = deadlines.now_s
        limit = home.context.settings.connection_buffer_bytes
        transport.set_write_buffer_limits(high=limit, low=limit // 2)
        interval_s = home.context.settings.ping_interval_s
        if interval_s:
            deadlines.set(self, self.heard_at + interval_s)

    @property
    def phase(self) -> Phase:
        """Where the closing handshake stands."""
        return self._phase

    # --- from the client -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Forward what has come (hot path)."""
        home = self._home
        self.heard_at = home.context.deadlines.now_s
        if self._fast:
            text = small_text(data)
            if text is not None and (self.auto is None or text != self.auto[0]):
                session = home.session
                session.unicast(self.id, text)  # type: ignore[union-attr] # while _fast
                self.forwarded_seq = session.filling_seq  # type: ignore[union-attr]
                if session.congested:  # type: ignore[union-attr]
                    home.producer_congests(self)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._phase is Phase.DONE or self._phase is Phase.FAILING:
            return
        home = self._home
        parser = self._parser
        if parser is None:
            limit = home.context.settings.max_message_bytes
            parser = self._parser = FrameParser(limit, inflate if self.deflate else None)
        pongs = b""
        for kind, value in parser.feed(data):
            if kind == PING:
                pongs += encode_pong(value)
                if len(pongs) > PONGS_BYTES:
                    self._answer(pongs)
                    pongs = b""
            elif kind == CLOSE:
                self._answer(pongs)
                pongs = b""
                if self._phase in (Phase.OPEN, Phase.BY_SERVER):
                    self._close = value
                self._step(Cause.CLIENT_CLOSE)
            elif kind == VIOLATION:
                self._answer(pongs)
                pongs = b""
                self._violated(*value)
            else:
                self._forward(kind, value)
        self._answer(pongs)
        self._fast = parser.is_idle and self._parser is parser and self._home.session is not None
        if not self._fast or self._partial_bytes:
            self._count_partial()
        if parser.has_backlog and self._parser is parser:
            self.pause(PAUSED_FOR_A_TURN)
            asyncio.get_running_loop().call_soon(self._go_on)

    def _count_partial(self) -> None:
        """Tell how much of an unfinished message is kept here, if that has changed."""
        size = self._parser.partial_bytes if self._parser is not None else 0
        if size != self._partial_bytes:
            self._partial_bytes = size
            self._home.context.partials.keep(self, size)

    def give_way(self) -> None:
        """See :class:`gateway.partials.Sender`."""
        self._home.context.counters.crowded.value += 1
        self._fail(*CROWDED[:2])

    def _go_on(self) -> None:
        """Read more of a flood of frames, now that others have had their turn."""
        if self._pauses != PAUSED_FOR_A_TURN:
            return  # over, or resume() comes back to it
        self._parse(b"")
        if self._parser is not None and not self._parser.has_backlog:
            self.resume(PAUSED_FOR_A_TURN)

    def _answer(self, pongs: bytes) -> None:
        if not pongs:
            return
        if self.guarded:
            self.flush_guarded(pongs)
        else:
            self._write(pongs)

    def _forward(self, kind: int, value: Any) -> None:
        home = self._home
        session = home.session
        if self.auto is not None and kind == TEXT and value == self.auto[0]:
            if self._phase is Phase.OPEN:
                self._answer(self.auto[1])
                home.auto_answered(self)
            return
        if session is None:
            if kind in (TEXT, BINARY, LARGE_TEXT):
                home.keep(self, kind, value)
            return
        if kind in (TEXT, BINARY):
            session.unicast(self.id, value)
        elif kind == LARGE_TEXT:
            session.blob(self.id, value, True)
        else:
            return  # a Pong says only that the client lives
        self.forwarded_seq = session.filling_seq
        if session.congested:
            home.producer_congests(self)

    def eof_received(self) -> bool:
        """The client's side of TCP has ended: a WebSocket needs both.

        Returns:
            Whether to keep ours open: for the answers to what the client had said.
        """
        phase = self._phase
        if phase is Phase.OPEN and self._is_owed:
            self._step(Cause.END)
        elif phase not in (Phase.BY_CLIENT, Phase.FINISHING, Phase.FAILING):
            self._step(Cause.GONE)
            return False
        self._fast = False
        self._drop_parser()  # what it had begun to say will never be whole
        self._pauses |= PAUSED_FOR_GOOD  # reading has ended by itself
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """TCP is gone."""
        self._step(Cause.GONE)
        context = self._home.context
        context.deadlines.cancel(self)
        context.connection_ended()

    def pause_writing(self) -> None:
        """The client reads slowly: CONNECTION_BUFFER_BYTES wait for it."""
        self.guarded = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.guarded = self._phase is not Phase.OPEN

    # --- from the object -----------------------------------------------------------------------

    def flush_guarded(self, frames: bytes) -> None:
        """Send *frames* unless that is too late, or the client is too slow."""
        if self._phase in (Phase.BY_SERVER, Phase.DONE):
            return
        limit = self._home.context.settings.connection_buffer_bytes
        if self.transport.get_write_buffer_size() > limit:
            self._home.context.counters.slow.value += 1
            self._step(Cause.FAULT, *SLOW[:2])
        else:
            self.transport.write(frames)

    def close_by_object(self, code: int | None, reason: str) -> None:
        """The object has closed: without a code (1005) an empty Close, with 1006 just the end."""
        if code is None or code == NO_STATUS or is_sendable(code):
            self._step(Cause.OBJECT_CLOSE, code, reason)
        else:
            self._step(Cause.OBJECT_DROP)

    # --- from the gateway ----------------------------------------------------------------------

    def close_by_gateway(self, code: int, reason: str) -> None:
        """Start or finish the closing handshake without the object."""
        self._step(Cause.GATEWAY_CLOSE, code, reason)

    def move(self, home: Home) -> None:
        """From now on the other end is reached over *home*, which may be nowhere at all."""
        self._home = home
        self._fast = False  # until the parser says again that it is between messages

    def drop(self) -> None:
        """End it now, whatever is under way."""
        self._step(Cause.TIMEOUT)
        self.transport.abort()

    def pause(self, reason: int) -> None:
        """Stop reading until :meth:`resume` with the same *reason* (a ``PAUSED_BY`` bit)."""
        if not self._pauses:
            self.transport.pause_reading()
        self._pauses |= reason

    def resume(self, reason: int) -> None:
        """Take back :meth:`pause`."""
        if self._pauses:
            self._pauses &= ~reason
            if self._pauses == PAUSED_FOR_A_TURN:
                asyncio.get_running_loop().call_soon(self._go_on)
            if not self._pauses and self._phase is not Phase.DONE:
                self.heard_at = self._home.context.deadlines.now_s
                self.transport.resume_reading()

    def due(self, now_s: float) -> float:
        """Some deadline has passed: of the closing handshake, or of silence."""
        if self._phase is Phase.DONE:  # the client does not end its side of TCP, or does not read
            self.transport.abort()
            return float("inf")
        if self._phase is not Phase.OPEN:
            self._step(Cause.TIMEOUT)
            return float("inf")
        heard_at = now_s if self._pauses else self.heard_at  # who is not listened to is not silent
        action, again_at = self._home.context.keepalive.decide(now_s, heard_at, self._pinged_at)
        if action is Action.PING:
            self._pinged_at = now_s
            self._write(encode_ping())
        elif action is Action.DROP:
            self._home.context.counters.vanished.value += 1
            self._step(Cause.TIMEOUT)
        return again_at

    # --- inside --------------------------------------------------------------------------------

    @property
    def _is_owed(self) -> bool:
        """Whether answers to this client may be under way.

        That a shard has acknowledged a message does not say that its answer has come.
        """
        return self.forwarded_seq > 0 and self._home.session is not None

    def _violated(self, code: int, text: str) -> None:
        self._home.context.counters.violations.value += 1
        if code == TOO_LARGE:
            text = text[:123]
        self._fail(code, text)

    def _fail(self, code: int, text: str) -> None:
        """End it for what the client has sent; what it said before that is still answered."""
        if self._phase is not Phase.OPEN or not self._is_owed:
            self._step(Cause.FAULT, code, text)
            return
        self._close = code, text
        self._drop_parser()
        self._fast = False
        self.pause(PAUSED_FOR_GOOD)
        self._step(Cause.LATE_FAULT, code, text)

    def _drop_parser(self) -> None:
        self._parser = None
        if self._partial_bytes:
            self._partial_bytes = 0
            self._home.context.partials.keep(self, 0)

    def _step(self, cause: Cause, code: int | None = None, reason: str = "") -> None:
        step = STEPS.get((self._phase, cause))
        if step is None:
            return
        self._phase = step.phase
        self.guarded = True
        frames = self._take_out()
        if step.write is Write.GIVEN:
            frames += encode_close(code, reason)
        elif step.write is Write.ECHO:
            assert self._close is not None
            frames += encode_close(self._close[0])
        elif step.write is Write.HELD_BACK:
            assert self._close is not None
            frames += encode_close(*self._close)
        if step.tcp is not Tcp.ABORT:
            self._write(frames)
        self._tell(step.tell, cause, reason)
        self._end(step.tcp)

    def _tell(self, tell: Tell, cause: Cause, reason: str) -> None:
        if tell is Tell.CLIENTS:
            assert self._close is not None
            self._home.closed(self, *self._close, True)
        elif tell is Tell.LOST:
            text = reason if cause in (Cause.FAULT, Cause.LATE_FAULT) else LOST_TEXT
            self._home.closed(self, LOST_CODE, text, False)

    def _end(self, tcp: Tcp) -> None:
        deadlines = self._home.context.deadlines
        timeout_at = deadlines.now_s + self._home.context.settings.close_timeout_s
        if tcp is Tcp.KEEP:
            deadlines.set(self, timeout_at)
            return
        self._fast = False
        self._drop_parser()
        self._home.release(self)
        transport = self.transport
        if self._pauses:
            self._pauses = 0
            if tcp is Tcp.DRAIN:
                transport.resume_reading()
        if tcp is Tcp.ABORT:
            deadlines.cancel(self)
            transport.abort()
        elif tcp is Tcp.DRAIN and not transport.is_closing():
            deadlines.set(self, timeout_at)
            transport.write_eof()
        else:
            if transport.get_write_buffer_size():
                deadlines.set(self, timeout_at)
            else:
                deadlines.cancel(self)
            transport.close()

    def _take_out(self) -> bytes:
        out, self.out = self.out, None
        if out is None:
            return b""
        return b"".join(out) if type(out) is list else bytes(out)

    def _write(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)
