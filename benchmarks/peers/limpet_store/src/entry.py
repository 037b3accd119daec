"""Objects that count in their storage: `/put/N` counts one more, `/get/N` reads the count.

`/echo/N` is an object that stores nothing: it shows what others wait for the disk of one.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from workers import DurableObject, Request, Response, WebSocketPair, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Hands a request to the object that the end of its path names."""

    async def fetch(self, request: Request) -> Response:
        path = urlparse(request.url).path
        _, verb, name = f"{path}//".split("/")[:3]
        if verb in ("put", "get"):
            objects = self.env.CELL
        elif verb == "echo":
            objects = self.env.ECHO
        else:
            return Response(None, status=404)
        return await objects.get(objects.idFromName(name)).fetch(request)  # type: ignore[no-any-return]


class Cell(DurableObject):
    """One count: it is in memory, and each change of it is in storage before it is told."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.count = 0

    async def fetch(self, request: Request) -> Response:
        storage = self.ctx.storage
        if urlparse(request.url).path.startswith("/get/"):
            return Response(f"count {await storage.get('count') or 0}")
        self.count += 1
        await storage.put("count", self.count)
        return Response(f"count {self.count}")


class Echo(DurableObject):
    """Sends each message back."""

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws: Any, message: str) -> None:
        ws.send(message)
