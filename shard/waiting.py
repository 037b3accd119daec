"""Calls to objects whose home is away, or moves: in order, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import Final

from common.errors import LimpetError, Overloaded, Unavailable
from common.ids import Partition
from workers.exceptions import set_flags

CALL_OVERHEAD_BYTES: Final = 500
"""What a waiting call counts beside its arguments."""

Refuse = Callable[[LimpetError], None]


class _Call:
    __slots__ = ("partition", "refuse", "size", "start", "timer")

    def __init__(
        self, partition: Partition, size: int, start: Callable[[], None], refuse: Refuse
    ) -> None:
        self.partition = partition
        self.size = size
        self.start = start
        self.refuse = refuse
        self.timer: asyncio.TimerHandle | None = None


class Waiting:
    """The calls of one process that cannot be sent just now.

    Args:
        timeout_s: how long each may wait.
        max_bytes: how much may wait.
    """

    def __init__(self, timeout_s: float, max_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._loop = loop
        self._calls: dict[_Call, None] = {}
        self._bytes = 0

    def put(
        self, partition: Partition, size: int, start: Callable[[], None], refuse: Refuse
    ) -> None:
        """Call *start* when somebody serves the partition, or *refuse* when nobody does for long.

        Args:
            partition: of the object that is called.
            size: bytes of what the call carries.
            start: sends it; what was put in before has been sent.
            refuse: told why not; may be called at once.
        """
        size += CALL_OVERHEAD_BYTES
        if self._bytes + size > self._max_bytes:
            text = f"{self._bytes} bytes of calls wait for objects whose home is away"
            refuse(set_flags(Overloaded(text), overloaded=True))
            return
        call = _Call(partition, size, start, refuse)
        call.timer = self._loop.call_later(self._timeout_s, self._refuse, call)
        self._calls[call] = None
        self._bytes += size

    def start(self, partitions: Container[Partition]) -> None:
        """These are served now."""
        for call in [each for each in self._calls if each.partition in partitions]:
            if call in self._calls:
                self._take(call)
                call.start()

    def close(self) -> None:
        """The process ends: refuse them all."""
        for call in list(self._calls):
            self._refuse(call)

    def _refuse(self, call: _Call) -> None:
        self._take(call)
        text = "the object's home cannot be reached"
        call.refuse(set_flags(Unavailable(text), retryable=True))

    def _take(self, call: _Call) -> None:
        del self._calls[call]
        self._bytes -= call.size
        if call.timer is not None:
            call.timer.cancel()
