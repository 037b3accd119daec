"""A WebSocket through an object by the regular API, as the SDK's own test does it."""

from __future__ import annotations

from js import WebSocketPair
from pyodide.ffi import create_proxy

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.ECHOES.getByName("echo").fetch(request)


class Echo(DurableObject):
    async def fetch(self, request):
        if request.headers.get("Upgrade") != "websocket":
            return Response("Expected Upgrade: websocket", status=426, status_text="Upgrade First")
        client, server = WebSocketPair.new().object_values()
        server.accept()

        async def on_message(event):
            server.send(f"echo: {event.data}" if isinstance(event.data, str) else event.data)

        def on_close(event):
            server.close(event.code, event.reason)

        server.addEventListener("message", create_proxy(on_message))
        server.addEventListener("close", create_proxy(on_close))
        server.send("welcome")
        return Response(None, status=101, web_socket=client)
