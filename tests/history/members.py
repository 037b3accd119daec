"""Clients that send numbered messages to rooms, and keep what they hear."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp


@dataclass
class Connection:
    """One connection's history."""

    room: str
    name: str
    joined_at: float
    sent: int = 0
    heard: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    first_sent_at: float | None = None
    closed_at: float | None = None
    close_code: int | None = None
    close_text: str = ""
    ws: aiohttp.ClientWebSocketResponse | None = None
    sent_at: dict[int, float] = field(default_factory=dict)
    longest_wait_s: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def is_complete(self) -> bool:
        """Everything it has sent has come back."""
        return len(self.heard.get(self.name, ())) >= self.sent


class Population:
    """So many rooms with so many members each, joined anew whenever one is closed.

    Each member sends a message about every *pace_s* seconds, without waiting for anything.
    """

    def __init__(
        self, base_url: str, rooms: int, members: int, pace_s: float, rng: random.Random
    ) -> None:
        self.connections: list[Connection] = []
        self.pauses: list[float] = []
        self._url = base_url
        self._seats = [f"room{room}" for room in range(rooms) for _ in range(members)]
        self._pace_s = pace_s
        self._rng = rng
        self._numbers = count()
        self._sending = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Population:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        for seat in self._seats:
            connection = await self._join(seat)
            self._tasks.append(asyncio.create_task(self._live(connection)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(
            *(each.ws.close() for each in self.connections if each.ws is not None),
            return_exceptions=True,
        )
        await self._session.close()

    async def finish(self, within_s: float) -> None:
        """Send no more, and wait until every open connection has heard all that it has sent."""
        self._sending = False
        try:
            async with asyncio.timeout(within_s):
                while not all(  # noqa: ASYNC110 - what they hear comes over the network
                    each.is_complete for each in self.connections if each.is_open
                ):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass  # the checker will say what is missing

    async def members_of(self, room: str) -> list[str]:
        """Whom the object of a room lists."""
        while True:
            async with self._session.get(f"{self._url}/{room}/who") as response:
                if response.status == 503 and "Retry-After" in response.headers:
                    continue  # the shard that worked on it was killed a moment ago
                assert response.status == 200, await response.text()
                members: list[str] = await response.json(content_type=None)
                return members

    async def _join(self, room: str) -> Connection:
        loop = asyncio.get_running_loop()
        while True:
            name = f"c{next(self._numbers)}"
            try:
                ws = await self._session.ws_connect(f"{self._url}/{room}/{name}", autoclose=True)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)
                continue
            connection = Connection(room, name, loop.time(), ws=ws)
            self.connections.append(connection)
            return connection

    async def _live(self, connection: Connection) -> None:
        while True:
            sender = asyncio.create_task(self._send(connection))
            try:
                await self._hear(connection)
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            connection = await self._join(connection.room)

    async def _send(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        ws = connection.ws
        assert ws is not None
        while True:
            await asyncio.sleep(self._rng.uniform(0.3, 1.7) * self._pace_s)
            if not self._sending or ws.closed:
                continue
            connection.sent += 1
            connection.sent_at[connection.sent] = loop.time()
            if connection.first_sent_at is None:
                connection.first_sent_at = loop.time()
            try:
                await ws.send_str(str(connection.sent))
            except (OSError, aiohttp.ClientError):
                return

    async def _hear(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        ws = connection.ws
        assert ws is not None
        while True:
            message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            name, number, fault = _parse(message.data)
            connection.heard.setdefault(name, []).append(number)
            if name == connection.name:
                wait_s = loop.time() - connection.sent_at.pop(number, loop.time())
                self.pauses.append(wait_s)
            if fault:
                connection.faults.append(f"{name}: {fault}")
        connection.closed_at = loop.time()
        connection.close_code = ws.close_code
        if message.type is aiohttp.WSMsgType.CLOSE:
            connection.close_text = message.extra or ""


def _parse(text: Any) -> tuple[str, int, str | None]:
    name, number, fault = json.loads(text)
    return name, number, fault
