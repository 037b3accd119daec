"""How links come to be, whatever carries them.

The two ends of the interface: something that *listens* for links to this process, and something
that *dials* another one. One implementation runs over Unix sockets (:mod:`common.link.unix`), one
inside a single event loop (:mod:`common.link.memory`); one over the network can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.link.driver import Link

LinkFactory = Callable[[], Link]


class Listener(Protocol):
    """Accepts links until it is closed."""

    async def close(self) -> None:
        """Accept no more, and remove what was published. Links that are up stay up."""


class Transport(Protocol):
    """Makes links between named processes of one cluster."""

    async def listen(self, name: str, factory: LinkFactory) -> Listener:
        """Accept links as *name* (``"shard-0"``).

        Raises:
            LinkError: the name cannot be published.
        """

    async def dial(self, name: str, factory: LinkFactory) -> Link:
        """Open a link to the process of that name.

        Raises:
            LinkError: nobody listens there, or it is not one of ours.
        """
