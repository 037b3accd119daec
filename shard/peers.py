"""The other shards: one dialled link to each, over which this shard calls their objects."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from common.errors import LinkDown, LinkError, Unavailable
from common.ids import Partition
from common.link.dialer import LinkDialer
from common.link.driver import Link
from common.link.records import RESULT, Record
from common.link.session import Hello
from common.link.transport import Transport
from common.settings import Settings
from shard.exchanges import Answered, Exchanges


class Peers:
    """Calls objects that live in other shards.

    Args:
        read_error: turns the map of a ``FAILED`` record into an exception.
    """

    def __init__(
        self,
        local: Hello,
        settings: Settings,
        transport: Transport,
        rng: random.Random,
        read_error: Callable[[dict[str, Any]], BaseException],
    ) -> None:
        self._local = local
        self._settings = settings
        self._transport = transport
        self._rng = rng
        self._read_error = read_error
        self._dialers: dict[int, LinkDialer] = {}
        self._exchanges: dict[int, Exchanges] = {}

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

    def request(
        self,
        shard: int,
        target: list[Any],
        partition: Partition,
        head: list[Any],
        body: AsyncIterator[Any] | None,
        answered: Answered,
    ) -> None:
        """Send a request to an object of another shard; *answered* gets its answer or an error."""
        exchanges = self._exchanges.get(shard)
        if exchanges is None:
            answered(None, Unavailable(f"shard {shard}, the object's home, cannot be reached"))
            return
        assert exchanges.link.peer is not None
        generation = exchanges.link.peer.generations.get(partition, 0)
        exchanges.request([*target, generation], head, body, answered)

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        self._exchanges[peer.index] = Exchanges(
            link, self._settings.body_window_bytes, self._read_error
        )

    def link_records(self, link: Link, records: list[Record]) -> None:
        assert link.peer is not None
        exchanges = self._exchanges.get(link.peer.index)
        if exchanges is None or exchanges.link is not link:
            return
        for record in records:
            if record[0] == RESULT:
                exchanges.result(record)
            else:
                exchanges.record(record)

    def link_writable(self, link: Link) -> None:
        """Requests wait in the session: nobody was paused."""

    def link_down(self, link: Link, error: LinkError) -> None:
        assert link.peer is not None
        exchanges = self._exchanges.get(link.peer.index)
        if exchanges is not None and exchanges.link is link:
            del self._exchanges[link.peer.index]
            exchanges.link_down(error)
