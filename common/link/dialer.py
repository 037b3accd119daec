"""Keeps one link to a named process: dials, waits until it ends, dials again with back-off."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import structlog

from common.errors import LinkError
from common.link.backoff import Backoff
from common.link.driver import Link, LinkHandler
from common.link.session import Hello
from common.link.transport import Transport

log = structlog.get_logger(__name__)


class LinkDialer:
    """Runs as one task for each process that is dialled.

    Args:
        name: whom to dial (``"shard-0"``).
        transport: how.
        local: what this process says of itself.
        handler: told of every link that comes up and goes down.
        backoff: when to try again.
        prompt_acks: see :class:`common.link.session.LinkSession`.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        local: Hello,
        handler: LinkHandler,
        backoff: Backoff,
        *,
        prompt_acks: bool,
    ) -> None:
        self.name = name
        self._transport = transport
        self._local = local
        self._handler = handler
        self._backoff = backoff
        self._prompt_acks = prompt_acks
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None

    @classmethod
    def with_backoff(
        cls,
        name: str,
        transport: Transport,
        local: Hello,
        handler: LinkHandler,
        *,
        minimum_s: float,
        maximum_s: float,
        rng: random.Random,
        prompt_acks: bool,
    ) -> LinkDialer:
        """The same with a :class:`Backoff` of its own."""
        backoff = Backoff(minimum_s, maximum_s, rng)
        return cls(name, transport, local, handler, backoff, prompt_acks=prompt_acks)

    def start(self) -> None:
        """Begin to dial."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self.name}")

    async def close(self, error: LinkError) -> None:
        """Dial no more, and end the link with the text of *error*."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._link is not None:
            self._link.close(error)

    async def _run(self) -> None:
        failures = 0
        while True:
            ended: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()
            try:
                self._link = await self._transport.dial(self.name, partial(self._make, ended))
                error = await ended
            except LinkError as refused:
                error = refused
            except Exception as bug:  # must not end the only task that can bring the link back
                log.exception("link.dial_failed", to=self.name)
                error = LinkError(f"dialling failed: {bug!r}")
            if self._link is not None and self._link.peer is not None:
                self._backoff.reset()
                failures = 0
            self._link = None
            failures += 1
            delay_s = self._backoff.next_delay_s()
            level = log.debug if failures == 1 else log.info
            level("link.retry", to=self.name, error=str(error), in_s=round(delay_s, 3))
            await asyncio.sleep(delay_s)

    def _make(self, ended: asyncio.Future[LinkError]) -> Link:
        def closed(error: LinkError) -> None:
            if not ended.done():
                ended.set_result(error)

        return Link(self._local, self._handler, prompt_acks=self._prompt_acks, closed=closed)
