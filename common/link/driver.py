"""Drives a :class:`~common.link.session.LinkSession` over an asyncio transport.

One write per turn of the event loop, one read into a buffer that is parsed in place. The driver
knows nothing of Unix sockets: :mod:`common.link.unix` and :mod:`common.link.memory` make the
transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

import structlog

from common.errors import LinkClosedByPeer, LinkDown, LinkError, ProtocolError
from common.link.lifecycle import LinkState
from common.link.records import Record
from common.link.session import Hello, LinkSession
from common.link.wire import HEAD, HEAD_BYTES

log = structlog.get_logger(__name__)

READ_BUFFER_BYTES: Final = 256 * 1024
"""Size of a link's read buffer when it is made; it grows to the largest batch seen …"""
SLICE_S: Final = 0.01
"""How long batches are handled before the event loop gets its turn."""
KEEP_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""… and is given back after a batch that needed more than this."""
HELLO_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 5.0
"""How long a peer may take to read the last of what it was sent."""
SLACK_BYTES: Final = 1 << 20
"""What acknowledgements and urgent records, which need no credit, may take in the transport."""


class LinkHandler(Protocol):
    """What a process does with the links it holds. All calls come from the event loop."""

    def link_up(self, link: Link, peer: Hello) -> None:
        """The handshake is done; *link* may be used from now on."""

    def link_records(self, link: Link, records: list[Record]) -> None:
        """Records have come, in order. Raising means that they were malformed: the link closes.

        The payload of a ``BLOB_FRAME`` is a view of the read buffer: it is only valid during this
        call, so whoever keeps it must copy it.
        """

    def link_writable(self, link: Link) -> None:
        """The link was congested and no longer is: paused producers may go on."""

    def link_down(self, link: Link, error: LinkError) -> None:
        """The link is gone. Called exactly once, and only after :meth:`link_up`."""


class Link(asyncio.BufferedProtocol):
    """One link as its two ends use it.

    Args:
        local: what this process says of itself.
        handler: told of what happens.
        prompt_acks: see :class:`LinkSession`.
        closed: called once the transport is gone, whether or not the link ever was up.
        max_queue_bytes: see :class:`LinkSession`; the link ends when more waits.
    """

    def __init__(
        self,
        local: Hello,
        handler: LinkHandler,
        *,
        prompt_acks: bool,
        closed: Callable[[LinkError], None] | None = None,
        max_queue_bytes: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._error: LinkError | None = None
        self._up = False
        self._was_congested = False
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._max_batch_bytes = local.max_batch_bytes
        self.session = LinkSession(
            local, self._wake, prompt_acks=prompt_acks, max_queue_bytes=max_queue_bytes
        )
        # Bound once: these are the hot path of every message.
        self.unicast = self.session.unicast
        self.multicast = self.session.multicast
        self.send = self.session.send
        self.urgent = self.session.urgent
        self._view = memoryview(bytearray(READ_BUFFER_BYTES))
        self._filled = 0

    # --- the two ends' view --------------------------------------------------------------------

    @property
    def peer(self) -> Hello | None:
        """What the other end said of itself, once it has."""
        return self.session.peer

    @property
    def is_open(self) -> bool:
        """Records queued now have a chance to arrive."""
        return self.session.state is LinkState.OPEN

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait here for the peer's credit."""
        return self.session.queued_bytes

    def close(self, error: LinkError) -> None:
        """Say goodbye with the text of *error*, send what has credit, and end the transport.

        :meth:`LinkHandler.link_down` follows when the peer has taken it, within
        :data:`CLOSE_TIMEOUT_S`.
        """
        if self._error is None:
            self._error = error
        if self._transport is None or self.session.state is LinkState.CLOSED:
            return
        self.session.goodbye(str(error), handling=self._handling)
        self._flush()
        if self._transport is not None:
            self._end(self._transport)

    def __repr__(self) -> str:
        peer = self.peer
        who = f"{peer.role}-{peer.index}" if peer else "unknown"
        return f"<Link to {who} {self.session.state.value}>"

    # --- asyncio's view ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        if self._error is not None:  # closed while it was dialled
            transport.abort()
            return
        self._timer = self._loop.call_later(HELLO_TIMEOUT_S, self._hello_timed_out)
        self.session.greet()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: behind those of the batch that is under way."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the batches that are complete."""
        self._handle(self._filled + nbytes)

    def _handle(self, end: int) -> None:
        """Handle the batches within the first *end* bytes of the buffer, for one slice of time.

        A flood of tiny messages is seconds of work for a megabyte of bytes. After a slice the loop
        turns: answers leave, other links and timers have their turn, and reading goes on after it.
        """
        view = self._view
        start = 0
        slice_ends_at = self._loop.time() + SLICE_S
        try:
            while end - start >= HEAD_BYTES:
                if start and self._loop.time() >= slice_ends_at:
                    self._rest(start, end)
                    return
                body_bytes, blob_bytes = HEAD.unpack_from(view, start)
                total = HEAD_BYTES + body_bytes + blob_bytes
                if total > self._max_batch_bytes:
                    raise ProtocolError(
                        f"a batch of {total} bytes is larger than {self._max_batch_bytes}"
                    )
                if end - start < total:
                    self._make_room(start, end, total)
                    return
                body = start + HEAD_BYTES
                blobs = body + body_bytes
                self._batch(view[body:blobs], view[blobs : start + total])
                start += total
        except LinkError as error:
            self._fail(error)
            return
        if len(view) > KEEP_BUFFER_BYTES:
            self._keep(start, end, READ_BUFFER_BYTES)
        elif start < end:
            self._keep(start, end, len(view))
        else:
            self._filled = 0

    def _rest(self, start: int, end: int) -> None:
        """Go on with what is left in the next turn of the loop, and read nothing before."""
        self._keep(start, end, len(self._view))
        if self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._handle(self._filled)

    def eof_received(self) -> bool:
        """The peer ended the stream: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler, once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        error = self._error or LinkDown(f"the connection ended ({exc or 'end of stream'})")
        self._transport = None
        self.session.lost()
        try:
            if self._up:
                self._up = False
                self._handler.link_down(self, error)
        finally:
            if self._closed is not None:
                self._closed(error)

    def pause_writing(self) -> None:
        """The transport holds more than all that may be under way: nobody reads."""
        self._stuck(self._transport.get_write_buffer_size() if self._transport else 0)

    # --- inside --------------------------------------------------------------------------------

    def _batch(self, body: memoryview, blobs: memoryview) -> None:
        session = self.session
        records = session.receive(body, blobs)
        # Until the handler returns, this batch must not be acknowledged: see close().
        self._handling = True
        try:
            if not self._up:
                if session.state is not LinkState.OPEN:
                    return
                self._greeted()
                if session.state is not LinkState.OPEN:  # the handler has closed it
                    return
            if records:
                self._handler.link_records(self, records)
        except LinkError:
            raise
        except Exception as error:
            log.exception("link.record_refused", link=repr(self))
            raise ProtocolError(f"a record could not be handled: {error!r}") from error
        self._handling = False
        if session.farewell is not None:
            raise LinkClosedByPeer(session.farewell)

    def _greeted(self) -> None:
        peer = self.session.peer
        assert peer is not None
        assert self._timer is not None
        assert self._transport is not None
        self._timer.cancel()
        self._timer = None
        self._transport.set_write_buffer_limits(
            peer.window_bytes + peer.max_batch_bytes + SLACK_BYTES
        )
        self._up = True
        self._handler.link_up(self, peer)

    def _make_room(self, start: int, end: int, total: int) -> None:
        size = len(self._view)
        if start or total > size:
            self._keep(start, end, size if total <= size else 1 << (total - 1).bit_length())
        else:
            self._filled = end

    def _keep(self, start: int, end: int, size: int) -> None:
        """Move the unread bytes to the front of a buffer of *size* bytes, which they fit."""
        unread = bytes(self._view[start:end])
        if len(self._view) != size:
            self._view = memoryview(bytearray(size))
        self._view[: len(unread)] = unread
        self._filled = len(unread)

    def _wake(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        session = self.session
        # Congestion that came and goes within one turn has been seen by producers, too.
        was_congested = self._was_congested or session.congested
        try:
            buffers = session.take()
        except Exception as error:  # its records are lost, so nothing may follow them
            log.exception("link.record_unsendable", link=repr(self))
            self._abort(LinkDown(f"a record could not be sent: {error!r}"))
            return
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif buffers:
            transport.writelines(buffers)
        self._was_congested = session.congested
        if self._was_congested:
            if session.queued_bytes > session.max_queue_bytes:
                self._stuck(session.queued_bytes)
        elif was_congested and session.state is LinkState.OPEN:
            self._handler.link_writable(self)

    def _stuck(self, waiting_bytes: int) -> None:
        error = LinkDown(f"the peer does not read: {waiting_bytes} bytes wait")
        log.error("link.failed", link=repr(self), error=str(error))
        self._abort(error)

    def _fail(self, error: LinkError) -> None:
        if isinstance(error, LinkClosedByPeer):
            if self._error is None:
                self._error = error
            self.session.lost()
            if self._transport is not None:
                self._end(self._transport)
        else:
            log.error("link.failed", link=repr(self), error=str(error))
            self.close(error)

    def _end(self, transport: asyncio.Transport) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
        transport.close()

    def _abort(self, error: LinkError) -> None:
        if self._error is None:
            self._error = error
        self.session.lost()
        if self._transport is not None:
            self._transport.abort()

    def _hello_timed_out(self) -> None:
        self._fail(ProtocolError(f"no HELLO within {HELLO_TIMEOUT_S:g} s"))
