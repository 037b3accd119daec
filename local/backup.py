"""`limpet backup`: a consistent copy of every object, while the cluster runs or not.

Partition by partition: its database files are kept still (:mod:`local.stillness`), copied with
their logs, and let go; then each copy's log is moved into it, and it is checked. A log may be
appended to while it is copied: what arrives half is dropped by SQLite as a commit that was cut off.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeVar

import apsw

from common.errors import ConfigError
from common.ids import Partition
from common.settings import Settings
from local import manifest
from local.manifest import Entry, Manifest
from local.object_files import (
    Damaged,
    checksum,
    complaints,
    copy_raw,
    objects_of,
    partitions_in,
    settle,
    sync_file,
)
from local.stillness import Stillness, stillness_of

T = TypeVar("T")
Say = Callable[[str], None]

JOBS: Final = 4
"""How many partitions are copied at once."""
_PROGRESS_S: Final = 2.0


class Progress:
    """Says now and then how far it is. Used from several threads."""

    def __init__(self, say: Say, what: str) -> None:
        self._say = say
        self._what = what
        self._lock = threading.Lock()
        self._said_at = time.monotonic()
        self.objects = 0
        self.bytes = 0
        self.damaged: list[str] = []

    def add(self, size: int) -> None:
        """One object more."""
        with self._lock:
            self.objects += 1
            self.bytes += size
            if time.monotonic() - self._said_at >= _PROGRESS_S:
                self._said_at = time.monotonic()
                self._say(f"{self._what} {self}")

    def __str__(self) -> str:
        return f"{self.objects:,} objects, {self.bytes / (1 << 20):,.1f} MiB"


def backup(settings: Settings, folder: Path, say: Say) -> Manifest:
    """Make a backup in *folder*; it is durable when this returns.

    Objects whose files are damaged are left out; the manifest names them.

    Raises:
        ConfigError: a folder cannot be used.
        LimpetError: it was not made; the folder says that it is unfinished.
    """
    _refuse_inside(settings.data_dir, folder)
    manifest.begin(folder)
    began_at = _now()
    partitions = partitions_in(settings.data_dir)
    still = stillness_of(settings, partitions)
    try:
        progress = Progress(say, "copied")

        def copy(partition: Partition) -> list[Entry]:
            return _copy_partition(settings.data_dir, partition, still, folder, progress)

        found = on_threads(copy, partitions)
    finally:
        still.close()
    entries = sorted((each for some in found for each in some), key=lambda each: each.path)
    for path in [*sorted(folder.glob("*/*")), *sorted(folder.glob("*"))]:
        if path.is_dir():
            sync_file(path)
    return manifest.finish(
        folder, entries, began_at=began_at, ended_at=_now(), running=still.running,
        versions=versions(),
        damaged=sorted(progress.damaged),
    )  # fmt: skip


def _copy_partition(
    data_dir: Path, partition: Partition, still: Stillness, folder: Path, progress: Progress
) -> list[Entry]:
    if not objects_of(data_dir, partition):
        return []
    target = folder / f"{partition:04d}"

    def copy_all(go_on: Callable[[], None]) -> list[str]:
        shutil.rmtree(target, ignore_errors=True)
        copied = []
        for each in objects_of(data_dir, partition):
            go_on()
            if copy_raw(each, folder / each.name, go_on):
                copied.append(each.name)
            else:
                (folder / each.name).unlink()
        return copied

    entries = []
    for name in still.during(partition, copy_all):
        path = folder / name
        if wrong := _settle(path, name):
            progress.damaged.append(f"{data_dir / name}: {'; '.join(wrong)}")
            path.unlink()
            continue
        sync_file(path)
        entry = Entry(name, path.stat().st_size, checksum(path))
        entries.append(entry)
        progress.add(entry.bytes)
    return entries


def _settle(path: Path, name: str) -> list[str]:
    try:
        settle(path, untie=True)
    except Damaged as error:
        return [str(error)]
    return complaints(path, name, thorough=False)


def on_threads(work: Callable[[Partition], T], partitions: list[Partition]) -> list[T]:
    """Do *work* for each partition, some at once; the first error ends it."""
    with ThreadPoolExecutor(JOBS) as pool:
        futures = [pool.submit(work, each) for each in partitions]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            return [each.result() for each in futures if each.done()]
        finally:
            for each in futures:
                each.cancel()


def _refuse_inside(data_dir: Path, folder: Path) -> None:
    if folder.resolve().is_relative_to(data_dir.resolve()):
        raise ConfigError(
            "the folder lies within DATA_DIR",
            where=str(folder),
            remedy="Choose one outside; best on another disk.",
        )


def versions() -> dict[str, str]:
    """The versions that made a backup."""
    limpet = "unknown"
    with suppress(PackageNotFoundError):
        limpet = version("limpet")
    return {
        "limpet": limpet,
        "sqlite": apsw.sqlite_lib_version(),
        "python": sys.version.split()[0],
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
