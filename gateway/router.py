"""Links to all shards, kept up; and which shard takes the next request."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Final, final

import structlog

from common.close_reasons import LOST_TEXT
from common.errors import LinkDown
from common.link.dialer import LinkDialer
from common.link.session import Hello
from common.link.transport import Transport
from common.membership import Membership
from gateway.connection import LOST_CODE
from gateway.context import Context
from gateway.lobby import Lobby
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
        self._transport = transport
        self._rng = rng
        settings = context.settings
        self._hello = Hello(
            role="gateway",
            index=index,
            instance=f"{rng.getrandbits(64):016x}",
            window_bytes=settings.link_window_bytes,
            max_batch_bytes=settings.link_max_batch_bytes,
            generations={},
        )
        self._relays = {
            int(shard): Relay(int(shard), context, self._changed, self.abandon)
            for shard in sorted(membership.shards)
        }
        self.lobby = Lobby()
        self._up: list[Relay] = []
        self._next = 0
        self._linked = asyncio.Event()
        self._all_linked = asyncio.Event()
        self._dialers: list[LinkDialer] = []

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
        """Begin to dial."""
        settings = self._context.settings
        for shard, relay in self._relays.items():
            dialer = LinkDialer.with_backoff(
                f"shard-{shard}",
                self._transport,
                self._hello,
                relay,
                minimum_s=settings.link_reconnect_min_s,
                maximum_s=settings.link_reconnect_max_s,
                rng=self._rng,
                prompt_acks=False,
            )
            self._dialers.append(dialer)
            dialer.start()

    async def wait_linked(self) -> None:
        """Until every shard can be reached, or one can and the others keep us waiting too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALL_LINKED_TIMEOUT_S):
                await self._all_linked.wait()
        await self._linked.wait()

    async def close(self) -> None:
        """Dial no more, and end all links."""
        dialers, self._dialers = self._dialers, []
        for dialer in dialers:
            await dialer.close(LinkDown("the gateway stops"))

    def _changed(self) -> None:
        self._up = [relay for relay in self._relays.values() if relay.is_up]
        if self._up:
            self._linked.set()
            self.lobby.open()
        else:
            self._linked.clear()
        if len(self._up) == len(self._relays):
            self._all_linked.set()
