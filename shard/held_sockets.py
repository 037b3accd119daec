"""The held sockets of one object: in the order of their acceptance, and by tag.

It belongs to the object's slot and outlives activations, as do the two things that the object says
of all its held sockets: the automatic response, and the time limit of their handlers.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from common.link.driver import Link
from common.link.records import AUTO_RESPONSE, Record
from shard.held import HeldSocket
from workers.exceptions import JsException

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.clock import Clock
    from shard.activation import Activation
    from shard.slot import Slot
    from shard.sockets import SocketTable
    from workers.auto_response import WebSocketRequestResponsePair
    from workers.websocket import WebSocket

MAX_SOCKETS: Final = 32_768
"""https://developers.cloudflare.com/durable-objects/api/state/#acceptwebsocket"""


class HeldSockets:
    """See the module.

    Args:
        slot: of the object.
        table: all server ends of this process.
        clock: its wall time numbers the sockets, so that those accepted after a restart come last.
    """

    __slots__ = (
        "_all",
        "_by_tag",
        "_clock",
        "_in_order",
        "_last_order",
        "_sockets",
        "auto_response",
        "event_timeout_ms",
        "slot",
        "table",
    )

    def __init__(self, slot: Slot, table: SocketTable, clock: Clock) -> None:
        self.slot = slot
        self.table = table
        self.auto_response: WebSocketRequestResponsePair | None = None
        self.event_timeout_ms: int | None = None
        self._clock = clock
        self._last_order = 0
        self._all: dict[int, HeldSocket] = {}
        self._by_tag: dict[str, dict[int, HeldSocket]] = {}
        self._in_order = True
        self._sockets: list[WebSocket] | None = None

    def __len__(self) -> int:
        return len(self._all)

    @property
    def address(self) -> list[Any]:
        """The object's: ``[unique_key, id, name]``."""
        object_id = self.slot.id
        return [self.slot.namespace.binding.unique_key, object_id.raw, object_id.name]

    # --- coming and going ----------------------------------------------------------------------

    def accept(self, ws: WebSocket, tags: tuple[str, ...], activation: Activation) -> None:
        """Hold a socket that the app has accepted.

        Raises:
            JsException: the object has too many.
        """
        if len(self._all) >= MAX_SOCKETS:
            raise JsException(
                f"only {MAX_SOCKETS} websockets can be accepted on a single Durable Object "
                "instance",
                "Error",
            )
        self._last_order = max(self._last_order + 1, int(self._clock.wall_s() * 1e6))
        socket = HeldSocket(self, self._last_order, tags, ws.attachment)
        socket.accept(ws, activation)
        self._add(socket)

    def adopt(
        self,
        link: Link,
        connection: int,
        tags: tuple[str, ...],
        attachment: bytes | None,
        order: int,
        answered_ms: int,
        close_sent: bool,
    ) -> None:
        """Take over a connection that a gateway has held; see ``ADOPT``."""
        socket = HeldSocket(self, order, tags, attachment)
        socket.adopt(answered_ms, close_sent)
        if order <= self._last_order:
            self._in_order = False
        self._last_order = max(self._last_order, order)
        self._add(socket)
        self.table.adopt(link, connection, socket)

    def _add(self, socket: HeldSocket) -> None:
        while socket.order in self._all:  # two gateways' clocks, one microsecond
            socket.order += 1
        self._all[socket.order] = socket
        for tag in socket.tags:
            self._by_tag.setdefault(tag, {})[socket.order] = socket
        self.slot.sockets.add(socket)
        self._sockets = None

    def discard(self, socket: HeldSocket) -> None:
        """It is not among ``getWebSockets()`` any more."""
        if not socket.is_unsettled:  # else a reset must still find it
            self.slot.sockets.discard(socket)
        if socket.is_unlisted:
            return
        socket.is_unlisted = True
        del self._all[socket.order]
        for tag in socket.tags:
            tagged = self._by_tag[tag]
            del tagged[socket.order]
            if not tagged:
                del self._by_tag[tag]
        self._sockets = None

    def sleep(self) -> None:
        """The activation is over."""
        self._sockets = None
        for socket in self._all.values():
            socket.sleep()

    def gate_sends(self) -> None:
        """The activation has an output gate from now on."""
        for socket in self._all.values():
            socket.gate_sends()

    # --- what the app asks ---------------------------------------------------------------------

    def sockets(self, activation: Activation, tag: str | None) -> list[WebSocket]:
        """Those of the object, or those with that tag, oldest first; a new list."""
        if not self._in_order:
            self._sort()
        if tag is not None:
            tagged = self._by_tag.get(tag, {})
            return [socket.wake(activation) for socket in tagged.values()]
        if self._sockets is None:
            self._sockets = [socket.wake(activation) for socket in self._all.values()]
        return self._sockets.copy()

    def _sort(self) -> None:
        self._in_order = True
        self._sockets = None
        self._all = dict(sorted(self._all.items()))
        self._by_tag = {tag: dict(sorted(each.items())) for tag, each in self._by_tag.items()}

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None) -> None:
        """Have the gateways answer, or no longer."""
        self.auto_response = pair
        told: set[Link] = set()
        for socket in self._all.values():
            if socket.is_held_by_gateway and socket.link not in told and socket.link is not None:
                told.add(socket.link)
                socket.link.send(self._auto_record())

    def answers(self, socket: HeldSocket, message: str | bytes) -> bool:
        """Answer a message that its gateway has passed on, as it did not know better yet."""
        pair = self.auto_response
        if pair is None or message != pair.request:
            return False
        if not socket.close_sent:
            socket.send(pair.response)
            socket.answered_ms = int(self._clock.wall_s() * 1000)
        return True

    def tell_auto_response(self, link: Link) -> None:
        """One more connection over that link."""
        if self.auto_response is not None:
            link.send(self._auto_record())

    def _auto_record(self) -> Record:
        pair = self.auto_response
        texts = (None, None) if pair is None else (pair.request, pair.response)
        return [AUTO_RESPONSE, self.address, *texts]

    @staticmethod
    def answered_at(ws: WebSocket) -> dt.datetime | None:
        """When a socket was last answered automatically."""
        socket = ws.port
        if not isinstance(socket, HeldSocket) or not socket.answered_ms:
            return None
        return dt.datetime.fromtimestamp(socket.answered_ms / 1000, dt.UTC)

    def limited(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """*handler*, within ``setHibernatableWebSocketEventTimeout``."""
        if self.event_timeout_ms is None:
            return handler
        timeout_s = self.event_timeout_ms / 1000

        @wraps(handler)
        async def run(*arguments: Any) -> None:
            async with asyncio.timeout(timeout_s):
                result = handler(*arguments)
                if inspect.isawaitable(result):
                    await result

        return run
