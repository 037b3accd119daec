"""The reference program's visible behaviour in one aiohttp process on uvloop, without objects.

    python aiohttp_echo.py PORT

It shows what Python does with no gateway, no shard and no guarantee in between. Beside
`/websocket` it serves `/room/N`, in which every member gets every message.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict

import uvloop
from aiohttp import WSMsgType, web


class Counter:
    """How many WebSockets are connected now; the one object named `foo`."""

    def __init__(self) -> None:
        self.connected = 0

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """Answer each text or binary message with the count, until the client closes."""
        if request.headers.get("Upgrade") != "websocket":
            return web.Response(status=426, text="Durable Object expected Upgrade: websocket")
        socket = web.WebSocketResponse(autoclose=False, compress=False)
        await socket.prepare(request)
        self.connected += 1
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await socket.send_str(
                        f"[Durable Object] currentlyConnectedWebSockets: {self.connected}"
                    )
        finally:
            self.connected -= 1
        code = socket.close_code if socket.close_code is not None else 1005
        await socket.close(code=code, message=b"Durable Object is closing WebSocket")
        return socket


class Rooms:
    """Members by room number; a message of one goes to all of its room."""

    def __init__(self) -> None:
        self.members: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """Relay this member's messages until it closes."""
        members = self.members[request.match_info["room"]]
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        members.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    for member in tuple(members):
                        await member.send_str(message.data)
        finally:
            members.discard(socket)
        return socket


async def bad_request(request: web.Request) -> web.Response:
    """Anything else, as the reference program answers it."""
    return web.Response(status=400)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    app = web.Application()
    app.router.add_get("/room/{room}", Rooms().fetch)
    app.router.add_get("/{path:(?:.*/)?websocket}", Counter().fetch)
    app.router.add_route("*", "/{path:.*}", bad_request)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.disable()  # clients that leave in mid-message are no news here
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(serve(int(sys.argv[1])))
