"""Rooms in which every member gets every message: `/room/N` joins room N."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from workers import DurableObject, Request, Response, WebSocketPair, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Hands a WebSocket request to the room that its path names."""

    async def fetch(self, request: Request) -> Response:
        path = urlparse(request.url).path
        if not path.startswith("/room/"):
            return Response(None, status=400)
        if request.headers.get("Upgrade") != "websocket":
            return Response("Durable Object expected Upgrade: websocket", status=426)
        rooms = self.env.ROOM
        return await rooms.get(rooms.idFromName(path)).fetch(request)  # type: ignore[no-any-return]


class Room(DurableObject):
    """One room; its sockets are regular ones, as those of the peers are."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.members: set[Any] = set()

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        self.members.add(server)

        def on_message(event: Any) -> None:
            for member in self.members:
                member.send(event.data)

        def on_close(event: Any) -> None:
            self.members.discard(server)
            server.close(event.code, "Durable Object is closing WebSocket")

        server.addEventListener("message", on_message)
        server.addEventListener("close", on_close)
        return Response(None, status=101, web_socket=client)
