"""Bodies that are never in memory as a whole: /entry/… by the entry point, /object/… by an object."""

from __future__ import annotations

import asyncio
import hashlib
from urllib.parse import parse_qs, urlparse

from workers import DurableObject, Response, WorkerEntrypoint

CHUNK = bytes(range(256)) * 256


async def answer(request):
    url = urlparse(request.url)
    if url.path.endswith("/download"):
        count = int(parse_qs(url.query)["chunks"][0])
        return Response(chunks(count), headers={"Content-Type": "application/octet-stream"})
    if url.path.endswith("/upload"):
        return Response(await digest(request.body))
    if url.path.endswith("/reader"):
        return Response(await digest_by_reader(request.body.getReader()))
    if url.path.endswith("/mirror"):
        return Response(request.body)
    return Response("?", status=404)


async def chunks(count):
    for _ in range(count):
        yield CHUNK
        await asyncio.sleep(0)


async def digest(stream):
    hashed = hashlib.sha256()
    async for chunk in stream:
        hashed.update(chunk)
    return hashed.hexdigest()


async def digest_by_reader(reader):
    """As JavaScript reads a stream: chunks are Uint8Arrays there."""
    hashed = hashlib.sha256()
    while True:
        result = await reader.read()
        if result.done:
            return hashed.hexdigest()
        hashed.update(result.value.to_py())


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if urlparse(request.url).path.startswith("/object/"):
            return await self.env.SINKS.getByName("sink").fetch(request)
        return await answer(request)


class Sink(DurableObject):
    async def fetch(self, request):
        return await answer(request)
