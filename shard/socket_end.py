"""What all server ends of WebSockets share: the way to the gateway, and the account of what waits.

A frame is *handled* once its handlers have run and none of them is suspended. Until then its
connection is reported as unsettled, whether the frame waits for ``accept()``, for the object, or
for a handler: if this process dies, the gateway knows which clients may have lost something.

``UNSETTLED`` goes ahead of everything, with the acknowledgement of its frame. ``SETTLED`` goes
behind what the handlers have sent: who hears that a frame is settled has all that came of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from common.link.driver import Link
from common.link.records import PAUSE, RESUME, SETTLED, UNSETTLED
from shard.slot import EVENT_OVERHEAD_BYTES

if TYPE_CHECKING:
    from shard.sockets import SocketTable

MAX_UNATTACHED_BYTES: Final = 16 << 20
"""What an app may send to a socket whose gateway has not attached yet."""


class SocketEnd:
    """The port of a server end, and the mouth through which its events come in.

    Attributes:
        id: by which a gateway attaches to it.
        link: to the gateway, once it has attached.
        connection: the gateway's number of it.
        ended: nothing can be sent any more, and nothing will come.
    """

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "_paused",
        "_table",
        "_timer",
        "_told_unsettled",
        "_unhandled",
        "_waiting_bytes",
        "connection",
        "ended",
        "id",
        "link",
    )

    def __init__(self, table: SocketTable, socket_id: int) -> None:
        self.id = socket_id
        self.link: Link | None = None
        self.connection = -1
        self.ended = False
        self._table = table
        self._kept: list[Any] | None = None
        self._kept_bytes = 0
        self._unhandled = 0
        self._told_unsettled = False
        self._waiting_bytes = 0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    # --- what the kinds of ends do their own way -----------------------------------------------

    def attach(self, link: Link, connection: int) -> None:
        """A gateway's connection is the other end now: send it what was kept."""
        raise NotImplementedError

    def arrived(self, message: str | bytes) -> None:
        """A message has come (hot path)."""
        raise NotImplementedError

    def closed(self, code: int, reason: str, was_clean: bool) -> None:
        """The client has sent Close, or is gone."""
        raise NotImplementedError

    def lost(self, text: str = "") -> None:
        """The client will never be reached again: its gateway died or never came."""
        raise NotImplementedError

    def reset(self) -> None:
        """The object was reset: the client is told, the app's old code is not."""
        raise NotImplementedError

    def leave(self) -> None:
        """The object's partition goes to another shard."""
        raise NotImplementedError

    # --- out -----------------------------------------------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Pass a message on to the gateway, or keep it until that is known."""
        if self.link is not None:
            self.link.multicast(self.connection, message)
        elif self._kept is not None:
            self._kept_bytes += len(message)
            if self._kept_bytes > MAX_UNATTACHED_BYTES:
                self.lost("Too much was sent before the connection was established.")
            else:
                self._kept.append(message)

    # --- what became of the handlers -----------------------------------------------------------

    @property
    def is_unhandled(self) -> bool:
        """Something that has come over it is not handled to its end."""
        return self._unhandled > 0

    def handler_suspended(self, size: int = 0) -> None:
        """A message of *size* is handled later: until then it and its frame count."""
        self._unhandled += 1
        self._count(EVENT_OVERHEAD_BYTES + size)
        if self._unhandled == 1 and self.link is not None and not self.ended:
            self._told_unsettled = True
            self.link.urgent([UNSETTLED, [self.connection]])

    def handler_ended(self, size: int = 0) -> None:
        """… and has been handled."""
        self._unhandled -= 1
        self._count(-EVENT_OVERHEAD_BYTES - size)
        if self._unhandled == 0:
            self._tell_settled()

    def _tell_settled(self) -> None:
        # Also when it has ended meanwhile: its gateway keeps the record of a held one, and tells
        # its end again after a crash, until it knows that this has been handled.
        if self._told_unsettled and self.link is not None:
            self._told_unsettled = False
            self.link.send([SETTLED, [self.connection]])

    def _count(self, size: int) -> None:
        """Keep account of what waits, and stop the gateway reading when it is too much."""
        self._waiting_bytes += size
        limit = self._table.max_waiting_bytes
        if self.link is None or self.ended:
            return
        if not self._paused and self._waiting_bytes > limit:
            self._paused = True
            self.link.urgent([PAUSE, [self.connection]])
        elif self._paused and self._waiting_bytes <= limit // 2:
            self._paused = False
            self.link.urgent([RESUME, [self.connection]])
