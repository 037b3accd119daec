"""Imports an app in a process of its own and says what it found: `python -m local.probe APP FD`.

An app's import may print, hang, exit or crash, and its modules stay in the process that imported
them: so it is done in none of ours. APP is a project file or its folder. The findings go as JSON to
descriptor FD, because standard output is the app's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from common.errors import ConfigError
from common.wrangler import Project, find_project
from local.findings import Finding
from local.inspection import inspect_app
from shard.app import load_app


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


def run(app: str, fd: str) -> None:
    """Do what the module's docstring says."""
    findings = [asdict(each) for each in probe(find_project(Path(app)))]
    with os.fdopen(int(fd), "w") as out:
        json.dump(findings, out)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
