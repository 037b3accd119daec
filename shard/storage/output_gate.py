"""The output gate: nothing leaves an object before what it may reveal is durable.

An object's writes between two suspensions are one *run* and one commit. What it sends after a write
(a frame, a response, a call to another object) may reveal that write, so it waits here until the
run's commit, and every commit before it, is durable. It leaves in the order in which it was sent.
If a commit fails it never leaves, and the object is reset.

::

              hold()                  end_run()               settled(run)
    open ───────────────▶ held, run open ─────▶ held, commit under way ─────▶ open
              ▲                                        │        │
              └────────── hold(): a further run ───────┘        └── fail(): dropped, for ever

What is sent while nothing is held does not come here at all. No asyncio, no I/O: the gate says what
may leave; :mod:`shard.storage.object_storage` tells it what lasts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

Release: TypeAlias = Callable[[], None]
Drop: TypeAlias = Callable[[BaseException], None]

OUTPUT_OVERHEAD_BYTES: Final = 200
"""What one waiting output counts beside its payload."""


class OutputGate:
    """Keeps what one activation sends until it may leave.

    Args:
        max_bytes: how much may wait; beyond, *overflowed* is called, which has to :meth:`fail` it.
        overflowed: see there.

    Attributes:
        held: what is sent now has to go through :meth:`push`.
        held_bytes: size of what waits.
    """

    __slots__ = (
        "_durable",
        "_failure",
        "_max_bytes",
        "_needed",
        "_outputs",
        "_overflowed",
        "_releasing",
        "_run",
        "_settled",
        "held",
        "held_bytes",
    )

    def __init__(
        self, max_bytes: float = math.inf, overflowed: Callable[[], None] | None = None
    ) -> None:
        self.held = False
        self.held_bytes = 0
        self._run = 1
        self._durable = 0
        self._needed = 0
        self._settled: set[int] = set()
        self._outputs: deque[tuple[int, int, Release, Drop | None]] = deque()
        self._releasing = False
        self._failure: BaseException | None = None
        self._max_bytes = max_bytes
        self._overflowed = overflowed

    def hold(self) -> None:
        """The open run has written something that outputs must wait for."""
        if self._failure is None:
            self.held = True
            self._needed = self._run

    def end_run(self) -> int:
        """The open run has been committed; returns its number, for :meth:`settled`."""
        run = self._run
        self._run = run + 1
        return run

    def push(self, release: Release, drop: Drop | None = None, size: int = 0) -> None:
        """Keep an output until it may leave.

        Args:
            release: lets it leave; called once, in order, unless it is dropped.
            drop: told why it never will.
            size: bytes it counts for.
        """
        if self._failure is not None:
            if drop is not None:
                drop(self._failure)
            return
        size += OUTPUT_OVERHEAD_BYTES
        self.held_bytes += size
        self._outputs.append((self._needed, size, release, drop))
        if not self.held:
            self._release()
        elif self.held_bytes > self._max_bytes and self._overflowed is not None:
            self._overflowed()

    def wait(self, release: Release, drop: Drop, *, open_run: bool) -> None:
        """Call *release* once all that was committed is durable, confirmed or not; else *drop*.

        With *open_run*, what the open run has written too.
        """
        if self._failure is not None:
            drop(self._failure)
            return
        self._outputs.append((self._run if open_run else self._run - 1, 0, release, drop))
        self._release()

    def settled(self, run: int) -> None:
        """The commit of *run* is durable, or there was nothing to commit."""
        self._settled.add(run)
        while self._durable + 1 in self._settled:
            self._durable += 1
            self._settled.discard(self._durable)
        self._release()

    def fail(self, error: BaseException) -> None:
        """A commit is lost, or the object was reset: nothing that waits will ever leave."""
        if self._failure is not None:
            return
        self._failure = error
        self.held = True
        self.held_bytes = 0
        outputs, self._outputs = self._outputs, deque()
        for _, _, _, drop in outputs:
            if drop is not None:
                drop(error)

    def _release(self) -> None:
        # What a release leads to may send more: that joins the queue, behind what is in it.
        if self._releasing:
            return
        self._releasing = True
        try:
            while self._outputs and self._outputs[0][0] <= self._durable:
                _, size, release, _ = self._outputs.popleft()
                self.held_bytes -= size
                release()
        finally:
            self._releasing = False
        if self._failure is None and not self._outputs:
            self.held = self._needed > self._durable
