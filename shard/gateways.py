"""What gateways hand back to a shard that has taken partitions, and when it serves them.

A shard that takes a partition over knows nothing of the clients that its objects held. Each gateway
hands their records back (``ADOPT`` … ``ADOPTED``) before anything else. Events are welcome only
when all gateways have done so, or are late: see :mod:`shard.residence`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import structlog

from common.close_reasons import NOT_THERE
from common.errors import Unavailable
from common.ids import Partition
from common.link.driver import Link
from common.link.records import (
    ADOPT,
    ADOPTED,
    AUTO_ANSWERED,
    AUTO_RESPONSE,
    CLOSE,
    GIVEN,
    SERVING,
    TAKEN,
    Record,
)
from shard.held import HeldSocket
from shard.held_sockets import HeldSockets
from shard.residence import Stage
from workers.auto_response import WebSocketRequestResponsePair

if TYPE_CHECKING:
    from shard.host import Shard

log = structlog.get_logger(__name__)

KINDS: Final = frozenset({ADOPT, ADOPTED, AUTO_RESPONSE, AUTO_ANSWERED})
"""The records about held connections that a gateway sends."""


class _Listener:
    """One who sends us events.

    Attributes:
        adopted: the partitions whose records it has handed back; ``None``: it is a shard, has none.
        told: those of which it knows that they are served; ``None`` before the first word.
    """

    __slots__ = ("adopted", "told")

    def __init__(self, *, is_gateway: bool) -> None:
        self.adopted: set[Partition] | None = set() if is_gateway else None
        self.told: set[Partition] | None = None


class Gateways:
    """See the module.

    Args:
        shard: this one.
        count: how many gateways there are.

    Attributes:
        serving: requests for the app's entry point are welcome.
    """

    def __init__(self, shard: Shard, count: int) -> None:
        self.serving = False
        self._started = False
        self._shard = shard
        self._count = count
        self._adopted = 0
        self._listeners: dict[Link, _Listener] = {}
        self._joined: set[int] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def links(self) -> list[Link]:
        """Of all that send us events: gateways and shards."""
        return list(self._listeners)

    def start(self) -> None:
        """Wait for them, for so long."""
        self._started = True
        if not self.serving:
            self._wait(self._shard.residences.at(Stage.JOINING), self._serve_late)

    def stop(self) -> None:
        """Wait no more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def link_up(self, link: Link, known: dict[Partition, int]) -> None:
        """A gateway or another shard has linked to us.

        Args:
            link: to it.
            known: what our ``HELLO`` has told it.
        """
        listener = self._listeners[link] = _Listener(is_gateway=_is_gateway(link))
        owned = self._shard.residences.generations
        if gone := [each for each in known if each not in owned]:
            link.send([GIVEN, gone, []])
        if new := {each: owned[each] for each in owned if known.get(each) != owned[each]}:
            link.send([TAKEN, new])
        self._tell(link, listener)

    def link_down(self, link: Link) -> None:
        """It has gone."""
        self._listeners.pop(link, None)

    def took(self, generations: dict[Partition, int]) -> None:
        """More partitions have come: their connections are to be handed back."""
        for link in self._listeners:
            link.send([TAKEN, generations])
        if self._started:
            self._wait(set(generations), self._serve_late_taken)

    def halted(self, partitions: Iterable[Partition]) -> None:
        """These are not served any more."""
        for listener in self._listeners.values():
            for known in (listener.adopted, listener.told):
                if known is not None:
                    known.difference_update(partitions)

    def record(self, link: Link, record: Record) -> None:
        """Handle a record of :data:`KINDS`."""
        kind = record[0]
        if kind == ADOPT:
            self._adopt(link, record)
        elif kind == ADOPTED:
            self._joined_by(link, record[1])
        elif kind == AUTO_RESPONSE:
            self._auto_response(record)
        else:
            self._auto_answered(link, record)

    # --- joining -------------------------------------------------------------------------------

    def _joined_by(self, link: Link, partitions: list[Partition]) -> None:
        assert link.peer is not None
        residences = self._shard.residences
        listener = self._listeners[link]
        assert listener.adopted is not None
        # Those that left again while their records were on their way are nobody's business here.
        owned = {each for each in partitions if each in residences.generations}
        listener.adopted |= owned - residences.at(Stage.HALTING)
        self._joined.add(link.peer.index)
        served = residences.handed_back(link.peer.index, owned)
        if not self.serving and len(self._joined) >= self._count:
            self._begin()
        if self.serving:
            self._serve(served, link)

    def _serve_late(self, partitions: set[Partition]) -> None:
        if self.serving:
            self._serve_late_taken(partitions)
            return
        if self._listeners:
            log.warning("shard.gateways_late", joined=len(self._joined), of=self._count)
        self._begin()
        self._serve(self._shard.residences.patience_over(partitions))

    def _serve_late_taken(self, partitions: set[Partition]) -> None:
        late = self._shard.residences.patience_over(partitions)
        if late:
            log.warning("shard.gateways_late", joined=len(self._joined), of=self._count)
            self._serve(late)

    def _begin(self) -> None:
        self.serving = True
        if self._adopted:
            log.info("shard.adopted", sockets=self._adopted)
        self._shard.alarms.serve()

    def _serve(self, partitions: set[Partition], asker: Link | None = None) -> None:
        for link, listener in self._listeners.items():
            if partitions or link is asker or listener.told is None:
                self._tell(link, listener)
        self._shard.served(partitions)

    def _tell(self, link: Link, listener: _Listener) -> None:
        """Say what is served, as far as it may be known there and is not."""
        if not self.serving:
            return
        is_gateway = listener.adopted is not None
        if is_gateway and link.peer.index not in self._joined:  # type: ignore[union-attr]
            return
        served = self._shard.residences.served
        news = served if listener.adopted is None else served & listener.adopted
        if listener.told is None:
            listener.told = set()
        elif not (news := news - listener.told):
            return
        listener.told |= news
        link.send([SERVING, sorted(news)])

    def _wait(self, partitions: set[Partition], late: Any) -> None:
        def over() -> None:
            self._timers.discard(timer)
            late(partitions)

        timer = self._loop.call_later(self._shard.settings.adopt_timeout_s, over)
        self._timers.add(timer)

    # --- records -------------------------------------------------------------------------------

    def _held_at(self, address: list[Any]) -> HeldSockets:
        """The held sockets of an object.

        Raises:
            Unavailable: the app has no such class any more, or the object is at home elsewhere.
        """
        unique_key, raw, name = address
        shard = self._shard
        object_id = shard.namespace_of_key(unique_key).ids.from_raw(raw, name)
        generation = shard.residences.generations.get(object_id.partition, 0)
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
