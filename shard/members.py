"""A shard without a supervisor, among others: it leaves in good order, and notices who is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from common import registration
from common.errors import LimpetError
from shard.draining import LOOK_INTERVAL_S

if TYPE_CHECKING:
    from common.membership import Membership
    from common.settings import Settings
    from shard.host import Shard

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.5
"""How often to look who is missing."""
HAND_OVER_PART: Final = 0.5
"""Which part of STOP_TIMEOUT_S a leaving shard may spend on handing over."""


class Members:
    """See the module.

    Args:
        settings: of the cluster.
        membership: which shards there are.
        shard: this one.
    """

    def __init__(self, settings: Settings, membership: Membership, shard: Shard) -> None:
        self._settings = settings
        self._membership = membership
        self._shard = shard
        self._missing: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look who is there, from time to time."""
        self._timer = self._loop.call_later(LOOK_S, self.start)
        now_s = self._loop.time()
        linked = {each for each in self._membership.shards if self._shard.peers.link(each)}
        absent = self._membership.shards - linked - {self._shard.index}
        self._missing = {each: self._missing.get(each, now_s) for each in absent}
        for index, since_s in list(self._missing.items()):
            if now_s - since_s >= self._settings.leave_timeout_s:
                self._missing[index] = now_s
                self._remove(index)

    async def leave(self) -> None:
        """Be a member no more, and hand everything over; returns when that is done, or late."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            left = registration.leave(self._settings.run_dir, self._shard.index)
        except LimpetError as error:
            log.warning("shard.cannot_leave", error=str(error))
            return
        if not left:
            return
        give_up_at = self._loop.time() + self._settings.stop_timeout_s * HAND_OVER_PART
        while self._shard.residences.generations and self._loop.time() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_INTERVAL_S)
        log.info("shard.left", partitions_kept=len(self._shard.residences.generations))

    def _remove(self, index: int) -> None:
        try:
            if registration.remove_dead(self._settings.run_dir, index):
                log.warning("shard.removed", shard=index, away_for_s=self._settings.leave_timeout_s)
        except LimpetError as error:
            log.error("shard.cannot_remove", shard=index, error=str(error))
