"""Links without sockets: two transports that hand bytes to each other inside one event loop.

For tests and for the in-process cluster. Delivery takes one turn of the loop, as on a real
socket, so code that works only because a peer answers at once fails here. Faults are commands
of the test: :meth:`MemoryTransport.stall` holds bytes back, :meth:`MemoryTransport.cut` drops the
line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from common.errors import LinkDown, LinkError
from common.link.driver import Link
from common.link.transport import LinkFactory

HIGH_WATER_BYTES: Final = 64 * 1024
KERNEL_BYTES: Final = 64 * 1024
"""What a socket would hold in the kernel: a transport that is closed ends once no more is left."""


class MemoryTransport(asyncio.Transport):
    """One end of a line. Serves streaming and buffered protocols, reading and writing paused."""

    def __init__(self, loop: asyncio.AbstractEventLoop, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._peer: MemoryTransport | None = None
        self._inbox = bytearray()
        self._eof_in = False
        self._eof_out = False
        self._reading = True
        self._closing = False
        self._draining = False
        self._lost = False
        self._stalled = False
        self._scheduled = False
        self._writing_paused = False
        self._high_water_bytes = HIGH_WATER_BYTES

    # --- faults --------------------------------------------------------------------------------

    def stall(self) -> None:
        """Deliver nothing to this end until :meth:`resume`: the peer of it is slow or stopped."""
        self._stalled = True

    def resume(self) -> None:
        """End :meth:`stall`."""
        self._stalled = False
        self._schedule()

    def cut(self, error: Exception | None = None) -> None:
        """Drop the line: both ends lose their connection, what was under way is gone.

        Nothing is delivered from now on; the protocols are told in the next turn of the loop.
        """
        for end in (self, self._peer):
            if end is not None:
                end._inbox.clear()
                end._closing = True
                self._loop.call_soon(end._lose, error)

    # --- asyncio.Transport ---------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._schedule()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or self._eof_out or self._peer is None or self._peer._lost:
            return
        self._peer._inbox += data
        self._peer._schedule()
        self._check_high_water()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        if not self._eof_out and self._peer is not None:
            self._eof_out = True
            self._peer._eof_in = True
            self._peer._schedule()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._peer._inbox) if self._peer is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water_bytes = HIGH_WATER_BYTES if high is None else high

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.write_eof()
        self._draining = True
        self._loop.call_soon(self._end_if_drained)

    def abort(self) -> None:
        if self._lost:
            return
        self._closing = True
        if self._peer is not None:
            self._peer._inbox.clear()
            self._loop.call_soon(self._peer._lose, ConnectionResetError("reset by peer"))
        self._loop.call_soon(self._lose, None)

    # --- inside --------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and not self._lost:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._lost or self._closing or not self._reading or self._stalled:
            return
        if self._inbox:
            try:
                self._feed()
            except Exception as error:  # as asyncio's own transports do
                self._fail(error)
                return
            if self._peer is not None:
                self._peer._check_low_water()
                self._peer._end_if_drained()
            if self._inbox or self._eof_in:
                self._schedule()
        elif self._eof_in:
            self._eof_in = False
            assert isinstance(self._protocol, asyncio.Protocol | asyncio.BufferedProtocol)
            if not self._protocol.eof_received():
                self.close()

    def _feed(self) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            room = memoryview(protocol.get_buffer(-1))
            taken = min(len(room), len(self._inbox))
            room[:taken] = self._inbox[:taken]
            room.release()
            del self._inbox[:taken]
            protocol.buffer_updated(taken)
        else:
            assert isinstance(protocol, asyncio.Protocol)
            data = bytes(self._inbox)
            self._inbox.clear()
            protocol.data_received(data)

    def _check_high_water(self) -> None:
        if not self._writing_paused and self.get_write_buffer_size() > self._high_water_bytes:
            self._writing_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def _check_low_water(self) -> None:
        if self._writing_paused and self.get_write_buffer_size() <= self._high_water_bytes // 4:
            self._writing_paused = False
            if self._protocol is not None and not self._lost:
                self._protocol.resume_writing()

    def _fail(self, error: Exception) -> None:
        context = {"message": "a protocol raised", "exception": error, "transport": self}
        self._loop.call_exception_handler({**context, "protocol": self._protocol})
        self._closing = True
        self._loop.call_soon(self._lose, error)

    def _end_if_drained(self) -> None:
        peer = self._peer
        if self._draining and (peer is None or peer._lost or len(peer._inbox) <= KERNEL_BYTES):
            self._draining = False
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._peer is not None and not self._peer._lost:
            self.write_eof()
            self._peer._end_if_drained()  # nobody is left to read the rest
        if self._protocol is not None:
            self._protocol.connection_lost(error)


def connect(
    one: asyncio.BaseProtocol,
    other: asyncio.BaseProtocol,
    **extra: Any,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Join two protocols by a line, and tell both that the connection is made.

    Args:
        one: a protocol, streaming or buffered.
        other: the one at the other end.
        extra: what ``get_extra_info`` of both transports answers.
    """
    loop = asyncio.get_running_loop()
    ends = MemoryTransport(loop, extra), MemoryTransport(loop, extra)
    for end, peer, protocol in zip(ends, reversed(ends), (one, other), strict=True):
        end._peer = peer
        end.set_protocol(protocol)
    one.connection_made(ends[0])
    other.connection_made(ends[1])
    return ends


class MemoryNetwork:
    """Links by name inside one event loop: the :class:`~common.link.transport.Transport` of tests.

    Attributes:
        lines: both ends of every link that was dialled, by the name dialled: for faults.
    """

    def __init__(self) -> None:
        self._listening: dict[str, LinkFactory] = {}
        self.lines: dict[str, list[tuple[MemoryTransport, MemoryTransport]]] = {}

    async def listen(self, name: str, factory: LinkFactory) -> MemoryListener:
        """Accept links as *name*.

        Raises:
            LinkError: somebody already does.
        """
        if name in self._listening:
            raise LinkError(f"somebody already listens as {name}")
        self._listening[name] = factory
        return MemoryListener(self._listening, name)

    async def dial(self, name: str, factory: LinkFactory) -> Link:
        """Open a link to whoever listens as *name*.

        Raises:
            LinkDown: nobody does.
        """
        try:
            other = self._listening[name]
        except KeyError:
            raise LinkDown(f"nobody listens as {name}") from None
        link = factory()
        self.lines.setdefault(name, []).append(connect(link, other()))
        return link


class MemoryListener:
    """A name that accepts links."""

    def __init__(self, listening: dict[str, LinkFactory], name: str) -> None:
        self._listening = listening
        self._name = name

    async def close(self) -> None:
        """Stop accepting."""
        self._listening.pop(self._name, None)
