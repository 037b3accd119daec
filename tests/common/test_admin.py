from __future__ import annotations

import socket
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from common.admin import AdminServer, Health, socket_path
from common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def path() -> Iterator[Path]:
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        yield socket_path(Path(folder), "shard", 0)


@asynccontextmanager
async def serving(path: Path, health: Health | None = None) -> AsyncIterator[AdminServer]:
    server = AdminServer(
        health=lambda: health or Health(True, {"links": 2}),
        render_metrics=lambda: b"a_total 1.0\n",
        status=lambda: {"app": Path("/app")},
    )
    await server.start(path)
    try:
        yield server
    finally:
        await server.close()


async def get(path: Path, route: str) -> tuple[int, str, str]:
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://admin{route}") as response,
    ):
        return response.status, response.headers["Content-Type"], await response.text()


async def test_health_metrics_and_status(path: Path) -> None:
    async with serving(path):
        assert path.name == "shard-0.admin.sock"
        assert await get(path, "/health") == (
            200,
            "application/json; charset=utf-8",
            '{"ok": true, "links": 2}',
        )
        status, media_type, text = await get(path, "/metrics")
        assert (status, text) == (200, "a_total 1.0\n")
        assert media_type.startswith("text/plain; version=0.0.4")
        assert (await get(path, "/status"))[2] == '{"app": "/app"}'
        assert (await get(path, "/other"))[0] == 404


async def test_a_process_that_cannot_work_is_503(path: Path) -> None:
    async with serving(path, Health(False)):
        assert (await get(path, "/health"))[0] == 503


async def test_only_the_owner_may_connect_and_nothing_is_left_behind(path: Path) -> None:
    async with serving(path) as server:
        assert path.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240
    assert not path.exists()  # noqa: ASYNC240
    await server.close()


async def test_a_socket_left_behind_by_a_killed_process_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path):
        assert (await get(path, "/health"))[0] == 200


async def test_a_folder_that_is_missing_is_a_clear_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen: No such file or directory"):
        async with serving(path.parent / "none" / "x.sock"):
            pass


async def test_tcp_shows_metrics_and_health_but_not_status(
    path: Path, unused_tcp_port: int
) -> None:
    async with serving(path) as server:
        await server.start_tcp("127.0.0.1", unused_tcp_port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{unused_tcp_port}") as session:
            for route, status in {"/metrics": 200, "/health": 200, "/status": 404}.items():
                async with session.get(route) as response:
                    assert response.status == status


async def test_a_port_in_use_is_a_clear_error(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serving(path) as server:
            with pytest.raises(ConfigError, match=f"METRICS_PORT={port}: cannot listen on"):
                await server.start_tcp("127.0.0.1", port)
