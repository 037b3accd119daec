"""The life of one gateway: listen, link to the shards, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
from collections.abc import Mapping
from typing import Final, final

import structlog

from common.admin import AdminCommand, Health
from common.clock import Clock, SystemClock
from common.close_reasons import STOPPING
from common.errors import ConfigError
from common.heap import give_back_freed_memory
from common.link.transport import Transport
from common.link.unix import UnixTransport
from common.membership import FileMembership, Membership
from common.metrics import Metrics
from common.settings import Settings
from gateway.connection import Connection
from gateway.context import Context
from gateway.deadlines import TICK_S
from gateway.http import HttpConnection
from gateway.router import Router

log = structlog.get_logger(__name__)

BACKLOG: Final = 4096
DESCRIPTOR_RESERVE: Final = 64
"""Descriptors kept for links, logs and the like."""
TRIM_CLIENTS: Final = 1000
"""When half of at least twice as many clients have left, their memory is given back."""
STOP_MARGIN_S: Final = 0.5
"""Of STOP_TIMEOUT_S, for saying goodbye to the shards after the last client."""


@final
class Gateway:
    """One gateway, in a process of its own or beside others in one event loop.

    Args:
        settings: of the cluster.
        index: which gateway this is.
        metrics: where it counts.
        transport: makes the links; by default over Unix sockets in RUN_DIR.
        membership: which shards there are; by default those that RUN_DIR says.
        clock: where time comes from.
        rng: source of jitter.
    """

    def __init__(
        self,
        settings: Settings,
        index: int,
        metrics: Metrics,
        *,
        transport: Transport | None = None,
        membership: Membership | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self.context = Context(
            settings, clock or SystemClock(), metrics, _max_connections(settings)
        )
        self._file: FileMembership | None = None
        if membership is None:
            membership = self._file = FileMembership(settings.run_dir, settings.shards)
        self.router = Router(
            index,
            self.context,
            transport or UnixTransport(settings.run_dir),
            membership,
            rng or random.Random(),  # noqa: S311 - jitter, not secrets
        )
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._most_clients = 0
        metrics.gauge(
            "limpet_gateway_clients", "Clients connected.", lambda: self.context.open_connections
        )
        metrics.gauge(
            "limpet_gateway_websockets", "WebSockets open.", lambda: len(self._connections())
        )
        metrics.gauge("limpet_gateway_shards", "Shards linked.", lambda: self.router.shards_up)

    # --- Service -------------------------------------------------------------------------------

    async def start(self) -> Mapping[str, object]:
        """Listen on HOST and PORT, and wait for the first shard.

        Raises:
            ConfigError: the address cannot be had.
        """
        await self.listen()
        self.run()
        await self.router.wait_linked()
        log.info("gateway.ready", host=self._settings.host, port=self._settings.port)
        return {"host": self._settings.host, "port": self._settings.port}

    async def stop(self) -> None:
        """Drain: no new clients, WebSockets closed with 1001, requests under way answered."""
        self.context.stopping = True
        for server in self._servers:
            server.close()
        empty = asyncio.Event()
        self.context.emptied = empty.set
        for http in list(self.context.http_connections):
            http.stop()
        for connection in self._connections():
            connection.close_by_gateway(*STOPPING[:2])
        try:
            if self.context.open_connections:
                limit_s = max(self._settings.stop_timeout_s - STOP_MARGIN_S, 0.05)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limit_s):
                        await empty.wait()
        finally:
            for http in list(self.context.http_connections):
                http.drop()
            for connection in self._connections():
                connection.drop()
            if self._file is not None:
                self._file.stop()
            await self.router.close()
            if self._ticker is not None:
                self._ticker.cancel()
                self._ticker = None

    def health(self) -> Health:
        """Fine while at least one shard is linked and it is not stopping."""
        detail = {"shards_up": self.router.shards_up, "stopping": self.context.stopping}
        return Health(self.router.shards_up > 0 and not self.context.stopping, detail)

    def commands(self) -> Mapping[str, AdminCommand]:
        """None."""
        return {}

    def status(self) -> Mapping[str, object]:
        """Clients, and each shard's link."""
        return {
            "clients": self.context.open_connections,
            "http": len(self.context.http_connections),
            "websockets": len(self._connections()),
            "stopping": self.context.stopping,
            "shards": [
                {
                    "shard": shard,
                    "up": relay.is_up,
                    "websockets": len(relay.connections),
                    "requests": len(relay.requests),
                    "queued_bytes": relay.session.queued_bytes if relay.session else 0,
                }
                for shard, relay in self.router.relays.items()
            ],
        }

    # --- parts, for use within another process -------------------------------------------------

    def run(self) -> None:
        """Dial the shards and let time pass, without listening."""
        if self._file is not None:
            self._file.start()
        self.router.start()
        self._tick()

    def client(self) -> HttpConnection:
        """The protocol for one new client connection."""
        return HttpConnection(self.context, self.router)

    async def listen(self) -> None:
        """Accept clients.

        Raises:
            ConfigError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        for sock in _sockets(self._settings):
            server = await loop.create_server(self.client, sock=sock, backlog=BACKLOG)
            self._servers.append(server)

    def _connections(self) -> list[Connection]:
        return [
            connection
            for relay in self.router.relays.values()
            for connection in relay.all_connections()
        ]

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.context.deadlines.advance(self.context.clock.monotonic_s())
        clients = self.context.open_connections
        self._most_clients = max(self._most_clients, clients)
        if clients + TRIM_CLIENTS < self._most_clients // 2:
            self._most_clients = clients
            give_back_freed_memory()


def _sockets(settings: Settings) -> list[socket.socket]:
    host, port = settings.host, settings.port
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.gateways > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            where=f"PORT={port}",
            remedy="Set PORT to a free port, or HOST to an address of this machine.",
        ) from error
    return sockets


def _max_connections(settings: Settings) -> int:
    if settings.max_connections:
        return settings.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(soft - DESCRIPTOR_RESERVE, 16)
