"""Imports an app in a process of its own and says what it found.

    python -m local.probe APP FD LIMIT_S

An app's import may print, hang, exit or crash, and its modules stay in the process that imported
them: so it is done in none of ours. APP is a project file or its folder. The findings go as JSON to
descriptor FD, because standard output is the app's. An import that takes longer than LIMIT_S is a
finding too, and ends the process. So does the end of the process that started this one.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from common.errors import ConfigError
from common.parent import PARENT_FD, watch
from common.slow_start import watch_import
from common.wrangler import Project, find_project
from local.findings import Finding
from local.inspection import inspect_app
from local.processes import kill_group
from shard.app import load_app

PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that this process gets when its parent has ended."""


def probe(project: Project) -> Iterator[Finding]:
    """Import the app's entry module as a shard does, and yield what is to be said about it."""
    try:
        # Without its bindings: the shard refuses the first wrong one, and we want to name all.
        app = load_app(replace(project, bindings=()))
    except ConfigError as error:
        yield Finding("error", error.message, error.where, error.remedy)
        return
    yield Finding("ok", f"{project.main} imports")
    yield from inspect_app(app.module, {each.name: each.class_name for each in project.bindings})


def run(app: str, fd: str, limit_s: str) -> None:
    """Do what the module's docstring says."""
    follow_checker()

    def give_up(message: str, where: str | None) -> None:
        _write(int(fd), [Finding("error", message, where or app)])
        os._exit(0)

    with watch_import(float(limit_s), Path(app), give_up):
        findings = list(probe(find_project(Path(app))))
    _write(int(fd), findings)


def follow_checker() -> None:
    """Arrange for this process and what the app started in it to end with the one that checks.

    A thread waits for that. Code that never lets go of the interpreter's lock stops the thread too,
    so on Linux the kernel is asked as well.
    """
    text = os.environ.pop(PARENT_FD, None)
    if text is None:
        return
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(int(text), False)
    watch(int(text), lambda: kill_group(os.getpgrp()))


def _write(fd: int, findings: list[Finding]) -> None:
    with os.fdopen(fd, "w") as out:
        json.dump([asdict(each) for each in findings], out)


if __name__ == "__main__":
    run(*sys.argv[1:])
