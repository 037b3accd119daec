"""Calls that wait for a shard that is away, in order, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from common.errors import LimpetError, Overloaded, Unavailable
from workers.exceptions import set_flags

CALL_OVERHEAD_BYTES: Final = 500
"""What a waiting call counts beside its arguments."""

Refuse = Callable[[LimpetError], None]


class _Call:
    __slots__ = ("refuse", "size", "start", "timer")

    def __init__(self, size: int, start: Callable[[], None], refuse: Refuse) -> None:
        self.size = size
        self.start = start
        self.refuse = refuse
        self.timer: asyncio.TimerHandle | None = None


class Waiting:
    """The calls to the objects of one shard that cannot be sent just now.

    Args:
        shard: which one.
        timeout_s: how long each may wait.
        max_bytes: how much may wait.
    """

    def __init__(
        self, shard: int, timeout_s: float, max_bytes: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._shard = shard
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._loop = loop
        self._calls: deque[_Call] = deque()
        self._bytes = 0

    def put(self, size: int, start: Callable[[], None], refuse: Refuse) -> None:
        """Call *start* when the shard is back, or *refuse* when it stays away for too long.

        Args:
            size: bytes of what the call carries.
            start: sends it; what was put in before has been sent.
            refuse: told why not; may be called at once.
        """
        size += CALL_OVERHEAD_BYTES
        if self._bytes + size > self._max_bytes:
            text = f"{self._bytes} bytes of calls wait for shard {self._shard}, which is away"
            refuse(set_flags(Overloaded(text), overloaded=True))
            return
        call = _Call(size, start, refuse)
        call.timer = self._loop.call_later(self._timeout_s, self._expired)
        self._calls.append(call)
        self._bytes += size

    def start(self) -> None:
        """The shard is back."""
        for call in self._take(len(self._calls)):
            call.start()

    def close(self) -> None:
        """The process ends: refuse them all."""
        self._refuse(len(self._calls))

    def _expired(self) -> None:
        self._refuse(1)  # they expire in the order in which they came

    def _refuse(self, count: int) -> None:
        text = f"shard {self._shard}, the object's home, cannot be reached"
        for call in self._take(count):
            call.refuse(set_flags(Unavailable(text), retryable=True))

    def _take(self, count: int) -> list[_Call]:
        taken = [self._calls.popleft() for _ in range(count)]
        for call in taken:
            self._bytes -= call.size
            if call.timer is not None:
                call.timer.cancel()
        return taken
