"""Lists of lines by name: calls to an object that keeps its state in storage."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

from pyodide.ffi import to_js

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        url = urlparse(request.url)
        query = parse_qs(url.query)
        if "list" not in query:
            return Response("Which list? Say ?list=NAME", status=400)
        id = self.env.LISTS.idFromName(query["list"][0])
        stub = self.env.LISTS.get(id)

        if url.path == "/add":
            count = await stub.add_line(query["line"][0])
            return Response(f"{count} lines", status=201)
        if url.path == "/":
            lines = await stub.get_lines()
            lines.append("(end)")  # what a call returns is an ordinary list of ours
            return Response("\n".join(lines))
        return Response("Not found", status=404)


class List(DurableObject):
    def __init__(self, state, env):
        # Without super().__init__(): Cloudflare's programs do without it, too.
        self.state = state
        self.env = env

    async def add_line(self, line):
        lines = await self.get_lines()
        lines.append(line)
        self.state.storage.put("lines", to_js(lines))
        return len(lines)

    async def get_lines(self):
        lines = await self.state.storage.get("lines")
        return lines if lines else []
