"""A few lines on where a run took place: without them a figure means nothing."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
from pathlib import Path


def cpu_model() -> str:
    """Return the processor's own name, or the architecture where Linux does not tell it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def describe(load_before: float) -> list[str]:
    """Return the head of a report. `load_before` is the load average before the run."""
    return [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores, shared with the load generator",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"load average before the run: {load_before:.2f}",
    ]


def check() -> None:
    """End with one clear line where the machine cannot measure."""
    if sys.platform != "linux":
        raise SystemExit("benchmarks: only Linux has the /proc files that this measures with")
