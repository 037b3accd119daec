"""Answers of every kind, given by an object and passed on as they are."""

from __future__ import annotations

import asyncio
from urllib.parse import urlparse

from js import WebSocketPair

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        # /SITE/what: tests have sites of their own.
        site = urlparse(request.url).path.split("/")[1]
        return await self.env.SITES.getByName(site).fetch(request)


class Site(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.going_on = asyncio.Event()
        self.story = []

    async def fetch(self, request):
        what = urlparse(request.url).path.split("/")[2]
        return await getattr(self, f"on_{what}")(request)

    async def on_cookies(self, request):
        response = Response("crumbs", headers=[("Set-Cookie", "a=1, 2; Path=/")])
        response.headers.append("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT")
        response.headers.append("X-Several", "1")
        response.headers.append("X-Several", "2")
        return response

    async def on_method(self, request):
        return Response(f"{request.method} it is", headers={"X-Method": request.method})

    async def on_empty(self, request):
        return Response(None, status=204, headers={"X-Empty": "yes"})

    async def on_unchanged(self, request):
        if request.headers.get("If-None-Match") == '"v1"':
            return Response(None, status=304, headers={"ETag": '"v1"'})
        return Response("version 1", headers={"ETag": '"v1"'})

    async def on_reason(self, request):
        return Response("short and stout", status=418, status_text="A Teapot Indeed")

    async def on_away(self, request):
        return Response.redirect("https://elsewhere.example/path?a=b", 307)

    async def on_home(self, request):
        return Response(None, status=302, headers={"Location": "method"})

    async def on_socket(self, request):
        header = request.headers.get("Sec-WebSocket-Protocol", "")
        offered = [name.strip() for name in header.split(",")]
        client, server = WebSocketPair.new().object_values()
        server.accept()
        server.send(f"offered {offered}")
        return Response(
            None,
            status=101,
            headers={"Sec-WebSocket-Protocol": offered[-1], "X-Site": "here", "Set-Cookie": "s=1"},
            web_socket=client,
        )

    async def on_slow(self, request):
        self.story.append("began")
        try:
            await self.going_on.wait()
        finally:
            self.story.append("went on")
        self.ctx.storage.kv.put("written", True)
        self.story.append("ended")
        return Response("nobody reads this")

    async def on_release(self, request):
        self.going_on.set()
        return Response("released")

    async def on_story(self, request):
        return Response.json([*self.story, self.ctx.storage.kv.get("written")])
