"""The other shards: one dialled link to each, over which this shard calls their objects."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Any, Final

from common.errors import LinkError, Unavailable
from common.ids import Partition
from common.link.dialers import Dialers
from common.link.driver import Link
from common.link.records import (
    DRAIN,
    DRAINED,
    GIVEN,
    HALT,
    HALTED,
    SERVING,
    TAKEN,
    Record,
)
from common.link.session import Hello
from common.link.transport import Transport
from common.settings import Settings
from shard.clients import KINDS as CLIENT_KINDS
from shard.clients import Clients
from shard.exchanges import Answered
from shard.rpc import RPC_KINDS, STREAM_KINDS, RpcContext, RpcEnd
from workers.exceptions import set_flags


class Peers:
    """Calls objects that live in other shards.

    Args:
        context: what the calls over all links share.
        clients: the sockets that this process uses of objects of other shards.
        served: told which partitions another shard serves from now on.
        moved: told that another shard has let partitions go, or has gone itself.
    """

    def __init__(
        self,
        local: Hello,
        settings: Settings,
        transport: Transport,
        rng: random.Random,
        context: RpcContext,
        clients: Clients,
        served: Callable[[Collection[Partition]], None],
        moved: Callable[[], None],
    ) -> None:
        self._context = context
        self._clients = clients
        self._served = served
        self._moved = moved
        self._dialers = Dialers(transport, local, settings, rng, prompt_acks=True)
        self._ends: dict[int, RpcEnd] = {}
        self._links: dict[int, Link] = {}
        self._serving: set[int] = set()
        self._homes: dict[Partition, int] = {}
        self._generations: dict[int, dict[Partition, int]] = {}
        self._wanted: set[int] = set()

    def follow(self, shards: Iterable[int]) -> None:
        """Keep a link to each of these, and none to others that are gone."""
        wanted = set(shards)
        for shard in wanted:
            self._dialers.dial(shard, self)
        for shard in set(self._dialers.shards) - wanted - self._links.keys():
            self._dialers.drop(shard)
        self._wanted = wanted

    async def close(self) -> None:
        """End all links."""
        await self._dialers.close("the shard is stopping")

    def home_of(self, partition: Partition) -> int | None:
        """Which other shard serves that partition now, if one does."""
        return self._homes.get(partition)

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
        """Send a request to an object of another shard, which serves it.

        *address* is ``[unique_key, raw id, name]``, *number* the stub's; *answered* gets the answer
        or an error, exactly once.
        """
        end = self.end(shard)
        if end is None:  # it went between the question and now
            answered(None, self.unreachable(shard))
            return
        target = [*address, self.generation(shard, partition), number]
        end.exchanges.request(target, head, body, answered)

    def end(self, shard: int) -> RpcEnd | None:
        """Where calls to the objects of that shard go; ``None`` while it takes none."""
        return self._ends[shard] if shard in self._serving else None

    def link(self, shard: int) -> Link | None:
        """The link to that shard, if it is up."""
        return self._links.get(shard)

    def unreachable(self, shard: int) -> Unavailable:
        """The error of a call while there is none."""
        text = f"shard {shard}, the object's home, cannot be reached"
        return set_flags(Unavailable(text), retryable=True)

    def generation(self, shard: int, partition: Partition) -> int:
        """The generation with which that shard owns the partition; 0 if it does not."""
        return self._generations[shard].get(partition, 0)

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        self._links[peer.index] = link
        self._ends[peer.index] = RpcEnd(link, self._context)
        self._generations[peer.index] = {
            Partition(each): number for each, number in peer.generations.items()
        }

    def link_records(self, link: Link, records: list[Record]) -> None:
        assert link.peer is not None
        shard = link.peer.index
        if self._links.get(shard) is not link:
            return
        end = self._ends[shard]
        for record in records:
            kind = record[0]
            if kind in _ABOUT_HOMES:
                self._home_record(shard, link, record)
            elif kind in CLIENT_KINDS:
                self._clients.record(link, record)
            elif kind in RPC_KINDS or (kind in STREAM_KINDS and record[1] < 0):
                end.record(record)
            else:
                end.exchanges.record(record)

    def _home_record(self, shard: int, link: Link, record: Record) -> None:
        kind = record[0]
        if kind == SERVING:
            self._serving.add(shard)
            self._homes.update(dict.fromkeys(record[1], shard))
            self._served(record[1])
        elif kind == DRAIN:
            self._serving.discard(shard)
            self._forget_homes(shard)
            link.send([DRAINED])
        elif kind == HALT:
            self._forget_homes(shard, record[1])
            link.send([HALTED, record[1]])
        elif kind == TAKEN:
            self._generations[shard].update(record[1])
        else:
            self._forget_homes(shard, record[1])
            for partition in record[1]:
                self._generations[shard].pop(partition, None)
            self._moved()

    def _forget_homes(self, shard: int, partitions: Iterable[Partition] | None = None) -> None:
        for partition in list(self._homes) if partitions is None else partitions:
            if self._homes.get(partition) == shard:
                del self._homes[partition]

    def link_writable(self, link: Link) -> None:
        # Requests wait in the session: nobody was paused.
        self._clients.wire_writable(link)

    def link_down(self, link: Link, error: LinkError) -> None:
        assert link.peer is not None
        shard = link.peer.index
        if self._links.get(shard) is link:
            del self._links[shard]
            self._serving.discard(shard)
            self._forget_homes(shard)
            self._generations.pop(shard, None)
            self._ends.pop(shard).line_down(error)
            self._clients.wire_down(link)
            self._moved()
            if shard not in self._wanted:
                self._dialers.drop(shard)


_ABOUT_HOMES: Final = frozenset({SERVING, DRAIN, HALT, GIVEN, TAKEN})
"""Where objects are at home, and whether they take calls."""
