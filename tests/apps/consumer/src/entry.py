"""Follows a stream of events over an outgoing WebSocket, and keeps what it has learned."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlparse

import js
from pyodide.ffi import create_proxy

from workers import DurableObject, Response, WorkerEntrypoint

RETRY_MS = 5_000


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        id = self.env.CONSUMER.idFromName("the one")
        return await self.env.CONSUMER.get(id).fetch(request)


class Consumer(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.kv = self.ctx.storage.kv
        self.websocket = None
        self.opened = False

    async def fetch(self, request):
        url = urlparse(request.url)
        if url.path == "/follow":
            self.kv.put("url", parse_qs(url.query)["url"][0])
            self.connect()
            return Response("connecting", status=202)
        return Response.json(
            {
                "opened": self.opened,
                "likes": self.kv.get("likes") or 0,
                "closed": self.kv.get("closed"),
                "retry": await self.ctx.storage.getAlarm() is not None,
            }
        )

    async def alarm(self):
        if self.websocket is None:
            self.connect()

    def connect(self):
        self.websocket = js.WebSocket.new(self.kv.get("url"))
        self.websocket.addEventListener("open", create_proxy(self.on_open))
        self.websocket.addEventListener("message", create_proxy(self.on_message))
        self.websocket.addEventListener("error", create_proxy(self.on_error))
        self.websocket.addEventListener("close", create_proxy(self.on_close))

    def on_open(self, event):
        self.opened = True
        self.websocket.send(json.dumps({"wanted": "likes"}))

    async def on_message(self, event):
        message = json.loads(event.data)
        if message["kind"] == "like":
            self.kv.put("likes", (self.kv.get("likes") or 0) + 1)
        elif message["kind"] == "poison":
            # This life is of no use any more; the next one starts over from what is stored.
            self.ctx.abort("the stream is poisoned")

    def on_error(self, event):
        self.kv.put("closed", "error")

    async def on_close(self, event):
        self.websocket = None
        self.opened = False
        self.kv.put("closed", f"{event.code} {event.reason}")
        await self.ctx.storage.setAlarm(int(js.Date.now() + RETRY_MS))
