"""Small things about the Python processes that we start: environment, exit status, end."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import common


def with_import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` such that a child finds our packages where this process found them.

    That matters in a source tree that is not installed.
    """
    root = Path(common.__file__).parent.parent
    known = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if root.name == "site-packages" or str(root) in known:
        return dict(environ)
    return {**environ, "PYTHONPATH": os.pathsep.join([str(root), *known])}


def describe_exit(code: int) -> str:
    """Return an exit status, as `subprocess` gives it, in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def kill_group(pid: int) -> None:
    """End at once the process that leads session `pid`, and whatever it left running there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
