"""The gateway as a whole: stopping, health, status."""

from __future__ import annotations

import asyncio
import socket

import pytest

from common.errors import ConfigError
from common.link.records import CLOSED, Record
from common.metrics import Metrics
from common.settings import Settings
from gateway.server import Gateway
from tests.gateway.support import (
    close_frame,
    handshake,
    server_close,
    settle,
    world,
)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOING = server_close(1001, "The gateway is stopping")


async def test_stopping() -> None:
    """WebSockets 1001, told to the shard; requests under way answered; idle connections ended."""
    async with world() as w:
        talking, rude = await w.upgraded(), await w.upgraded()
        idle, busy, upgrading = w.connect(), w.connect(), w.connect()
        kept: list[Record] = []
        w.shard.on_request = kept.append
        busy.send(GET)
        upgrading.send(handshake())
        await w.shard.until(lambda: len(kept) == 2)
        stopping = asyncio.create_task(w.gateway.stop())
        await talking.expect(GOING)
        await rude.expect(GOING)
        assert await idle.read_all() == b""
        talking.send(close_frame(1001))
        assert await talking.read_all() == b""
        await w.shard.next_of(CLOSED)
        for record in kept:
            if record[3][3]:
                w.shard.accept(record[1])
            else:
                w.shard.respond(record[1], 200, [], b"done")
        response = await busy.read_response()
        assert (response.body, response.header("Connection")) == (b"done", "close")
        assert (await upgrading.read_response()).status == 503
        await settle()
        assert not stopping.done()
        await w.pass_time(6)
        await stopping
        assert rude.lost
        assert len(w.shard.of_kind(CLOSED)) == 3  # the socket that came too late, too
        late = w.connect()
        late.send(GET)
        assert (await late.read_response()).status == 503


async def test_stopping_with_nobody_there() -> None:
    async with world() as w:
        async with asyncio.timeout(1):
            await w.gateway.stop()


async def test_stopping_does_not_wait_for_ever() -> None:
    async with world(stop_timeout_s=0.1) as w:
        client = await w.upgraded()
        await w.gateway.stop()
        await settle()
        assert client.lost


async def test_health_and_status() -> None:
    async with world(shards=2) as w:
        client = await w.upgraded()
        w.connect()
        assert w.gateway.health().ok
        status = w.gateway.status()
        assert (status["clients"], status["http"], status["websockets"]) == (2, 1, 1)
        client.transport.abort()


async def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings.load({}, {"port": port})
        gateway = Gateway(settings, 0, Metrics("gateway", 0))
        with pytest.raises(ConfigError, match="in use") as caught:
            await gateway.listen()
        assert f"PORT={port}" in str(caught.value)
