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
from common.link.records import Record
from common.link.session import Hello, LinkSession, LinkState
from common.link.wire import HEAD, HEAD_BYTES

log = structlog.get_logger(__name__)

READ_BUFFER_BYTES: Final = 256 * 1024
"""Size of a link's read buffer when it is made; it grows to the largest batch seen …"""
KEEP_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""… and is given back after a batch that needed more than this."""
HELLO_TIMEOUT_S: Final = 5.0


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
    """

    def __init__(
        self,
        local: Hello,
        handler: LinkHandler,
        *,
        prompt_acks: bool,
        closed: Callable[[LinkError], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._error: LinkError | None = None
        self._up = False
        self._was_congested = False
        self._hello_timer: asyncio.TimerHandle | None = None
        self.session = LinkSession(local, self._wake, prompt_acks=prompt_acks)
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

    def close(self, error: LinkError) -> None:
        """Say goodbye with the text of *error*, send what is queued, and end the transport."""
        if self._error is None:
            self._error = error
        if self._transport is None or self.session.state is LinkState.CLOSED:
            return
        self.session.goodbye(str(error))
        self._flush()
        self._transport.close()

    def __repr__(self) -> str:
        peer = self.peer
        who = f"{peer.role}-{peer.index}" if peer else "unknown"
        return f"<Link to {who} {self.session.state.value}>"

    # --- asyncio's view ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        # The window bounds what is under way; a second bound in the transport has no use.
        self._hello_timer = self._loop.call_later(HELLO_TIMEOUT_S, self._hello_timed_out)
        self.session.greet()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: behind those of the batch that is under way."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle every batch that is complete."""
        end = self._filled + nbytes
        view = self._view
        start = 0
        try:
            while end - start >= HEAD_BYTES:
                body_bytes, blob_bytes = HEAD.unpack_from(view, start)
                total = HEAD_BYTES + body_bytes + blob_bytes
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

    def eof_received(self) -> bool:
        """The peer ended the stream: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler, once."""
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        error = self._error or LinkDown(f"the connection ended ({exc or 'end of stream'})")
        self._transport = None
        self.session.state = LinkState.CLOSED
        if self._up:
            self._up = False
            self._handler.link_down(self, error)
        if self._closed is not None:
            self._closed(error)

    # --- inside --------------------------------------------------------------------------------

    def _batch(self, body: memoryview, blobs: memoryview) -> None:
        session = self.session
        records = session.receive(body, blobs)
        if not self._up:
            if session.state is not LinkState.OPEN:
                return
            assert session.peer is not None and self._hello_timer is not None
            self._up = True
            self._hello_timer.cancel()
            self._handler.link_up(self, session.peer)
        if records:
            try:
                self._handler.link_records(self, records)
            except LinkError:
                raise
            except (TypeError, ValueError, KeyError, IndexError) as error:
                log.exception("link.record_refused", link=repr(self))
                raise ProtocolError(f"a record could not be handled: {error!r}") from error

    def _make_room(self, start: int, end: int, total: int) -> None:
        limit = self.session.local.max_batch_bytes
        if total > limit:
            raise ProtocolError(f"a batch of {total} bytes is larger than {limit}")
        size = len(self._view)
        if start or total > size:
            self._keep(start, end, size if total <= size else 1 << (total - 1).bit_length())
        else:
            self._filled = end

    def _keep(self, start: int, end: int, size: int) -> None:
        """Move the unread bytes to the front of a buffer of *size* bytes."""
        unread = bytes(self._view[start:end])
        if len(unread) > size:
            size = 1 << (len(unread) - 1).bit_length()
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
        # Congestion that came and goes within one turn has been seen by producers, too.
        was_congested = self._was_congested or self.session.congested
        buffers = self.session.take()
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif buffers:
            transport.writelines(buffers)
        self._was_congested = self.session.congested
        if was_congested and not self._was_congested and self._up:
            self._handler.link_writable(self)

    def _fail(self, error: LinkError) -> None:
        if isinstance(error, LinkClosedByPeer):
            self._error = error
            if self._transport is not None:
                self._transport.close()
        else:
            log.error("link.failed", link=repr(self), error=str(error))
            self.close(error)

    def _hello_timed_out(self) -> None:
        self._fail(ProtocolError(f"no HELLO within {HELLO_TIMEOUT_S:g} s"))
