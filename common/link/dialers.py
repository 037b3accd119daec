"""The links that one process keeps to all shards there are: one dialler for each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import final

from common.errors import LinkDown
from common.link.dialer import LinkDialer
from common.link.driver import LinkHandler
from common.link.session import Hello
from common.link.transport import Transport
from common.settings import Settings


@final
class Dialers:
    """See the module.

    Args:
        transport: makes the links.
        local: what this process says of itself.
        settings: how long to wait between two tries.
        rng: source of the jitter between them.
        prompt_acks: see :class:`common.link.session.LinkSession`.
    """

    def __init__(
        self,
        transport: Transport,
        local: Hello,
        settings: Settings,
        rng: random.Random,
        *,
        prompt_acks: bool,
    ) -> None:
        self._transport = transport
        self._local = local
        self._settings = settings
        self._rng = rng
        self._prompt_acks = prompt_acks
        self._dialers: dict[int, LinkDialer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def shards(self) -> Collection[int]:
        """Those that are dialled."""
        return self._dialers.keys()

    def dial(self, shard: int, handler: LinkHandler) -> None:
        """Keep a link to that shard from now on; no effect if there is a dialler already."""
        if shard in self._dialers:
            return
        dialer = self._dialers[shard] = LinkDialer.with_backoff(
            f"shard-{shard}",
            self._transport,
            self._local,
            handler,
            minimum_s=self._settings.link_reconnect_min_s,
            maximum_s=self._settings.link_reconnect_max_s,
            rng=self._rng,
            prompt_acks=self._prompt_acks,
        )
        dialer.start()

    def drop(self, shard: int) -> None:
        """That shard is not a member any more: dial it no longer; no effect if it is not dialled.

        May be called by what the dialler reports to: it is closed by a task of its own.
        """
        dialer = self._dialers.pop(shard, None)
        if dialer is not None:
            task = asyncio.get_running_loop().create_task(
                dialer.close(LinkDown("that shard is not a member any more"))
            )
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self, why: str) -> None:
        """Dial nobody any more, and end all links; *why* is told to the others."""
        dialers, self._dialers = self._dialers, {}
        for dialer in dialers.values():
            await dialer.close(LinkDown(why))
        await asyncio.gather(*self._closing, return_exceptions=True)
