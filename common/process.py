"""The life of one gateway or shard process, the parts that both share.

Settings, logs, descriptors, the claim of an index, signals, readiness, the admin window: then the
role's own :class:`Service` runs until SIGTERM or SIGINT. What goes wrong before it serves is said
in one readable message, to the parent if there is one and on standard error.

A process with STANDBY in its environment is a successor: it gets ready as far as it can without its
index, says so, and waits until the one that has the index now lets it go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog
import uvloop

from common import logs
from common.admin import AdminCommand, AdminServer, Health, socket_path
from common.errors import ConfigError, HeldElsewhere, LimpetError
from common.file_lock import FileLock
from common.heap import keep_freed_memory, keep_start_objects
from common.limits import raise_descriptor_limit
from common.metrics import Metrics
from common.ownership import IndexedRole, claim_index
from common.parent import PARENT_FD, follow_parent
from common.placement import MAX_SHARDS
from common.readiness import Readiness
from common.settings import Settings
from common.slow_start import watch_import

log = structlog.get_logger(__name__)

STANDBY = "STANDBY"
"""The environment variable that makes a process a successor."""
STANDBY_LOOK_S = 0.003
"""How often a successor looks whether its place is free."""

PREPARE_PATIENCE_S = 29.0
"""How long an app may take to import under a supervisor: a little less than that one waits."""

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2


class Service(Protocol):
    """What a role does between start and stop."""

    async def start(self) -> Mapping[str, object]:
        """Serve; returns what the parent is told when it does.

        Raises:
            LimpetError: it cannot.
        """

    async def stop(self) -> None:
        """Serve no more, within STOP_TIMEOUT_S."""

    def health(self) -> Health:
        """Whether it can do its work."""

    def status(self) -> Mapping[str, object]:
        """What there is to know."""

    def commands(self) -> Mapping[str, AdminCommand]:
        """What can be asked of it: see :mod:`common.admin`."""


MakeService = Callable[[Settings, int, Metrics], Service]


def run_role(
    role: IndexedRole,
    make: MakeService,
    prepare: Callable[[Settings], None] = lambda settings: None,
) -> int:
    """Run one process of *role* to its end; its exit status.

    Args:
        role: which.
        make: makes what it does.
        prepare: called first: does all that needs no index, and fails if nothing could be served.

    0 after a stop that was asked for, 2 for a wrong setting or app, 1 for anything else.
    """
    readiness = Readiness.from_environ(os.environ)
    supervised = PARENT_FD in os.environ
    standby = os.environ.pop(STANDBY, "")
    try:
        settings = Settings.load(os.environ)
        logs.configure(settings, role=role)
        follow_parent(os.environ, grace_s=settings.stop_timeout_s)
        raise_descriptor_limit()
        keep_freed_memory()
        count = MAX_SHARDS if role == "shard" else settings.gateways
        wanted = settings.shard_index if role == "shard" else settings.gateway_index
        if supervised:
            with watch_import(PREPARE_PATIENCE_S, settings.app, partial(_say_slow, readiness)):
                prepare(settings)
        else:
            prepare(settings)
        keep_start_objects()
        if standby:
            readiness.standby()
        index, lock = _claim(settings, role, count, wanted, waits=bool(standby))
        logs.configure(settings, role=role, index=index)
        try:
            uvloop.run(_serve(role, index, settings, make, readiness))
        finally:
            lock.release()
    except LimpetError as error:
        readiness.failed(str(error))
        if not supervised:  # else the parent has been told, and says it
            print(f"limpet {role}: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED if isinstance(error, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        return 0
    return 0


def _say_slow(readiness: Readiness, message: str, where: str | None) -> None:
    remedy = "Let the module do at import only what ends soon; `limpet check` imports it alone."
    readiness.failed(str(ConfigError(message, where=where, remedy=remedy)))


def _claim(
    settings: Settings, role: IndexedRole, count: int, wanted: int, *, waits: bool
) -> tuple[int, FileLock]:
    while True:
        try:
            return claim_index(settings.run_dir, role, count, wanted)
        except HeldElsewhere:
            if not waits:
                raise
            time.sleep(STANDBY_LOOK_S)


def metrics_port(settings: Settings, role: IndexedRole, index: int) -> int:
    """The TCP port on which this process shows its metrics, 0 for none.

    METRICS_PORT is the first of a row, as several processes of one machine cannot share one:
    gateway *i* takes METRICS_PORT + i, shard *i* takes METRICS_PORT + GATEWAYS + i.
    """
    if not settings.metrics_port:
        return 0
    return settings.metrics_port + index + (settings.gateways if role == "shard" else 0)


async def _serve(
    role: IndexedRole, index: int, settings: Settings, make: MakeService, readiness: Readiness
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics(role, index)
    service = make(settings, index, metrics)
    admin = AdminServer(
        health=service.health,
        render_metrics=metrics.render,
        status=service.status,
        commands=service.commands(),
    )
    await admin.start(socket_path(settings.run_dir, role, index))
    try:
        starting = asyncio.ensure_future(service.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if port := metrics_port(settings, role, index):
                await admin.start_tcp(settings.host, port)
            readiness.ready(await starting)
            await stopping
        else:
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
        log.info("process.stopping")
    finally:
        try:
            async with asyncio.timeout(settings.stop_timeout_s):
                await service.stop()
        except TimeoutError:
            log.warning("process.stop_timed_out", after_s=settings.stop_timeout_s)
        await admin.close()
