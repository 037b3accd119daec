"""Hand-off: brings what this shard owns in line with the placement, with nothing lost.

The shard that has a partition gives it away; the one that is to have it takes it::

    giver:  HALT to everyone ─▶ HALTED from everyone ─▶ handlers have ended ─▶ databases closed,
            lock released ─▶ GIVEN to everyone
    taker:  lock acquired, generation + 1 ─▶ TAKEN to everyone ─▶ ADOPTED from every gateway
            ─▶ SERVING to everyone

Who has answered HALTED keeps events back until somebody serves the partition again. The taker does
not depend on the giver's word: it tries the lock when it hears GIVEN, when a link ends, and from
time to time; a giver that dies half-way has let go of its locks by that. A handler that is not done
within DRAIN_TIMEOUT_S is cut as a crash would cut it: the connections whose frames it leaves
unhandled are named in GIVEN, and closed. So are all connections of a gateway that has not answered
by then: what it has sent may arrive when nobody is there to handle it.

Partitions go in batches, so that the pause of each is short.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Container
from typing import TYPE_CHECKING, Final

import structlog

from common.errors import LimpetError
from common.ids import Partition
from common.link.driver import Link
from common.link.records import GIVEN, HALT
from shard.draining import LOOK_INTERVAL_S, work_of
from shard.held import HeldSocket
from shard.residence import Stage

if TYPE_CHECKING:
    from common.membership import Membership
    from common.ownership import Ownership
    from shard.host import Shard
    from shard.slot import Slot

log = structlog.get_logger(__name__)

BATCH: Final = 64
"""How many partitions are given away at once."""
RETRY_S: Final = 0.25
"""How often a lock that somebody else has is tried without a reason."""


class HandOff:
    """See the module.

    Args:
        shard: this one.
        membership: says what it should own.
        ownership: by what right it owns.
    """

    def __init__(self, shard: Shard, membership: Membership, ownership: Ownership) -> None:
        self._shard = shard
        self._membership = membership
        self._ownership = ownership
        self._loop = asyncio.get_running_loop()
        self._giving: asyncio.Task[None] | None = None
        self._unanswered: dict[Link, set[Partition]] = {}
        self._cut: defaultdict[Link, set[int]] = defaultdict(set)
        """Whom to name in GIVEN; kept should giving fail, as the sockets are gone by then."""
        self._retry: asyncio.TimerHandle | None = None
        self._looking = False
        self._stopped = False

    @property
    def settled(self) -> bool:
        """The shard owns exactly what it should, and serves it."""
        residences = self._shard.residences
        return residences.served == set(self._placed()) == residences.generations.keys()

    def start(self) -> None:
        """Take what is free now, and follow the membership."""
        self._membership.subscribe(self.wake)
        if held := self._ownership.held():
            self._shard.took({each: int(number) for each, number in held.items()})
        self._take()

    def stop(self) -> None:
        """Give and take no more."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        if self._giving is not None:
            self._giving.cancel()

    def wake(self) -> None:
        """Something may have changed: look, soon."""
        if not self._looking and not self._stopped:
            self._looking = True
            self._loop.call_soon(self._look)

    def halted(self, link: Link, partitions: list[Partition]) -> None:
        """``HALTED``: no more events for these will come over that link."""
        waiting = self._unanswered.get(link)
        if waiting is not None:
            waiting.difference_update(partitions)

    def link_down(self, link: Link) -> None:
        """Nothing at all will."""
        self._unanswered.pop(link, None)

    # --- both ----------------------------------------------------------------------------------

    def _placed(self) -> Collection[Partition]:
        return self._membership.placement.partitions_of(self._shard.index)  # type: ignore[arg-type]

    def _look(self) -> None:
        self._looking = False
        if self._stopped:
            return
        self._membership.refresh()
        self._take()
        residences = self._shard.residences
        # First those that are half-way: giving them has failed before.
        surplus = sorted(residences.at(Stage.HALTING)) or residences.surplus(self._placed())
        if surplus and self._giving is None:
            self._giving = self._loop.create_task(self._give(surplus[:BATCH]), name="hand-off")
            self._giving.add_done_callback(self._gave)

    # --- taking --------------------------------------------------------------------------------

    def _take(self) -> None:
        lacking = self._shard.residences.lacking(self._placed())
        if not lacking:
            return
        try:
            taken = self._ownership.take(lacking)
        except LimpetError as error:
            log.error("shard.cannot_take", error=str(error))
            taken = {}
        if taken:
            self._shard.took({each: int(number) for each, number in taken.items()})
        if len(taken) < len(lacking):
            if self._retry is not None:
                self._retry.cancel()
            self._retry = self._loop.call_later(RETRY_S, self.wake)

    # --- giving --------------------------------------------------------------------------------

    async def _give(self, partitions: list[Partition]) -> None:
        shard = self._shard
        began_at = self._loop.time()
        shard.halt(shard.residences.served.intersection(partitions))
        links = shard.gateways.links
        self._unanswered = {link: set(partitions) for link in links}
        for link in links:
            link.send([HALT, partitions])
        timeout_s = shard.settings.drain_timeout_s
        wanted = frozenset(partitions)
        while left := self._left(wanted):
            if self._loop.time() - began_at >= timeout_s:
                log.warning("shard.hand_off_timed_out", after_s=timeout_s, left=left)
                break
            await asyncio.sleep(LOOK_INTERVAL_S)
        self._let_go(wanted)
        log.info(
            "shard.gave",
            partitions=len(partitions),
            seconds=round(self._loop.time() - began_at, 3),
        )

    def _gave(self, task: asyncio.Task[None]) -> None:
        self._giving = None
        self._unanswered = {}
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("shard.hand_off_failed", exc_info=error)
            if self._retry is not None:
                self._retry.cancel()
            self._retry = self._loop.call_later(RETRY_S, self.wake)
            return
        self.wake()

    def _left(self, partitions: Collection[Partition]) -> str:
        """What is still under way, in words; empty if nothing is."""
        if late := sum(1 for waiting in self._unanswered.values() if waiting):
            return f"{late} links that have not stopped sending"
        shard = self._shard
        for slot in shard.slots_in(partitions):
            if shard.sockets.awaits_gateway(slot.sockets):
                return f"sockets of {slot} without their client"
            if work := work_of(slot):
                return work
            if slot.activation is not None and slot.activation.streams:
                return f"streams of {slot}"
        if shard.storage.is_busy_in(partitions):
            return "a disk"
        return ""

    def _let_go(self, partitions: Collection[Partition]) -> None:
        """Without an ``await``: nobody sees a partition that is half gone."""
        shard = self._shard
        late = {link for link, waiting in self._unanswered.items() if waiting}
        for slot in shard.slots_in(partitions):
            for link, connection in in_doubt(slot, late):
                self._cut[link].add(connection)
            slot.leave()
        shard.let_go(partitions)
        for partition in partitions:
            self._ownership.release(partition)
        numbers = sorted(partitions)
        for link in shard.gateways.links:
            link.send([GIVEN, numbers, sorted(self._cut[link])])
        self._cut.clear()


def in_doubt(slot: Slot, late: Container[Link]) -> list[tuple[Link, int]]:
    """The held connections of an object of which something may be, or is, handled by nobody.

    Args:
        slot: the object's.
        late: those over which more may be on its way.
    """
    return [
        (socket.link, socket.connection)
        for socket in slot.sockets
        if isinstance(socket, HeldSocket)
        and socket.link is not None
        and (socket.is_unhandled or socket.link in late)
    ]
