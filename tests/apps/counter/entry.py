"""Counters by name, each behind a URL of its own: everything goes through fetch."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        query = parse_qs(urlparse(request.url).query)
        if "name" not in query:
            return Response("Select a counter by name: ?name=A", status=400)
        id = self.env.COUNTERS.idFromName(query["name"][0])
        answer = await self.env.COUNTERS.get(id).fetch(request)
        count = await answer.text()
        return Response(f"{query['name'][0]}: {count}", status=answer.status)


class Counter(DurableObject):
    async def fetch(self, request):
        path = urlparse(request.url).path
        value = await self.ctx.storage.get("value") or 0
        if path == "/increment":
            value += 1
        elif path == "/decrement":
            value -= 1
        elif path != "/":
            return Response("?", status=404)
        # No other request of this counter came in between: storage lets nobody in.
        await self.ctx.storage.put("value", value)
        return Response(str(value))
