"""`limpet verify`: looks at every file of a data directory, or of a backup.

In a data directory each object's files are copied while they are kept still
(:mod:`local.stillness`), and the copy is looked at: no object waits for that.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from common.ids import Partition
from common.ownership import LOCK_FILE
from common.settings import Settings
from local import manifest
from local.backup import Progress, Say, on_threads
from local.object_files import (
    Damaged,
    ObjectFile,
    checksum,
    complaints,
    copy_raw,
    objects_of,
    partitions_in,
    settle,
)
from local.stillness import Stillness, stillness_of
from shard.alarms.index_file import read_index
from shard.alarms.index_format import Contents, decode
from shard.storage.disk import Disk
from shard.storage.epoch import boot_epoch
from shard.storage.history import History
from shard.storage.layout import SUFFIX, alarm_index_path
from shard.storage.points import STAMP
from shard.storage.schema import META_ALARM, META_EPOCH, META_GENERATION, META_HISTORY
from shard.storage.segment import HistoryDamaged

_READS = 5


def verify_backup(folder: Path, say: Say) -> tuple[int, list[str]]:
    """Look at a backup; how many objects it has, and what is wrong.

    Raises:
        ConfigError: it is none.
        Damaged: its list cannot be used.
    """
    about = manifest.read(folder)
    expected = {each.path: each for each in manifest.entries_of(folder, about)}
    progress = Progress(say, "looked at")

    def look(partition: Partition) -> list[str]:
        wrong = []
        for each in objects_of(folder, partition):
            entry = expected.get(each.name)
            if entry is None:
                wrong.append(f"{each.path}: the backup's list does not name it")
            elif checksum(each.path) != entry.sha256:
                wrong.append(f"{each.path}: the checksum is wrong")
            else:
                said = complaints(each.path, each.name, thorough=True)
                wrong += [f"{each.path}: {text}" for text in said]
                progress.add(entry.bytes)
        return wrong

    wrong = [text for some in on_threads(look, partitions_in(folder)) for text in some]
    missing = [name for name in expected if not (folder / name).exists()]
    return len(expected), wrong + [f"{folder / name}: the file is missing" for name in missing]


def verify_data(settings: Settings, say: Say) -> tuple[int, list[str]]:
    """Look at a data directory, while its cluster runs or not; as :func:`verify_backup`.

    Raises:
        LimpetError: it could not be looked at.
    """
    partitions = partitions_in(settings.data_dir)
    still = stillness_of(settings, partitions)
    progress = Progress(say, "looked at")
    try:
        with tempfile.TemporaryDirectory(prefix="limpet-verify-") as scratch:

            def look(partition: Partition) -> list[str]:
                return _Look(settings.data_dir, partition, Path(scratch), still, progress).run()

            found = on_threads(look, partitions)
    finally:
        still.close()
    return progress.objects, [text for some in found for text in some]


class _Look:
    """At one partition."""

    def __init__(
        self,
        data_dir: Path,
        partition: Partition,
        scratch: Path,
        still: Stillness,
        progress: Progress,
    ) -> None:
        self._data_dir = data_dir
        self._partition = partition
        self._scratch = scratch / f"{partition:04d}"
        self._still = still
        self._progress = progress
        self._index = Path(alarm_index_path(data_dir, partition))
        self._epoch = boot_epoch()

    def run(self) -> list[str]:
        """What is wrong, a line each."""
        if not objects_of(self._data_dir, self._partition) and not self._index.exists():
            return []
        try:
            return self._still.during(self._partition, self._look)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _look(self, go_on: Callable[[], None]) -> list[str]:
        wrong: list[str] = []
        index = self._read_index()
        if index is not None and index.damaged:
            wrong.append(f"{self._index}: damaged; it is made anew when the cluster starts")
        seen: list[tuple[ObjectFile, int | None]] = []
        for each in objects_of(self._data_dir, self._partition):
            go_on()
            shutil.rmtree(self._scratch, ignore_errors=True)
            copy = self._scratch / each.name
            if not copy_raw(each, copy, go_on):
                continue
            said, meta = _look_at_copy(copy, each.name)
            if not said:
                said = [*self._history_complaints(each, meta), *self._generation(meta)]
                seen.append((each, meta.get(META_ALARM)))
            wrong += [f"{each.path}: {text}" for text in said]
            self._progress.add(copy.stat().st_size if copy.exists() else 0)
        if index is not None and index.complete and not index.damaged:
            wrong += _alarm_complaints(index, self._read_index() or Contents(), seen)
        return wrong

    def _read_index(self) -> Contents | None:
        """The index; read again where it may have been read while it was appended to."""
        contents = None
        for _ in range(_READS):
            data = read_index(str(self._index))
            contents = None if data is None else decode(data)
            if contents is None or not contents.damaged:
                break
        return contents

    def _generation(self, meta: dict[str, Any]) -> Iterator[str]:
        """An object's file must not be from a later owner than there has been."""
        written = meta.get(META_GENERATION)
        if written is None or meta.get(META_EPOCH) != self._epoch:
            return
        lock = self._data_dir / f"{self._partition:04d}" / LOCK_FILE
        with suppress(OSError, ValueError, IndexError):
            known = int(lock.read_text().split()[0])
            if written > known:
                yield f"written at generation {written}, its partition has only had {known}"

    @staticmethod
    def _history_complaints(file: ObjectFile, meta: dict[str, Any]) -> Iterator[str]:
        history = History(str(file.path), Disk(), 0, 0)
        stamp = meta.get(META_HISTORY)
        number = 0 if stamp is None else STAMP.unpack(stamp)[0]
        segments = history.segments()
        for segment in segments:
            try:
                segment.check()
                segment.index()
            except HistoryDamaged as error:
                yield f"its history is damaged: {error}"
        if segments and segments[-1].number not in (number, number - 1):
            yield (
                f"its history ends with log {segments[-1].number}, the file is at {number}: "
                "it will be dropped"
            )


def _look_at_copy(copy: Path, name: str) -> tuple[list[str], dict[str, Any]]:
    try:
        settle(copy, untie=False)
    except Damaged as error:
        return [str(error).removeprefix(f"{copy}: ")], {}
    said = complaints(copy, name, thorough=True)
    if said:
        return said, {}
    connection = apsw.Connection(str(copy))
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        rows: Any = connection.execute("SELECT key, value FROM _cf_META").fetchall()
        return [], dict(rows)
    finally:
        connection.close(True)


def _alarm_complaints(
    before: Contents, after: Contents, seen: list[tuple[ObjectFile, int | None]]
) -> Iterator[str]:
    """The index must never be later than an object's file.

    Alarms change while this looks, so only what was wrong both before and after counts.
    """
    for file, due_ms in seen:
        if due_ms is None:
            continue
        raw = bytes.fromhex(Path(file.name).name.removesuffix(SUFFIX))
        entries = (before.entries.get(raw), after.entries.get(raw))
        times = [None if entry is None else entry.due_ms for entry in entries]
        if all(each is None for each in times):
            yield f"{file.path}: its alarm is not in the index of alarms"
        elif all(each is None or each > due_ms for each in times):
            yield f"{file.path}: its alarm is due at {due_ms}, and later in the index: {times}"
