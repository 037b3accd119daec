"""Links to all shards, kept up; and which shard takes the next request."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection, Mapping
from typing import Final, final

import structlog

from common.close_reasons import LOST_TEXT
from common.link.dialers import Dialers
from common.link.session import Hello
from common.link.transport import Transport
from common.membership import Membership
from gateway.connection import LOST_CODE
from gateway.context import Context
from gateway.lobby import Lobby
from gateway.moves import Moves
from gateway.relay import Relay

log = structlog.get_logger(__name__)

ALL_LINKED_TIMEOUT_S: Final = 5.0
"""How long a gateway that starts waits for the last shard when it has the first."""


@final
class Router:
    """The shards as this gateway reaches them.

    Args:
        index: of this gateway.
        context: of this gateway.
        transport: makes the links.
        membership: which shards there are.
        rng: source of the jitter between two tries, and of this process' instance number.
    """

    def __init__(
        self,
        index: int,
        context: Context,
        transport: Transport,
        membership: Membership,
        rng: random.Random,
    ) -> None:
        self._context = context
        settings = context.settings
        hello = Hello(
            role="gateway",
            index=index,
            instance=f"{rng.getrandbits(64):016x}",
            window_bytes=settings.link_window_bytes,
            max_batch_bytes=settings.link_max_batch_bytes,
            generations={},
        )
        self._membership = membership
        self._relays: dict[int, Relay] = {}
        self._moves = Moves()
        self.lobby = Lobby()
        self._up: list[Relay] = []
        self._next = 0
        self._linked = asyncio.Event()
        self._all_linked = asyncio.Event()
        self._dialers = Dialers(transport, hello, settings, rng, prompt_acks=False)
        self._running = False
        self._follow()

    @property
    def relays(self) -> Mapping[int, Relay]:
        """Of all shards, up or not."""
        return self._relays

    @property
    def shards_up(self) -> int:
        """How many can be reached now."""
        return len(self._up)

    # --- Routes, for HTTP connections ----------------------------------------------------------

    def pick(self) -> Relay | None:
        """See :class:`gateway.http.Routes`: those that are up take turns."""
        up = self._up
        if not up:
            return None
        self._next = (self._next + 1) % len(up)
        return up[self._next]

    def relay(self, shard: int) -> Relay | None:
        """See :class:`gateway.http.Routes`."""
        return self._relays.get(shard)

    def abandon(self, socket: list[int]) -> None:
        """See :class:`gateway.http.Routes`: attach a connection and say at once that it is gone."""
        relay = self._relays.get(socket[0])
        if relay is not None:
            relay.abandon(socket[1], socket[2], self._context.new_id(), LOST_CODE, LOST_TEXT)

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to dial, and follow the membership."""
        self._running = True
        self._membership.subscribe(self._follow)
        self._follow()

    async def wait_linked(self) -> None:
        """Until every shard can be reached, or one can and the others keep us waiting too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALL_LINKED_TIMEOUT_S):
                await self._all_linked.wait()
        await self._linked.wait()

    async def close(self) -> None:
        """Dial no more, and end all links."""
        self._running = False
        await self._dialers.close("the gateway stops")

    # --- Moved, for relays ---------------------------------------------------------------------

    def took(self, shard: int, partitions: Collection[int], *, always: bool = False) -> None:
        """See :class:`gateway.relay.Moved`."""
        ready = self._moves.took(shard, partitions)
        if ready or always:
            self._hand_over(shard, ready)

    def gave(self, shard: int, partitions: Collection[int]) -> None:
        """See :class:`gateway.relay.Moved`."""
        for taker, ready in self._moves.gave(shard, partitions).items():
            self._hand_over(taker, ready)

    def lost(self, shard: int) -> None:
        """See :class:`gateway.relay.Moved`."""
        for taker, ready in self._moves.lost(shard).items():
            self._hand_over(taker, ready)
        self._follow()

    def _hand_over(self, taker: int, partitions: Collection[int]) -> None:
        """All that wait for objects of these partitions are that shard's now."""
        holder = self._relays[taker].holder
        for shard, relay in self._relays.items():
            if shard != taker and relay.holder.holding.holds:
                holder.receive(relay.holder.part(partitions))
        holder.hand_back(partitions)

    # --- which shards there are ----------------------------------------------------------------

    def _follow(self) -> None:
        members = self._membership.shards
        for shard in sorted(members):
            if shard not in self._relays:
                self._relays[shard] = Relay(shard, self._context, self._changed, self.abandon, self)
            if self._running:
                self._dialers.dial(shard, self._relays[shard])
        for gone in [each for each in self._relays if each not in members]:
            relay = self._relays[gone]
            if relay.link is None and not relay.connections and not relay.holder.holding.holds:
                self._forget(gone)
        self._changed()

    def _forget(self, shard: int) -> None:
        self._relays.pop(shard).holder.stop()
        self._dialers.drop(shard)
        log.info("shard.left", shard=shard)

    def _changed(self) -> None:
        self._up = [relay for relay in self._relays.values() if relay.is_up]
        if self._up:
            self._linked.set()
            self.lobby.open()
        else:
            self._linked.clear()
        if self._up and len(self._up) == len(self._relays):
            self._all_linked.set()
