"""Rooms by name, for scenarios: /ROOM/echo, /ROOM/all (every member gets every message), …"""

from __future__ import annotations

import asyncio

from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        room = request.url.split("/")[3]
        return await self.env.ROOMS.getByName(room).fetch(request)


class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.members = set()
        self.released = asyncio.Event()

    async def fetch(self, request):
        what = request.url.split("/")[4]
        if request.headers.get("Upgrade") == "websocket":
            return self.upgrade(what)
        match what:
            case "members":
                return Response(str(len(self.members)))
            case "raise":
                raise ValueError("the room is on fire")
            case "none":
                return None
            case "refuse":
                return Response("no entry", status=403, headers={"X-Room": "full"})
            case "body":
                return Response((await request.bytes()).upper())
            case "hang":
                await self.released.wait()
                return Response("released")
            case "release":
                self.released.set()
                return Response("ok")
            case "abort":
                self.ctx.abort("closing time")
        return Response("?", status=404)

    def upgrade(self, what):
        if what == "refuse":
            return Response("no entry", status=403)
        client, server = WebSocketPair()
        server.accept()
        self.members.add(server)

        def on_message(event):
            match what:
                case "echo":
                    server.send(event.data)
                case "all":
                    for member in self.members:
                        member.send(event.data)
                case "burst":
                    for number in range(int(event.data)):
                        server.send(str(number))
                case "raise":
                    raise ValueError(event.data)
                case "close":
                    server.close(4000, "as you wish")

        async def on_slow_message(event):
            await asyncio.sleep(0)
            server.send(event.data)

        server.addEventListener("message", on_slow_message if what == "slow" else on_message)
        server.addEventListener("close", lambda event: self.members.discard(server))
        return Response(None, status=101, web_socket=client)
