"""Objects that number their writes: ``POST /name`` writes, ``GET /name`` tells and compares."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from workers import DurableObject, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Any:
        stub = self.env.LEDGERS.getByName(urlparse(request.url).path)
        return Response.json(await (stub.write() if request.method == "POST" else stub.tell()))


class Ledger(DurableObject):
    def write(self) -> int:
        """One commit in two tables, of many pages."""
        storage = self.ctx.storage
        number = (storage.kv.get("n") or 0) + 1
        storage.kv.put("n", number)
        storage.sql.exec("CREATE TABLE IF NOT EXISTS t (n, pad)")
        storage.sql.exec("INSERT INTO t VALUES (?, ?)", number, "x" * 9000)
        return number

    def tell(self) -> list[int]:
        number = self.ctx.storage.kv.get("n") or 0
        if not number:
            return [0, 0, 0]
        rows = self.ctx.storage.sql.exec("SELECT count(*) AS c, max(n) AS m FROM t").one()
        return [number, rows.c, rows.m]
