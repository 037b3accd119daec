"""Where requests wait while no shard can take them."""

from __future__ import annotations

from typing import Final, Protocol

MAX_WAITING: Final = 10_000
"""How many may; each holds a head and has stopped reading. More are refused at once."""


class Waiter(Protocol):
    """Whoever has a request that waits."""

    def admitted(self) -> None:
        """A shard is up: try again."""


class Lobby:
    """Requests in the order in which they came."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def enter(self, waiter: Waiter) -> bool:
        """Wait for a shard; false if there is no room."""
        if len(self._waiters) >= MAX_WAITING:
            return False
        self._waiters[waiter] = None
        return True

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer; no effect if it does not."""
        self._waiters.pop(waiter, None)

    def open(self) -> None:
        """A shard is up: all that wait may try again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.admitted()
