"""Where an import is that takes too long."""

from __future__ import annotations

import threading
from pathlib import Path

from common.slow_start import watch_import


def test_the_apps_innermost_line_is_named(tmp_path: Path) -> None:
    said: list[tuple[str, str | None]] = []
    done = threading.Event()

    def say(message: str, where: str | None) -> None:
        said.append((message, where))
        done.set()

    file = tmp_path / "entry.py"
    with watch_import(0.01, tmp_path, say):
        exec(compile("\n\ndone.wait(30)", str(file), "exec"), {"done": done})
    assert said == [("the import of the app is still running after 0.01 s", f"{file}:3")]


def test_nothing_is_said_of_one_that_ends(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    said: list[str] = []
    with watch_import(3600, tmp_path, lambda message, where: said.append(message)):
        (timer,) = set(threading.enumerate()) - before
    timer.join(30)
    assert not timer.is_alive()
    assert not said
