"""What Cloudflare's SDK promises of objects, checked by a program that runs as it would there.

Each path is one check; it answers ``ok``, or fails with what was wrong.
"""

from __future__ import annotations

import asyncio

import pyodide
from js import Date
from pyodide.ffi import JsProxy, run_sync

from workers import DurableObject, FetchResponse, Request, Response, WorkerEntrypoint, env


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        assert isinstance(request, Request)
        assert pyodide.__version__ != "0.26.0a2"
        check = request.url.rsplit("/", 1)[-1]
        stub = self.env.OBJECTS.getByName(check)
        await getattr(self, f"check_{check}")(stub)
        return Response("ok")

    async def check_fetch(self, stub):
        response = await stub.fetch("http://object/path?a=b", method="POST", body="a body")
        assert isinstance(response, FetchResponse)
        assert response.status == 202
        assert await response.json() == {
            "method": "POST",
            "url": "http://object/path?a=b",
            "body": "a body",
        }
        forwarded = await stub.fetch(Request("http://object/again"))
        assert (await forwarded.json())["method"] == "GET"

    async def check_calls(self, stub):
        assert await stub.no_args() == "hello"
        assert await stub.arguments("a", b=[1, {"c": None}]) == ["a", [1, {"c": None}]]
        assert await stub.add(2, 3) == 5
        assert await stub.returns_none() is None
        row = await stub.row()
        assert (row["id"], row.id) == (7, 7)
        assert not isinstance(row, JsProxy)
        by_id = self.env.OBJECTS.get(self.env.OBJECTS.idFromName("calls"))
        assert await by_id.no_args() == "hello"

    async def check_mixin(self, stub):
        assert await stub.from_mixin() == "mixed into Checked"
        assert await stub.inherited() == "inherited"

    async def check_blocking(self, stub):
        assert await stub.loaded() == "loaded before any event"
        assert await stub.blocked_value() == {"answer": 42}

    async def check_sync(self, stub):
        assert await stub.waits_in_sync_code() == "waited"

    async def check_alarm(self, stub):
        before = Date.now()
        due = await stub.set_alarm(100)
        assert before + 100 <= due <= Date.now() + 100

    async def check_env(self, stub):
        assert await env.OBJECTS.getByName("env").no_args() == "hello"

    async def check_errors(self, stub):
        try:
            await stub.no_such_method()
        except Exception as error:
            assert "no_such_method" in str(error)
        else:
            raise AssertionError("a method that is not there was called")
        try:
            await stub.fails()
        except Exception as error:
            assert "out of luck" in str(error)
        else:
            raise AssertionError("the exception did not arrive")


class Mixin:
    async def from_mixin(self):
        return f"mixed into {type(self).__name__}"


class Base(DurableObject):
    def inherited(self):
        return "inherited"


class Checked(Base, Mixin):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.state = "not loaded"

        async def load():
            await asyncio.sleep(0.01)
            self.state = "loaded before any event"

        self.ctx.blockConcurrencyWhile(load)

    async def fetch(self, request, env=None, ctx=None):
        assert isinstance(request, Request)
        assert not await self.ctx.storage.getAlarm()
        told = {"method": request.method, "url": request.url, "body": await request.text()}
        return Response.json(told, status=202)

    async def alarm(self, alarm_info):
        assert alarm_info.retryCount == 0
        assert not alarm_info.isRetry
        self.ctx.storage.kv.put("rang", int(alarm_info.scheduledTime))

    async def set_alarm(self, after_ms):
        assert not await self.ctx.storage.getAlarm()
        self.ctx.storage.setAlarm(Date.now() + after_ms)  # takes effect without being awaited
        return await self.ctx.storage.getAlarm()

    def no_args(self):
        return "hello"

    async def arguments(self, a, *, b):
        return [a, b]

    def add(self, a, b):
        return a + b

    async def returns_none(self):
        return None

    def row(self):
        return self.ctx.storage.sql.exec("SELECT 7 AS id").one()

    def loaded(self):
        return self.state

    async def blocked_value(self):
        async def answer():
            await asyncio.sleep(0)
            return {"answer": 42}

        return await self.ctx.blockConcurrencyWhile(answer)

    def waits_in_sync_code(self):
        run_sync(asyncio.sleep(0.01))
        return "waited"

    def fails(self):
        raise ValueError("out of luck")
