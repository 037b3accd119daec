"""A few lines on where a run took place: without them a figure means nothing."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median


def cpu_model() -> str:
    """Return the processor's own name, or the architecture where Linux does not tell it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def sync_us(folder: Path, times: int = 50) -> float:
    """Median time, in microseconds, to append 4 KiB to a file in that folder and fdatasync it."""
    taken_s: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            began_at = time.perf_counter()
            os.fdatasync(file.fileno())
            taken_s.append(time.perf_counter() - began_at)
    return median(taken_s) * 1e6


def describe(load_before: float, disk_us: float) -> list[str]:
    """Return the head of a report. Both arguments were measured before the run.

    `load_before` is the load average, `disk_us` see :func:`sync_us`.
    """
    return [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores, shared with the load generator",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"load average before the run: {load_before:.2f}",
        f"an fdatasync of 4 KiB that were appended took {disk_us:.0f} µs (median)",
    ]


def check() -> None:
    """End with one clear line where the machine cannot measure."""
    if sys.platform != "linux":
        raise SystemExit("benchmarks: only Linux has the /proc files that this measures with")
