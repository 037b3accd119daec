"""Clients that have numbers written, and remember which were acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

KEYS = 5
LOST = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass
class Ledger:
    """One object, as its only client knows it.

    Attributes:
        sent: the highest number that may have been written.
        acknowledged: the highest that was acknowledged.
        wrong: what must not be, in words.
    """

    name: str
    sent: int = 0
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)

    def found(self, state: dict[str, Any]) -> None:
        """Compare what the object has with what it has promised; go on from there."""
        number = state["n"]
        if not self.acknowledged <= number <= self.sent:
            self.wrong.append(
                f"{self.name} has {number}; acknowledged was {self.acknowledged}, sent {self.sent}"
            )
        whole = {
            "keys": {f"k{each}": _latest(number, each) for each in range(KEYS)},
            "junk": None,
            "table": [number or None, number],
            "alarm": number or None,
            "check": "ok",
        }
        for part, expected in whole.items():
            if state[part] != expected:
                self.wrong.append(f"{self.name} at {number}: {part} is {state[part]}")
        # What could be read may be told from now on.
        self.sent = self.acknowledged = number


class Writers:
    """One client for each ledger: half of them over WebSockets, several numbers ahead."""

    def __init__(self, base_url: str, count: int, rng: random.Random) -> None:
        self.ledgers = [Ledger(f"ledger{number}") for number in range(count)]
        self.counts: Counter[str] = Counter()
        self._url = base_url
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Writers:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._session.close()

    def start(self) -> None:
        """Write on and on."""
        for number, ledger in enumerate(self.ledgers):
            live = self._over_socket if number % 2 else self._over_http
            self._tasks.append(asyncio.create_task(self._for_ever(live, ledger)))

    async def stop(self) -> None:
        """Write no more. What was under way may have been written or not."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def check(self) -> list[str]:
        """Look at every ledger; all that was ever wrong."""
        await asyncio.gather(*(self._look(each) for each in self.ledgers))
        return [text for each in self.ledgers for text in each.wrong]

    async def _for_ever(self, live: Any, ledger: Ledger) -> None:
        while True:
            try:
                await self._look(ledger)
                await live(ledger)
            except LOST:
                self.counts["lost connections"] += 1
                await asyncio.sleep(self._rng.uniform(0.01, 0.1))

    async def _look(self, ledger: Ledger) -> None:
        told = ""
        for _ in range(300):
            try:
                async with self._session.get(f"{self._url}/{ledger.name}/state") as answer:
                    if answer.status == 200:
                        ledger.found(await answer.json())
                        return
                    told = f"{answer.status} {await answer.text()}"
            except LOST as error:
                told = repr(error)
            await asyncio.sleep(0.1)
        ledger.wrong.append(f"{ledger.name} does not answer: {told}")

    async def _over_http(self, ledger: Ledger) -> None:
        while True:
            ledger.sent += 1
            url = f"{self._url}/{ledger.name}/write-{ledger.sent}"
            async with self._session.post(url) as answer:
                text = await answer.text()
                if answer.status != 200:
                    self.counts["failed requests"] += 1
                    return
            self._acknowledge(ledger, int(text))

    async def _over_socket(self, ledger: Ledger) -> None:
        async with self._session.ws_connect(f"{self._url}/{ledger.name}/ws") as ws:
            while True:
                while ledger.sent < ledger.acknowledged + 4:
                    ledger.sent += 1
                    await ws.send_str(str(ledger.sent))
                    if self._rng.random() < 0.3:
                        break
                message = await ws.receive(timeout=30)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    self.counts["closed sockets"] += 1
                    return
                self._acknowledge(ledger, int(message.data))

    def _acknowledge(self, ledger: Ledger, number: int) -> None:
        ledger.acknowledged = max(ledger.acknowledged, number)
        self.counts["acknowledged"] += 1


def _latest(number: int, remainder: int) -> int | None:
    latest = number - (number - remainder) % KEYS
    return latest if latest > 0 else None
