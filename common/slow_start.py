"""Says where an app's import is when it takes too long.

An import may wait for ever, or compute for ever. Who waits for the process learns only that it has
not become ready; the line that it is at is known in the process alone, so a thread looks there.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def watch_import(
    after_s: float, app: Path, say: Callable[[str, str | None], None]
) -> Iterator[None]:
    """Call ``say(message, where)`` if the body, run by this thread, has not ended after a while.

    ``say`` runs in another thread, at most once. Code that never lets go of the interpreter's lock
    cannot be seen.

    Args:
        after_s: how long to wait.
        app: the app's project file or its folder.
        say: takes the message and the app's innermost line as ``file:line``, if it has one.
    """
    thread_id = threading.get_ident()
    root = app if app.is_dir() else app.parent

    def look() -> None:
        where = _app_line(thread_id, root.resolve())
        say(f"the import of the app is still running after {after_s:g} s", where)

    timer = threading.Timer(after_s, look)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _app_line(thread_id: int, root: Path) -> str | None:
    prefix = os.path.join(root, "")
    frame = sys._current_frames().get(thread_id)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(prefix) or os.path.realpath(name).startswith(prefix):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None
