"""Two objects, of which one calls the other: `/rpc` has it make 4,096 calls, 64 in flight.

With two shards their names put each of the objects on a shard of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlparse

from workers import DurableObject, Request, Response, WorkerEntrypoint

RPC_CALLS = 4096
IN_FLIGHT = 64
CALLER, CALLEE = "one", "one"


class Default(WorkerEntrypoint):
    """Tells the caller to begin."""

    async def fetch(self, request: Request) -> Response:
        if urlparse(request.url).path != "/rpc":
            return Response(None, status=404)
        total = await self.env.CALLER.getByName(CALLER).run()
        return Response(f"{RPC_CALLS} calls, {total}")


class Caller(DurableObject):
    """Calls the callee."""

    async def run(self) -> int:
        callee: Any = self.env.CALLEE.getByName(CALLEE)

        async def call() -> int:
            total = 0
            for number in range(RPC_CALLS // IN_FLIGHT):
                total += await callee.add(number, 1)
            return total

        return sum(await asyncio.gather(*(call() for _ in range(IN_FLIGHT))))


class Callee(DurableObject):
    """Adds."""

    def add(self, a: int, b: int) -> int:
        return a + b
