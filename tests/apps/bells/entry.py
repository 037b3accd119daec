"""Alarms that note when they rang.

======================================= ========================================================
``POST /set?names=a,b&at_ms=1&work_ms=2`` sets an alarm for each; its handler works for so long
``GET /rung?names=a,b``                 what each has noted, as JSON
``GET /late``                           how late those rang that this process has rung, in ms
======================================= ========================================================
"""

import asyncio
import time
from urllib.parse import parse_qs, urlparse

from workers import DurableObject, Response, WorkerEntrypoint

late_ms = []


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        url = urlparse(request.url)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/late":
            return Response.json(sorted(late_ms))
        names = query["names"].split(",")
        bells = [self.env.BELLS.getByName(name) for name in names]
        if url.path == "/set":
            at_ms, work_ms = int(query["at_ms"]), int(query.get("work_ms", "0"))
            apart_ms = float(query.get("apart_ms", "0"))
            calls = [
                bell.set(int(at_ms + apart_ms * number), work_ms)
                for number, bell in enumerate(bells)
            ]
            return Response.json(dict(zip(names, [await call for call in calls], strict=True)))
        return Response.json(dict(zip(names, [await bell.rung() for bell in bells], strict=True)))


class Bell(DurableObject):
    async def set(self, at_ms, work_ms):
        self.ctx.storage.kv.put("work_ms", work_ms)
        await self.ctx.storage.setAlarm(at_ms)
        return await self.ctx.storage.getAlarm()

    async def rung(self):
        kv = self.ctx.storage.kv
        return {
            "began": kv.get("began") or [],
            "ended": kv.get("ended") or 0,
            "due": await self.ctx.storage.getAlarm(),
            "name": self.ctx.id.name,
        }

    async def alarm(self, info):
        now_ms = time.time() * 1000
        late_ms.append(now_ms - info.scheduledTime)
        kv = self.ctx.storage.kv
        kv.put("began", [*(kv.get("began") or []), [info.scheduledTime, now_ms, self.ctx.id.name]])
        if work_ms := kv.get("work_ms"):
            await asyncio.sleep(work_ms / 1000)
        kv.put("ended", (kv.get("ended") or 0) + 1)
