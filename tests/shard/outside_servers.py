"""Servers that stand for the outside world, and apps that talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

TIMEOUT_S = 10.0
"""Nothing in these tests takes that long, unless it hangs."""


@asynccontextmanager
async def serve(handler: Callable[[Any], Any], ssl: Any = None) -> AsyncIterator[str]:
    """An HTTP server on 127.0.0.1 with one handler; its URL without a path."""
    runner = web.ServerRunner(web.Server(handler), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield f"http{'s' if ssl else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_raw(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    """A server that says exactly what *handler* writes."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield f"http://127.0.0.1:{port}"
    finally:
        for task in list(tasks):
            task.cancel()
        server.close()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def write_app(folder: Path, code: str, *classes: str) -> Path:
    """An app of one module; each class gets a binding of its name in capitals."""
    bindings = [{"name": each.upper(), "class_name": each} for each in classes]
    project: dict[str, Any] = {"name": "outside", "main": "entry.py"}
    if bindings:
        project["durable_objects"] = {"bindings": bindings}
        project["migrations"] = [{"tag": "v1", "new_sqlite_classes": list(classes)}]
    (folder / "wrangler.jsonc").write_text(json.dumps(project))
    (folder / "entry.py").write_text(code)
    return folder


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until *condition* holds."""
    while not condition():  # noqa: ASYNC110 - most conditions have no event
        await asyncio.sleep(0.001)
