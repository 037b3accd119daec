"""The graceful end of a shard: finish what is under way, lose nothing, leave.

::

    DRAIN to everyone ─▶ DRAINED from everyone ─▶ handlers have ended ─▶ outputs are out ─▶ end

Who has answered ``DRAINED`` sends no more events; gateways keep them for our successor. A handler
that is not done within DRAIN_TIMEOUT_S is cut as a crash would cut it: its frame stays unsettled,
so that its client is closed and knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import structlog

from common.link.driver import Link
from common.link.records import DRAIN
from shard.lifecycle import State

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.slot import Slot

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S: Final = 0.002
"""How often to look whether work has ended. To be told would cost every message something."""


class Drain:
    """One shard's way out.

    Args:
        links: of those who send us events.
        unfinished: what is still under way, in words; empty if nothing is.
    """

    def __init__(self, links: Iterable[Link], unfinished: Callable[[], str]) -> None:
        self._links = set(links)
        self._unanswered = set(self._links)
        self._unfinished = unfinished

    def answered(self, link: Link) -> None:
        """``DRAINED``: nothing more will come over that link; or it is down."""
        self._unanswered.discard(link)

    def gone(self, link: Link) -> None:
        """That link is down."""
        self._links.discard(link)
        self._unanswered.discard(link)

    async def run(self, timeout_s: float) -> None:
        """Return when nothing is under way any more, or the time is over."""
        for link in self._links:
            link.send([DRAIN])
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while left := self._left():
            if loop.time() - began_at >= timeout_s:
                log.warning("shard.drain_timed_out", after_s=timeout_s, left=left)
                return
            await asyncio.sleep(LOOK_INTERVAL_S)
        log.info("shard.drained", seconds=round(loop.time() - began_at, 3))

    def _left(self) -> str:
        if self._unanswered:
            return f"{len(self._unanswered)} links that have not stopped sending"
        if left := self._unfinished():
            return left
        if waiting := sum(link.session.queued_bytes for link in self._links):
            return f"{waiting} bytes for other processes"
        return ""


def work_of(slot: Slot) -> str:
    """What of an object is under way, or waits for it, in words; empty if nothing does."""
    if slot.state is State.DUE:
        return f"{slot}, which waits for its turn to wake"
    life = slot.activation
    if slot.pending or (life is not None and _is_at_work(life)):
        return f"handlers of {slot}"
    return ""


def _is_at_work(activation: Activation) -> bool:
    """Whether a handler of the object is under way, or something that it has written."""
    return (
        activation.instance is None
        or activation.gate.holds_events
        or any(carrier.carries_handler for carrier in activation.carriers)
        or (activation.storage is not None and activation.storage.busy)
    )
