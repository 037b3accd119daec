"""A child process ends when its parent does, however the parent ended.

The supervisor holds the write end of a pipe and says nothing on it. Each child gets the read end as
PARENT_FD. When the supervisor is gone, even by kill -9, the kernel closes the pipe and the child
reads its end. This needs no signal that the parent must still be able to send, no polling, and
nothing of Linux.

A thread waits for it, not the event loop: an app whose handler blocks the loop must not outlive its
supervisor either. First the process is asked to stop as an operator would ask (SIGTERM: drain,
close clients, flush); if it has not ended within the grace time, it is ended.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, MutableMapping

PARENT_FD = "PARENT_FD"
"""The environment variable that names the descriptor."""


_supervised = False


def follow_parent(environ: MutableMapping[str, str], *, grace_s: float) -> threading.Thread | None:
    """Arrange for this process to end when the process that started it has ended.

    The variable is removed from `environ` and the descriptor is made close-on-exec, so that
    programs which this process starts inherit neither.

    Args:
        environ: the process environment (`os.environ`).
        grace_s: seconds from the request to stop to the forced end.

    Returns:
        The waiting daemon thread, or None when nobody asked for this (no PARENT_FD).

    Raises:
        OSError: PARENT_FD names no open descriptor.
    """
    text = environ.pop(PARENT_FD, None)
    if text is None:
        return None
    global _supervised
    _supervised = True
    fd = int(text)
    os.set_inheritable(fd, False)
    return watch(fd, lambda: _stop_then_end(grace_s))


def is_supervised() -> bool:
    """Whether a supervisor has started this process, and starts it again when it dies."""
    return _supervised


def watch(fd: int, ended: Callable[[], None]) -> threading.Thread:
    """Start and return a daemon thread that calls `ended` when the other end of `fd` closes."""

    def wait() -> None:
        try:
            while os.read(fd, 1):
                pass
        except OSError:
            return  # this process closed the descriptor itself: it is on its way out
        ended()

    thread = threading.Thread(target=wait, name="parent-watch", daemon=True)
    thread.start()
    return thread


def _stop_then_end(grace_s: float) -> None:
    force = threading.Timer(grace_s, lambda: os.kill(os.getpid(), signal.SIGKILL))
    force.daemon = True
    force.start()
    os.kill(os.getpid(), signal.SIGTERM)
