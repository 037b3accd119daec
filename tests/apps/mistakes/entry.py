"""Mistakes that authors make, one for each path."""

from __future__ import annotations

import time

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        what = request.url.rsplit("/", 1)[-1]
        room = self.env.ROOMS.getByName(what)
        match what:
            case "misspelt":
                return await self.env.ROMS.getByName("a").fetch(request)
            case "nothing":
                return None
            case "unawaited-fetch":
                return room.fetch(request)
            case "unawaited-call":
                return Response(room.count())
            case "unawaited-value":
                return Response.json({"count": room.count() + 1})
            case "unawaited-storage":
                return Response(str(await room.reads_too_early()))
            case "misspelt-method":
                return Response(str(await room.conut()))
        return await room.fetch(request)


class Room(DurableObject):
    def fetch(self, request):
        match request.url.rsplit("/", 1)[-1]:
            case "object-nothing":
                return None
            case "object-raises":
                return self.broken()
            case "blocks":
                time.sleep(0.5)
        return Response("fine")

    def broken(self):
        raise LookupError("there is no such chair")

    def count(self):
        return 1

    async def reads_too_early(self):
        return self.ctx.storage.get("a") or "nothing"
