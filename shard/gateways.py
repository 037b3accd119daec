"""What gateways hand back to a shard that has started, and when that shard begins to serve.

A shard that takes the place of another one knows nothing of the clients that its objects held. Each
gateway hands their records back (``ADOPT`` … ``ADOPTED``) before anything else. Events are welcome
only when all gateways have done so, or are late: else the first message to a room would reach only
the members that had been handed back by then.

::

               every gateway has said ADOPTED, or ADOPT_TIMEOUT_S is over
    JOINING ───────────────────────────────────────────────────────────────▶ serving
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from common.close_reasons import NOT_THERE
from common.errors import Unavailable
from common.link.driver import Link
from common.link.records import (
    ADOPT,
    ADOPTED,
    AUTO_ANSWERED,
    AUTO_RESPONSE,
    CLOSE,
    SERVING,
    Record,
)
from shard.held import HeldSocket
from shard.held_sockets import HeldSockets
from workers.auto_response import WebSocketRequestResponsePair

if TYPE_CHECKING:
    from shard.host import Shard

log = structlog.get_logger(__name__)

KINDS: Final = frozenset({ADOPT, ADOPTED, AUTO_RESPONSE, AUTO_ANSWERED})
"""The records about held connections that a gateway sends."""


class Gateways:
    """See the module.

    Args:
        shard: this one.
        count: how many gateways there are.
    """

    def __init__(self, shard: Shard, count: int) -> None:
        self.serving = False
        self._shard = shard
        self._count = count
        self._adopted = 0
        self._links: list[Link] = []
        self._joined: set[int] = set()
        self._patience: asyncio.TimerHandle | None = None

    def start(self, timeout_s: float) -> None:
        """Wait for them for so long."""
        if not self.serving:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(timeout_s, self._serve, True)

    def stop(self) -> None:
        """Wait no more."""
        if self._patience is not None:
            self._patience.cancel()

    def link_up(self, link: Link) -> None:
        """A gateway or another shard has linked to us."""
        self._links.append(link)
        if self.serving and not _is_gateway(link):
            link.send([SERVING])

    def link_down(self, link: Link) -> None:
        """It has gone."""
        if link in self._links:
            self._links.remove(link)

    def record(self, link: Link, record: Record) -> None:
        """Handle a record of :data:`KINDS`."""
        kind = record[0]
        if kind == ADOPT:
            self._adopt(link, record)
        elif kind == ADOPTED:
            self._joined_by(link)
        elif kind == AUTO_RESPONSE:
            self._auto_response(record)
        else:
            self._auto_answered(link, record)

    def _joined_by(self, link: Link) -> None:
        assert link.peer is not None
        self._joined.add(link.peer.index)
        if self.serving:
            link.send([SERVING])
        elif len(self._joined) >= self._count:
            self._serve(False)

    def _serve(self, late: bool) -> None:
        self.stop()
        if self.serving:
            return
        self.serving = True
        if late and self._links:
            log.warning("shard.gateways_late", joined=len(self._joined), of=self._count)
        if self._adopted:
            log.info("shard.adopted", sockets=self._adopted)
        for link in self._links:
            if not _is_gateway(link) or link.peer.index in self._joined:  # type: ignore[union-attr]
                link.send([SERVING])
        self._shard.alarms.serve()

    # --- records -------------------------------------------------------------------------------

    def _held_at(self, address: list[Any]) -> HeldSockets:
        """The held sockets of an object.

        Raises:
            Unavailable: the app has no such class any more, or the object is at home elsewhere.
        """
        unique_key, raw, name = address
        shard = self._shard
        object_id = shard.namespace_of_key(unique_key).ids.from_raw(raw, name)
        generation = shard.generations.get(object_id.partition, 0)
        slot = shard.slot_at([unique_key, raw, name, generation or -1])
        if slot.held is None:
            slot.held = HeldSockets(slot, shard.sockets, shard.clock)
        held: HeldSockets = slot.held
        return held

    def _adopt(self, link: Link, record: Record) -> None:
        _, connection, address, tags, attachment, order, answered_ms, close_sent = record
        try:
            held = self._held_at(address)
        except (Unavailable, TypeError, ValueError) as error:
            log.error("socket.not_adopted", error=str(error))
            link.send([CLOSE, connection, *NOT_THERE[:2]])
            return
        self._adopted += 1
        held.adopt(link, connection, tuple(tags), attachment, order, answered_ms, close_sent)

    def _auto_response(self, record: Record) -> None:
        _, address, request, response = record
        try:
            held = self._held_at(address)
        except (Unavailable, TypeError, ValueError):
            return  # its sockets will not be adopted, either
        held.auto_response = WebSocketRequestResponsePair(request, response)

    def _auto_answered(self, link: Link, record: Record) -> None:
        sockets = self._shard.sockets.of(link)
        for connection, time_ms in zip(record[1], record[2], strict=True):
            socket = sockets.get(connection)
            if isinstance(socket, HeldSocket):
                socket.answered_ms = time_ms


def _is_gateway(link: Link) -> bool:
    return link.peer is not None and link.peer.role == "gateway"
