"""A shard as a process: claims its partitions, loads the app, serves links until it is stopped."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from common import registration
from common.admin import AdminCommand, Health
from common.clock import SystemClock
from common.file_lock import holder
from common.link.unix import UnixTransport
from common.membership import FileMembership
from common.metrics import Metrics
from common.ownership import LOCK_FILE, FlockOwnership, index_lock_path
from common.parent import is_supervised
from common.placement import ShardIndex
from common.process import run_role
from common.settings import Settings
from common.wrangler import find_project
from shard import app_output, still
from shard.app import App, load_app
from shard.host import Shard
from shard.lag import LagWatch
from shard.members import Members
from shard.still import refuse_half_restored

log = structlog.get_logger(__name__)


class ShardService:
    """Runs a :class:`~shard.host.Shard` in this process; see :class:`common.process.Service`."""

    def __init__(self, settings: Settings, index: int, metrics: Metrics) -> None:
        self._settings = settings
        self._index = index
        self._ownership = FlockOwnership(settings.data_dir)
        self._membership = FileMembership(settings.run_dir, settings.shards)
        self._members: Members | None = None
        self._shard: Shard | None = None
        self._lag: LagWatch | None = None
        metrics.gauge("limpet_objects", "Objects with a slot.", lambda: self._figure("objects"))
        metrics.gauge(
            "limpet_active_objects", "Objects in memory.", lambda: self._figure("active_objects")
        )
        metrics.gauge("limpet_sockets", "WebSockets of objects.", lambda: self._figure("sockets"))
        metrics.gauge(
            "limpet_outgoing_sockets",
            "WebSockets that the app has opened to others.",
            lambda: self._figure("outgoing_sockets"),
        )
        for name, text, figure in (
            ("limpet_alarms", "Alarms that are set.", "alarms"),
            ("limpet_alarms_running", "Alarms whose handlers run.", "alarms_running"),
            (
                "limpet_alarm_lateness_longest_seconds",
                "How late an alarm has rung at most.",
                "alarm_lateness_longest_s",
            ),
        ):
            metrics.gauge(name, text, partial(self._figure, figure))
        for name, text, figure in (
            ("limpet_alarm_runs_total", "Alarms that have rung, retries included.", "alarm_runs"),
            ("limpet_alarm_failures_total", "Runs of alarms that failed.", "alarm_failures"),
            (
                "limpet_alarm_lateness_seconds_total",
                "How late alarms have rung, all together.",
                "alarm_lateness_s",
            ),
        ):
            metrics.count(name, text, partial(self._figure, figure))
        metrics.gauge(
            "limpet_loop_lag_seconds",
            "How late the event loop was at its last beat.",
            lambda: 0.0 if self._lag is None else self._lag.lag_s,
        )
        metrics.gauge(
            "limpet_loop_lag_longest_seconds",
            "How late the event loop has been at most.",
            lambda: 0.0 if self._lag is None else self._lag.longest_s,
        )

    async def start(self) -> Mapping[str, object]:
        """Become a member, own what is free of the partitions that are to be here, then listen.

        Raises:
            ConfigError: the app or a folder is wrong.
            HeldElsewhere: a process of another cluster has one of the partitions.
        """
        settings = self._settings
        refuse_half_restored(settings.data_dir)
        if not is_supervised():
            registration.enter(settings.run_dir, self._index, settings.shards)
        self._membership.start()
        self._check_strangers()
        app_output.install()
        app = _apps.pop(settings.app)
        if self._index == 0:  # once for a cluster
            for binding in app.without_rpc():
                log.warning(
                    "app.class_without_rpc",
                    binding=binding.name,
                    class_name=binding.class_name,
                    where=binding.where,
                    remedy=f"write class {binding.class_name}(DurableObject)",
                )
        self._shard = Shard(
            self._index,
            app,
            settings,
            UnixTransport(settings.run_dir),
            self._membership,
            self._ownership,
            SystemClock(),
            random.Random(),  # noqa: S311 - jitter
        )
        await self._shard.start()
        if settings.lag_warning_s:
            self._lag = LagWatch(settings.lag_warning_s, app.project.root)
            self._lag.start()
        if not is_supervised():
            self._members = Members(settings, self._membership, self._shard)
            self._members.start()
        partitions = len(self._ownership.held())
        log.info("shard.ready", app=str(app.project.file), partitions=partitions)
        return {"partitions": partitions}

    def _check_strangers(self) -> None:
        """See that what others hold of our partitions is held by members of this cluster.

        Raises:
            HeldElsewhere: it is not.
        """
        data_dir, run_dir = self._settings.data_dir, self._settings.run_dir
        placed = self._membership.placement.partitions_of(ShardIndex(self._index))
        free = self._ownership.take(placed)
        mine = index_lock_path(run_dir, "shard", self._index)
        ours: set[str | None] = set()
        for partition in placed - free.keys():
            who = holder(data_dir / f"{partition:04d}" / LOCK_FILE)
            if who not in ours:  # looked up again each time: others may have come meanwhile
                # Not our own: a stranger in a container of its own may have our pid and host name.
                locks = set(run_dir.glob("shard-*.lock")) - {mine}
                ours = {holder(path) for path in locks}
            if who not in ours:
                self._ownership.acquire([partition])  # says why not, unless it is free by now

    async def stop(self) -> None:
        """Hand everything over if there is anybody, end the links and let the objects go."""
        if self._members is not None:
            await self._members.leave()
        self._membership.stop()
        if self._lag is not None:
            self._lag.stop()
        if self._shard is not None:
            await self._shard.stop()
        for partition in list(self._ownership.held()):
            self._ownership.release(partition)
        app_output.uninstall()

    def health(self) -> Health:
        """Healthy as soon as it serves."""
        return Health(self._shard is not None, {"index": self._index})

    def status(self) -> Mapping[str, object]:
        """See :meth:`Shard.status`."""
        return {} if self._shard is None else self._shard.status()

    def commands(self) -> Mapping[str, AdminCommand]:
        """What ``limpet backup`` and ``limpet verify`` ask for: see :mod:`shard.still`."""
        return still.commands(lambda: None if self._shard is None else self._shard.storage)

    def _figure(self, name: str) -> float:
        return float(self.status().get(name, 0))  # type: ignore[arg-type]


_apps: Final[dict[Path, App]] = {}


def prepare(settings: Settings) -> None:
    """Load the app, which needs nothing that only one process may have.

    Raises:
        ConfigError: it cannot be loaded.
    """
    _apps[settings.app] = load_app(find_project(settings.app))


def main() -> int:
    """Run one shard process; its exit status."""
    return run_role("shard", ShardService, prepare)


if __name__ == "__main__":
    sys.exit(main())
