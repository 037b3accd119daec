"""Which shards exist, and the placement that follows from it.

On one machine the set is a small file, ``RUN_DIR/membership``, that every process of the cluster
reads and looks at again a few times a second. It is replaced as a whole, under a lock, and its
version rises with each change; so any two processes that name a version mean the same set.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, final

from common.errors import ConfigError
from common.file_lock import disk_remedy, lock_waiting, make_folder
from common.placement import Placement, ShardIndex

FILE_NAME: Final = "membership"
LOCK_NAME: Final = "membership.lock"
LOOK_INTERVAL_S: Final = 0.1
"""How often a process looks whether the file has changed: one ``stat`` each time."""

Changed = Callable[[], None]


class Membership(Protocol):
    """The set of shards as one process knows it."""

    @property
    def version(self) -> int:
        """A number that rises with every change of the set."""

    @property
    def shards(self) -> frozenset[ShardIndex]:
        """The shards that exist, whether or not they are up just now."""

    @property
    def placement(self) -> Placement:
        """The home of every partition, given these shards."""

    def subscribe(self, changed: Changed) -> None:
        """Call *changed* after each change, from the event loop."""

    def refresh(self) -> None:
        """Look now whether it has changed."""


@final
class FixedMembership:
    """The shards 0..count-1, for ever.

    Args:
        count: number of shards, at least 1.

    Raises:
        ValueError: ``count`` is less than 1.
    """

    __slots__ = ("placement", "shards", "version")

    def __init__(self, count: int) -> None:
        self.version = 1
        self.shards = frozenset(map(ShardIndex, range(count)))
        self.placement = Placement(self.shards)

    def subscribe(self, changed: Changed) -> None:
        """See :meth:`Membership.subscribe`: nothing ever changes."""

    def refresh(self) -> None:
        """See :meth:`Membership.refresh`."""


class LocalMembership:
    """A set of shards that is changed in this process, and known to all that hold this object.

    Args:
        shards: those that exist at first, at least one.
    """

    def __init__(self, shards: Iterable[int], version: int = 1) -> None:
        self._subscribers: list[Changed] = []
        self._set(shards, version)

    def subscribe(self, changed: Changed) -> None:
        """See :meth:`Membership.subscribe`."""
        self._subscribers.append(changed)

    def refresh(self) -> None:
        """See :meth:`Membership.refresh`: changes are known at once."""

    def change(self, shards: Iterable[int]) -> None:
        """From now on these shards exist."""
        self._set(shards, self.version + 1)
        self._tell()

    def _set(self, shards: Iterable[int], version: int) -> None:
        self.version = version
        self.shards = frozenset(map(ShardIndex, shards))
        self.placement = Placement(self.shards)

    def _tell(self) -> None:
        for changed in self._subscribers:
            changed()


@final
class FileMembership(LocalMembership):
    """The membership that ``RUN_DIR/membership`` says; :meth:`start` begins to follow it.

    Args:
        run_dir: the cluster's.
        otherwise: how many shards there are as long as there is no such file.
    """

    def __init__(self, run_dir: Path, otherwise: int) -> None:
        self._run_dir = run_dir
        self._path = os.fspath(run_dir / FILE_NAME)
        self._seen: object = None
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(range(otherwise), 0)
        self.refresh()

    def start(self) -> None:
        """Look at the file from time to time."""
        self.refresh()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_INTERVAL_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def refresh(self) -> None:
        """See :meth:`Membership.refresh`: one ``stat``."""
        try:
            found = os.stat(self._path)
            seen = (found.st_ino, found.st_mtime_ns)
            if seen == self._seen:
                return
            version, shards = _read(self._run_dir)
        except (OSError, ValueError):
            return  # not there yet; a file that is there is always whole
        self._seen = seen
        if version > self.version and shards:
            self._set(shards, version)
            self._tell()


def membership_version(run_dir: Path) -> int:
    """The version of ``RUN_DIR/membership``; 0 if there is none."""
    try:
        return _read(run_dir)[0]
    except (OSError, ValueError):
        return 0


@contextmanager
def changing_membership(run_dir: Path) -> Iterator[set[int]]:
    """Change the membership: the set that is given can be changed, and is written at the end.

    Nobody else changes it meanwhile. An empty set is not written.

    Raises:
        ConfigError: the file cannot be written.
    """
    make_folder(run_dir)
    lock = lock_waiting(run_dir / LOCK_NAME)
    try:
        try:
            version, shards = _read(run_dir)
        except (OSError, ValueError):
            version, shards = 0, []
        wanted = set(shards)
        yield wanted
        if wanted and wanted != set(shards):
            _write(run_dir, version + 1, wanted)
    finally:
        lock.release()


def _read(run_dir: Path) -> tuple[int, list[int]]:
    said = json.loads((run_dir / FILE_NAME).read_bytes())
    return int(said["version"]), [int(each) for each in said["shards"]]


def _write(run_dir: Path, version: int, shards: set[int]) -> None:
    path = run_dir / FILE_NAME
    beside = run_dir / f"{FILE_NAME}.new"
    try:
        beside.write_text(json.dumps({"version": version, "shards": sorted(shards)}) + "\n")
        beside.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            remedy=disk_remedy(error, "Choose a directory that you may write to with --run-dir."),
        ) from error
