"""The other shards: one dialled link to each, over which this shard calls their objects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from common.errors import LinkDown, LinkError, Unavailable
from common.ids import Partition
from common.link.dialer import LinkDialer
from common.link.driver import Link
from common.link.records import DRAIN, DRAINED, SERVING, Record
from common.link.session import Hello
from common.link.transport import Transport
from common.settings import Settings
from shard.clients import KINDS as CLIENT_KINDS
from shard.clients import Clients
from shard.exchanges import Answered
from shard.rpc import RPC_KINDS, STREAM_KINDS, RpcContext, RpcEnd
from shard.waiting import Waiting
from workers.exceptions import set_flags


class Peers:
    """Calls objects that live in other shards.

    Args:
        context: what the calls over all links share.
        clients: the sockets that this process uses of objects of other shards.
    """

    def __init__(
        self,
        local: Hello,
        settings: Settings,
        transport: Transport,
        rng: random.Random,
        context: RpcContext,
        clients: Clients,
    ) -> None:
        self._local = local
        self._settings = settings
        self._transport = transport
        self._rng = rng
        self._context = context
        self._clients = clients
        self._dialers: dict[int, LinkDialer] = {}
        self._ends: dict[int, RpcEnd] = {}
        self._links: dict[int, Link] = {}
        self._serving: set[int] = set()
        self._waiting: dict[int, Waiting] = {}

    def connect(self, shard: int) -> None:
        """Keep a link to that shard from now on."""
        if shard in self._dialers:
            return
        dialer = self._dialers[shard] = LinkDialer.with_backoff(
            f"shard-{shard}",
            self._transport,
            self._local,
            self,
            minimum_s=self._settings.link_reconnect_min_s,
            maximum_s=self._settings.link_reconnect_max_s,
            rng=self._rng,
            prompt_acks=True,
        )
        dialer.start()

    async def close(self) -> None:
        """End all links."""
        for dialer in self._dialers.values():
            await dialer.close(LinkDown("the shard is stopping"))
        self._dialers.clear()
        for waiting in self._waiting.values():
            waiting.close()

    def request(
        self,
        shard: int,
        address: list[Any],
        number: int,
        partition: Partition,
        head: list[Any],
        body: AsyncIterator[Any] | None,
        answered: Answered,
    ) -> None:
        """Send a request to an object of another shard.

        *address* is ``[unique_key, raw id, name]``, *number* the stub's; *answered* gets the answer
        or an error, exactly once.
        """
        end = self.end(shard)
        if end is None:
            self.wait(
                shard,
                len(head[5] or b""),
                lambda: self.request(shard, address, number, partition, head, body, answered),
                lambda error: answered(None, error),
            )
            return
        target = [*address, self.generation(shard, partition), number]
        end.exchanges.request(target, head, body, answered)

    def end(self, shard: int) -> RpcEnd | None:
        """Where calls to the objects of that shard go; ``None`` while it takes none."""
        return self._ends[shard] if shard in self._serving else None

    def wait(
        self,
        shard: int,
        size: int,
        start: Callable[[], None],
        refuse: Callable[[BaseException], None],
    ) -> None:
        """Have *start* called when that shard takes calls again, see :class:`Waiting`."""
        waiting = self._waiting.get(shard)
        if waiting is None:
            settings = self._settings
            waiting = self._waiting[shard] = Waiting(
                shard,
                settings.hold_timeout_s,
                settings.max_pending_bytes,
                asyncio.get_running_loop(),
            )
        waiting.put(size, start, refuse)

    def link(self, shard: int) -> Link | None:
        """The link to that shard, if it is up."""
        return self._links.get(shard)

    def unreachable(self, shard: int) -> Unavailable:
        """The error of a call while there is none."""
        text = f"shard {shard}, the object's home, cannot be reached"
        return set_flags(Unavailable(text), retryable=True)

    def generation(self, shard: int, partition: Partition) -> int:
        """The generation with which that shard owns the partition; 0 if it does not."""
        peer = self._links[shard].peer
        assert peer is not None
        return peer.generations.get(partition, 0)

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        self._links[peer.index] = link
        self._ends[peer.index] = RpcEnd(link, self._context)

    def link_records(self, link: Link, records: list[Record]) -> None:
        assert link.peer is not None
        shard = link.peer.index
        if self._links.get(shard) is not link:
            return
        end = self._ends[shard]
        for record in records:
            kind = record[0]
            if kind == SERVING:
                self._serving.add(shard)
                if shard in self._waiting:
                    self._waiting[shard].start()
            elif kind == DRAIN:
                self._serving.discard(shard)
                link.send([DRAINED])
            elif kind in CLIENT_KINDS:
                self._clients.record(link, record)
            elif kind in RPC_KINDS or (kind in STREAM_KINDS and record[1] < 0):
                end.record(record)
            else:
                end.exchanges.record(record)

    def link_writable(self, link: Link) -> None:
        # Requests wait in the session: nobody was paused.
        self._clients.wire_writable(link)

    def link_down(self, link: Link, error: LinkError) -> None:
        assert link.peer is not None
        shard = link.peer.index
        if self._links.get(shard) is link:
            del self._links[shard]
            self._serving.discard(shard)
            self._ends.pop(shard).line_down(error)
            self._clients.wire_down(link)
