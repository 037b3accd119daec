"""Rooms in which every member gets every message, and objects that sleep, with held sockets."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from workers import DurableObject, Request, Response, WebSocketPair, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """`/room/N` joins room N; `/sleeper/N` is the object that sleeps."""

    async def fetch(self, request: Request) -> Response:
        path = urlparse(request.url).path
        if path.startswith("/room/"):
            objects = self.env.ROOM
        elif path.startswith("/sleeper/"):
            objects = self.env.SLEEPER
        else:
            return Response(None, status=400)
        return await objects.get(objects.idFromName(path)).fetch(request)  # type: ignore[no-any-return]


class Room(DurableObject):
    """One room; a message of one member goes to all."""

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws: Any, message: str) -> None:
        for member in self.ctx.getWebSockets():
            member.send(message)

    async def webSocketClose(self, ws: Any, code: int, reason: str, was_clean: bool) -> None:
        ws.close(code, "Durable Object is closing WebSocket")


class Sleeper(DurableObject):
    """Echoes; a plain request is answered with how many messages this life of it has seen."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.messages = 0

    async def fetch(self, request: Request) -> Response:
        if request.headers.get("Upgrade") != "websocket":
            return Response(str(self.messages))
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws: Any, message: str) -> None:
        self.messages += 1
        ws.send(message)

    async def webSocketClose(self, ws: Any, code: int, reason: str, was_clean: bool) -> None:
        ws.close(code, "Durable Object is closing WebSocket")
