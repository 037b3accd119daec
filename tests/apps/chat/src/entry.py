"""A chat with rooms: hibernatable sockets, and a page that lies next to the module."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from js import WebSocketPair

from workers import DurableObject, Response, WorkerEntrypoint

PAGE = Path(__file__).parent / "page.html"


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = urlparse(request.url).path
        if path == "/":
            return Response(PAGE.read_text(), headers={"Content-Type": "text/html;charset=utf-8"})
        if path.startswith("/room/"):
            room = path.removeprefix("/room/")
            return await self.env.ROOMS.get(self.env.ROOMS.idFromName(room)).fetch(request)
        return Response("Not found", status=404)


class Room(DurableObject):
    def __init__(self, state, env):
        self.state = state
        self.env = env
        kv = self.state.storage.kv
        kv.put("lives", (kv.get("lives") or 0) + 1)

    async def fetch(self, request):
        if request.headers.get("Upgrade") != "websocket":
            lives = self.state.storage.kv.get("lives")
            return Response.json({"here": len(self.state.getWebSockets()), "lives": lives})
        client, server = WebSocketPair.new().object_values()
        self.state.acceptWebSocket(server)
        nick = parse_qs(urlparse(request.url).query)["nick"][0]
        server.serializeAttachment({"nick": nick})
        # Sent before the client has its 101: it waits for it.
        past = await self.state.storage.get("past") or []
        server.send(json.dumps({"past": past, "here": len(self.state.getWebSockets())}))
        self.tell({"joined": nick}, but=server)
        return Response(None, status=101, web_socket=client)

    async def webSocketMessage(self, ws, message):
        nick = ws.deserializeAttachment()["nick"]
        if not isinstance(message, str):
            ws.send(json.dumps({"bytes": len(message.to_bytes()), "sum": sum(message.to_py())}))
            return
        past = await self.state.storage.get("past") or []
        past.append([nick, message])
        await self.state.storage.put("past", past[-3:])
        self.tell({"from": nick, "text": message})

    async def webSocketClose(self, ws, code, reason, was_clean):
        ws.close(code, reason)
        self.tell({"left": ws.deserializeAttachment()["nick"], "code": code}, but=ws)

    async def webSocketError(self, ws, error):
        self.tell({"failed": ws.deserializeAttachment()["nick"]}, but=ws)

    def tell(self, message, but=None):
        text = json.dumps(message)
        for ws in self.state.getWebSockets():
            if ws != but:
                ws.send(text)
