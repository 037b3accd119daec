"""The life of one gateway or shard process, the parts that both share.

Settings, logs, descriptors, the claim of an index, signals, readiness, the admin window: then the role's
own :class:`Service` runs until SIGTERM or SIGINT. What goes wrong before it serves is said in one
readable message, to the parent if there is one and on standard error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog
import uvloop

from common import logs
from common.admin import AdminServer, Health, socket_path
from common.errors import ConfigError, LimpetError
from common.heap import keep_freed_memory
from common.limits import raise_descriptor_limit
from common.metrics import Metrics
from common.ownership import IndexedRole, claim_index
from common.parent import PARENT_FD, follow_parent
from common.readiness import Readiness
from common.settings import Settings

log = structlog.get_logger(__name__)

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


MakeService = Callable[[Settings, int, Metrics], Service]


def run_role(role: IndexedRole, make: MakeService) -> int:
    """Run one process of *role* to its end; its exit status.

    0 after a stop that was asked for, 2 for a wrong setting or app, 1 for anything else.
    """
    readiness = Readiness.from_environ(os.environ)
    supervised = PARENT_FD in os.environ
    try:
        settings = Settings.load(os.environ)
        logs.configure(settings, role=role)
        follow_parent(os.environ, grace_s=settings.stop_timeout_s)
        raise_descriptor_limit()
        keep_freed_memory()
        count = settings.shards if role == "shard" else settings.gateways
        wanted = settings.shard_index if role == "shard" else settings.gateway_index
        index, lock = claim_index(settings.run_dir, role, count, wanted)
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


async def _serve(
    role: IndexedRole, index: int, settings: Settings, make: MakeService, readiness: Readiness
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics(role, index)
    service = make(settings, index, metrics)
    admin = AdminServer(health=service.health, render_metrics=metrics.render, status=service.status)
    await admin.start(socket_path(settings.run_dir, role, index))
    try:
        starting = asyncio.ensure_future(service.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            readiness.ready(await starting)
            if settings.metrics_port:
                await admin.start_tcp(settings.host, settings.metrics_port)
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
