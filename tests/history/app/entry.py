"""A room that tells all members of each message, and notices a message that is lost or repeated."""

# mypy: ignore-errors
from __future__ import annotations

import json
import os

from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

if os.environ.get("PLANTED_BUG"):
    # Acknowledge before handling: the fault that the history checker has to find.
    import asyncio

    from common.link.records import FRAMES
    from shard.host import Shard

    handle = Shard.link_records

    def link_records(self, link, records):
        loop = asyncio.get_running_loop()
        for record in records:
            if record[0] == FRAMES:
                loop.call_later(0.05, lambda record=record: handle(self, link, [record]))
            else:
                handle(self, link, [record])

    Shard.link_records = link_records


class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.closed = []

    async def fetch(self, request):
        name = request.url.rsplit("/", 1)[-1]
        if name == "who":
            members = [ws.deserializeAttachment()["name"] for ws in self.ctx.getWebSockets()]
            return Response(json.dumps(members))
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server, [name])
        server.serializeAttachment({"name": name, "last": 0})
        return Response(None, status=101, web_socket=client)

    def webSocketMessage(self, ws, message):
        number = int(message)
        known = ws.deserializeAttachment()
        if number != known["last"] + 1:
            known["fault"] = f"{number} after {known['last']}"
        ws.serializeAttachment({**known, "last": number})
        news = json.dumps([known["name"], number, known.get("fault")])
        for member in self.ctx.getWebSockets():
            member.send(news)

    def webSocketClose(self, ws, code, reason, was_clean):
        pass


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.ROOM.getByName(request.url.split("/")[3]).fetch(request)
