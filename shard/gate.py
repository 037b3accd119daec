"""The input gate: who of an object may run now.

An object is one thread of events. Between two suspensions nothing else runs anyway; storage calls
do not suspend at all; what is left to guard is ``blockConcurrencyWhile``: while its callback runs,
no other event is delivered and no suspended handler resumes, whatever it waited for.

A *section* is one such callback. Sections queue; one may be opened inside another, and then runs
while the outer one is held back. Every coroutine of the object belongs to the section it was
started in, or to none, and asks :meth:`InputGate.admits` before each of its steps. A callback that
returns before the sections it opened have run leaves them to the section around it: they keep
their turn and everything else stays held back until they are done.

::

            block()                  begin()                 finish()
    free ───────────▶ waiting ──────────────────▶ running ─────────────▶ done
                      (events wait)               (everything else waits)

The head of every queue has always been told to begin, or is what :meth:`InputGate.finish` returned
and its caller is about to tell.

No asyncio here: the gate says what may happen, :mod:`shard.turn` and :mod:`shard.activation` obey.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

MAX_DEPTH: Final = 64
"""How deep ``blockConcurrencyWhile`` may nest."""


class Section:
    """One ``blockConcurrencyWhile``.

    Attributes:
        parent: the section it was opened in, or ``None``.
        begin: starts its callback.
        children: the sections opened in it that are not done, in the order in which they run.
        done: its callback has returned or failed.
    """

    __slots__ = ("begin", "children", "done", "parent")

    def __init__(self, parent: Section | None, begin: Callable[[], None]) -> None:
        self.parent = _living(parent)
        self.begin = begin
        self.children: deque[Section] = deque()
        self.done = False


current_section: ContextVar[Section | None] = ContextVar("limpet_section", default=None)


class InputGate:
    """Decides for one activation which event may start and which coroutine may go on."""

    __slots__ = ("_opened", "_roots", "_running", "_waiters")

    def __init__(self, opened: Callable[[], None]) -> None:
        """*opened* is called each time that held-back events may be delivered again."""
        self._roots: deque[Section] = deque()
        self._running: Section | None = None
        self._waiters: list[Callable[[], None]] = []
        self._opened = opened

    @property
    def holds_events(self) -> bool:
        """No event from outside may be delivered now."""
        return bool(self._roots)

    @property
    def open(self) -> bool:
        """Every coroutine of the object may run."""
        return self._running is None

    def admits(self, section: Section | None) -> bool:
        """Whether a coroutine that was started in *section* may take its next step."""
        running = self._running
        return running is None or _living(section) is running

    def when_open(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when the gate changes; then ask :meth:`admits` again."""
        self._waiters.append(callback)

    def block(self, section: Section) -> bool:
        """Queue a section; true if it is to begin now.

        Raises:
            RecursionError: nested deeper than :data:`MAX_DEPTH`.
        """
        depth = 1
        parent = _living(section.parent)
        while parent is not None:
            depth += 1
            parent = _living(parent.parent)
        if depth > MAX_DEPTH:
            raise RecursionError("blockConcurrencyWhile() calls are nested too deeply.")
        queue = self._queue_of(section)
        queue.append(section)
        return len(queue) == 1

    def begin(self, section: Section) -> None:
        """The callback of *section* starts: everything else is held back."""
        self._running = section

    def finish(self, section: Section) -> Section | None:
        """The callback of *section* has ended; the next section to begin, if there is one.

        Coroutines that wait for the section's result may take a step before that one begins.
        """
        section.done = True
        queue = self._queue_of(section)
        place = queue.index(section)
        del queue[place]
        inherited = section.children
        for offset, child in enumerate(inherited):
            queue.insert(place + offset, child)
        if self._running is section:
            self._running = _living(section.parent)
        self._tell()
        if place == 0 and not inherited and queue:
            return queue[0]
        if not self._roots:
            self._opened()
        return None

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def _queue_of(self, section: Section) -> deque[Section]:
        parent = _living(section.parent)
        return self._roots if parent is None else parent.children


def _living(section: Section | None) -> Section | None:
    """The section itself, or the innermost one around it that is not done."""
    while section is not None and section.done:
        section = section.parent
    return section
