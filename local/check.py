"""`limpet check`: whether the configuration is right, and whether the app would be served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from common.parent import PARENT_FD
from common.settings import Settings
from common.wrangler import Project, find_project
from local.findings import Finding
from local.processes import describe_exit, kill_group, with_import_path

IMPORT_TIMEOUT_S = 30.0
"""How long an app may take to import here."""
PROBE_MARGIN_S = 2.0
"""How much longer the probe may take: it says itself at which line the import is."""


def check(settings: Settings) -> Iterator[Finding]:
    """Yield findings about the app that `settings` names, in the order of their discovery.

    Raises:
        ConfigError: the project file is missing or wrong.
    """
    project = find_project(settings.app)
    yield Finding("ok", f"{project.file} is the project {project.name!r}")
    yield from _check_data(project)
    yield from probe_app(project)


def probe_app(project: Project) -> list[Finding]:
    """Import the app in a process of its own; return what it found.

    That process ends with this one, however this one ends.
    """
    with (
        tempfile.TemporaryFile() as findings,
        _parent_pipe() as parent_fd,
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "local.probe",
                str(project.file),
                str(findings.fileno()),
                f"{IMPORT_TIMEOUT_S}",
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=[findings.fileno(), parent_fd],
            env={**with_import_path(os.environ), PARENT_FD: str(parent_fd)},
            cwd=project.root,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(IMPORT_TIMEOUT_S + PROBE_MARGIN_S)
        except subprocess.TimeoutExpired:
            said = f"importing it took longer than {IMPORT_TIMEOUT_S:g} s"
            return [Finding("error", said, str(project.main))]
        finally:
            kill_group(process.pid)
        if process.returncode:
            said = (
                "the app ended the process while it was imported: "
                f"it {describe_exit(process.returncode)}"
            )
            return [Finding("error", said, str(project.main))]
        findings.seek(0)
        return [Finding(**each) for each in json.load(findings)]


@contextmanager
def _parent_pipe() -> Iterator[int]:
    """Yield the read end of a pipe that closes when this process is gone; see `common.parent`."""
    read_fd, write_fd = os.pipe()
    try:
        yield read_fd
    finally:
        os.close(read_fd)
        os.close(write_fd)


def _check_data(project: Project) -> Iterator[Finding]:
    if not project.bindings:
        yield Finding(
            "warning",
            "no Durable Object is bound",
            str(project.file),
            "Bind a class under durable_objects.bindings.",
        )
    for binding in project.bindings:
        if not binding.sqlite:
            yield Finding(
                "warning",
                f"class {binding.class_name} has no SQL storage",
                binding.where,
                "Name it in a migration's new_sqlite_classes.",
            )
