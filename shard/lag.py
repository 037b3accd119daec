"""Finds code that blocks the event loop, and says which object, which handler and which line.

One blocking call in one handler (``time.sleep``, ``requests.get``, a long computation) holds up
every object of the shard. A timer of the loop beats a few times within ``LAG_WARNING_S``, and a
thread watches it. When no beat comes, the thread looks at what the loop's thread is doing. So
nothing is paid for each event or message.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from shard.activation import Activation
from shard.entry import EntryPoint
from shard.turn import Carrier, TurnRunner

log = structlog.get_logger(__name__)

BEATS: Final = 4
"""Beats within the time after which a warning is due."""


@dataclass(frozen=True, slots=True)
class Stall:
    """What the loop's thread was doing when it had not turned for too long.

    Attributes:
        for_s: how long it had been blocked so far.
        owner: the object, as in ``Room('lobby')``, or ``entry point``; ``""`` if it was neither.
        handler: the function of the app that was called, as in ``Room.fetch``, or ``""``.
        where: file and number of the app's innermost line; of any code's, if none of the app ran.
        line: that line.
    """

    for_s: float
    owner: str
    handler: str
    where: str
    line: str


class LagWatch:
    """Watches the event loop it is started in.

    Args:
        warning_s: report a loop that has not turned for that long.
        app_root: the app's folder.
        report: called from the watching thread, once for each stall; logs unless given.

    Attributes:
        lag_s: how late the last beat was.
        longest_s: how late the latest one was.
        stalls: how many have been reported.
    """

    def __init__(
        self, warning_s: float, app_root: Path, report: Callable[[Stall], None] | None = None
    ) -> None:
        self.lag_s = 0.0
        self.longest_s = 0.0
        self.stalls = 0
        self._warning_s = warning_s
        self._interval_s = warning_s / BEATS
        self._root = os.path.join(app_root, "")
        self._report = report or _log_stall
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat_at = 0.0
        self._loop_thread = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running loop, from its own thread."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(self._interval_s, self._beat)
        self._thread = threading.Thread(target=self._watch, name="lag", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns when the thread has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        now = time.monotonic()
        self.lag_s = max(0.0, now - self._beat_at - self._interval_s)
        self.longest_s = max(self.longest_s, self.lag_s)
        self._beat_at = now
        assert self._loop is not None
        self._timer = self._loop.call_later(self._interval_s, self._beat)

    # --- the watching thread -------------------------------------------------------------------

    def _watch(self) -> None:
        reported = 0.0
        looked_at = time.monotonic()
        while not self._stopped.wait(self._interval_s):
            now = time.monotonic()
            beat_at = self._beat_at
            # When this thread was late too, the whole process had been stopped: nobody's fault.
            frozen = now - looked_at > self._warning_s
            looked_at = now
            if frozen or now - beat_at < self._warning_s or reported == beat_at:
                continue
            reported = beat_at
            self.stalls += 1
            try:
                stall = self._look(now - beat_at)
            except Exception:
                log.exception("loop.blocked")  # the warning itself must not fail to come
            else:
                self._report(stall)

    def _look(self, for_s: float) -> Stall:
        frames = list(_outwards(sys._current_frames().get(self._loop_thread)))
        inner: list[FrameType] = []
        owner = ""
        for frame in frames:
            owner = _owner_in(frame)
            if owner:
                break
            inner.append(frame)
        of_app = [each for each in inner if each.f_code.co_filename.startswith(self._root)]
        handler = of_app[-1].f_code.co_qualname if of_app else ""
        at = of_app[0] if of_app else (frames[0] if frames else None)
        if at is None:
            return Stall(for_s, owner, handler, "", "")
        path, number = at.f_code.co_filename, at.f_lineno
        line = linecache.getline(path, number).strip()
        return Stall(for_s, owner, handler, f"{path.removeprefix(self._root)}:{number}", line)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _owner_in(frame: FrameType) -> str:
    """Whose code this frame enters. Reading it off the stack keeps the watch free of cost."""
    runs = frame.f_locals.get("self")
    if isinstance(runs, Carrier):
        runs = runs.owner
    elif isinstance(runs, TurnRunner):
        runs = runs._owner
    if isinstance(runs, Activation):
        return str(runs.slot)
    return "entry point" if isinstance(runs, EntryPoint) else ""


def _log_stall(stall: Stall) -> None:
    log.warning(
        "loop.blocked",
        for_s=round(stall.for_s, 3),
        object=stall.owner or None,
        handler=stall.handler or None,
        at=stall.where or None,
        line=stall.line or None,
        hint="every object of this shard waits: await it, or move it to asyncio.to_thread()",
    )
