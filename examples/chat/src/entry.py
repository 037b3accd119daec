"""Chat rooms by name: every room is one object, its history in its own SQLite file.

The sockets are hibernatable, so a room that is silent costs no memory, and nobody is disconnected
when its process is restarted, crashes or takes new code.
"""

import json
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from workers import (
    DurableObject,
    Response,
    WebSocketPair,
    WebSocketRequestResponsePair,
    WorkerEntrypoint,
)

PAGE = (Path(__file__).parent / "index.html").read_text()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    # What people say is shown as text, never as HTML; should that fail, it still loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
}
HISTORY_LENGTH = 50
MAX_NAME_CHARS = 32
MAX_TEXT_CHARS = 2000


class ChatRoom(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec(
            "CREATE TABLE IF NOT EXISTS messages "
            "(id INTEGER PRIMARY KEY, name TEXT, text TEXT, at_ms INTEGER)"
        )
        # Answered at the edge, without waking the room.
        ctx.setWebSocketAutoResponse(WebSocketRequestResponsePair("ping", "pong"))

    async def fetch(self, request):
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        for row in reversed(self.recent()):
            server.send(json.dumps({"type": "message", **row}))
        return Response(None, status=101, web_socket=client)

    def webSocketMessage(self, ws, message):
        try:
            said = json.loads(message)
            kind = said["type"]
            value = str(said["name" if kind == "join" else "text"]).strip()
        except (ValueError, KeyError, TypeError):
            ws.send(json.dumps({"type": "error", "text": "Send JSON with a type, see README.md."}))
            return
        member = ws.deserializeAttachment()
        if kind == "join":
            name = value[:MAX_NAME_CHARS] or "somebody"
            ws.serializeAttachment({"name": name})
            self.tell({"type": "joined", "name": name, "members": self.members()})
        elif member is None:
            ws.send(json.dumps({"type": "error", "text": "Join with a name first."}))
        elif value:
            self.say(member["name"], value[:MAX_TEXT_CHARS])

    def webSocketClose(self, ws, code, reason, was_clean):
        member = ws.deserializeAttachment()
        if member is not None:
            members = self.members(without=ws)
            self.tell({"type": "left", "name": member["name"], "members": members})

    def say(self, name, text):
        at_ms = int(time.time() * 1000)
        insert = "INSERT INTO messages (name, text, at_ms) VALUES (?, ?, ?) RETURNING id"
        number = self.sql.exec(insert, name, text, at_ms).one()["id"]
        self.sql.exec("DELETE FROM messages WHERE id <= ?", number - HISTORY_LENGTH)
        self.tell({"type": "message", "id": number, "name": name, "text": text, "at_ms": at_ms})

    def tell(self, news):
        text = json.dumps(news)
        for ws in self.ctx.getWebSockets():
            ws.send(text)

    def members(self, without=None):
        attached = [
            ws.deserializeAttachment() for ws in self.ctx.getWebSockets() if ws is not without
        ]
        return sorted(member["name"] for member in attached if member is not None)

    def recent(self):
        rows = self.sql.exec(
            "SELECT id, name, text, at_ms FROM messages ORDER BY id DESC LIMIT ?", HISTORY_LENGTH
        )
        return [dict(row) for row in rows.toArray()]


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = urlsplit(request.url).path
        if path == "/":
            return Response(PAGE, headers=HEADERS)
        if not path.startswith("/rooms/") or path == "/rooms/":
            return Response("There is /, and /rooms/NAME for WebSockets.", status=404)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return Response("Expected Upgrade: websocket", status=426)
        room = self.env.ROOMS.getByName(unquote(path.removeprefix("/rooms/")))
        return await room.fetch(request)
