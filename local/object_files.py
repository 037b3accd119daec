"""The files of objects in a data directory or a backup, and copies of them.

A copy is one plain SQLite file without a log: what the log had is moved into it, and what ties it
to its owner (the generation that wrote it, a restoration that is pending) is taken out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import apsw

from common.errors import LimpetError
from common.ids import PARTITION_COUNT, RAW_ID_BYTES, Partition, partition_of
from shard.storage.layout import SUFFIX
from shard.storage.schema import (
    APPLICATION_ID,
    FORMAT,
    META_EPOCH,
    META_GENERATION,
    META_RESTORE,
    empty_database,
)

_PIECE_BYTES: Final = 1 << 20
_TIES: Final = (META_GENERATION, META_EPOCH, META_RESTORE)


class Damaged(LimpetError):  # noqa: N818 - what happened
    """A file of an object is not what it should be. The message names it."""


class Moved(Exception):  # noqa: N818 - what happened
    """The file was replaced while it was copied: copy it again."""


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """The database file of one object.

    Attributes:
        root: of the data directory or backup.
        name: its path in there: ``<partition>/<namespace>/<id>.sqlite``.
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name


def partitions_in(root: Path) -> list[Partition]:
    """The partitions that have a folder, ascending."""
    names = [each.name for each in root.iterdir()] if root.is_dir() else []
    numbers = (int(name) for name in names if len(name) == 4 and name.isdigit())
    return [Partition(number) for number in sorted(numbers) if number < PARTITION_COUNT]


def objects_of(root: Path, partition: Partition) -> list[ObjectFile]:
    """The objects of a partition, by name."""
    folder = f"{partition:04d}"
    found: list[ObjectFile] = []
    for namespace in _folders(root / folder):
        names = (each.name for each in os.scandir(root / folder / namespace))
        found += [
            ObjectFile(root, f"{folder}/{namespace}/{name}")
            for name in names
            if name.endswith(SUFFIX)
        ]
    return sorted(found, key=lambda each: each.name)


def _folders(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from sorted(each.name for each in entries if each.is_dir())
    except FileNotFoundError:
        return


def copy_raw(source: ObjectFile, target: Path, go_on: Callable[[], None]) -> bool:
    """Copy a database and its log as they are; ``False`` if nothing was ever stored there.

    The database file must not be written to meanwhile; its log may be appended to.

    Args:
        source: which.
        target: the new file.
        go_on: called between pieces; may raise.

    Raises:
        OSError: a disk fails.
        Moved: it was replaced meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.path.open("rb") as database:
            opened = os.fstat(database.fileno())
            _copy(database.fileno(), target, go_on)
        has_log = True
        try:
            with Path(f"{source.path}-wal").open("rb") as log:
                _copy(log.fileno(), Path(f"{target}-wal"), go_on)
        except FileNotFoundError:
            has_log = False
        now = source.path.stat()
    except FileNotFoundError:
        raise Moved(source.name) from None
    if (now.st_ino, now.st_dev) != (opened.st_ino, opened.st_dev):
        raise Moved(source.name)
    # One that is shorter was being made when the power failed.
    return has_log or opened.st_size >= len(empty_database())


def _copy(source: int, target: Path, go_on: Callable[[], None]) -> None:
    # What is appended from now on is not needed.
    left = os.fstat(source).st_size
    with target.open("wb", buffering=0) as out:
        while left > 0 and (data := os.read(source, min(left, _PIECE_BYTES))):
            out.write(data)
            left -= len(data)
            go_on()


def settle(path: Path, *, untie: bool) -> None:
    """Move a copy's log into it; with *untie*, take out what ties it to its owner.

    Raises:
        Damaged: it is no database, or not one of ours.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = OFF")
            if untie:
                connection.executemany("DELETE FROM _cf_META WHERE key = ?", [(k,) for k in _TIES])
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close(True)
    except apsw.Error as error:
        raise Damaged(f"{path}: {error}") from None


def complaints(path: Path, name: str, *, thorough: bool) -> list[str]:
    """What is wrong with a settled copy, in words; nothing if all is well.

    Args:
        path: of the copy.
        name: of the object's file: see :class:`ObjectFile`.
        thorough: compare indexes with their tables too, which takes longer.
    """
    found = _name_complaints(name)
    try:
        # Without locks and log: nobody else has it, and it may lie where nothing can be written.
        uri = f"file:{quote(str(path))}?immutable=1"
        connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.Error as error:
        return [*found, str(error)]
    try:
        if (mark := connection.execute("PRAGMA application_id").get) != APPLICATION_ID:
            found.append(f"application id {mark}, not {APPLICATION_ID}: not one of Limpet's")
        if (version := connection.execute("PRAGMA user_version").get) != FORMAT:
            found.append(f"format {version}, not {FORMAT}")
        check = "integrity_check" if thorough else "quick_check"
        said = connection.execute(f"PRAGMA {check}(10)").fetchall()
        found += [str(text) for (text,) in said if text != "ok"]
        connection.execute("SELECT count(*) FROM _cf_META").fetchall()
        connection.execute("SELECT 1 FROM _cf_KV LIMIT 1").fetchall()
    except apsw.Error as error:
        found.append(str(error))
    finally:
        connection.close(True)
    return found


def _name_complaints(name: str) -> list[str]:
    partition, _, file = name.split("/")
    try:
        raw = bytes.fromhex(file.removesuffix(SUFFIX))
    except ValueError:
        raw = b""
    if len(raw) != RAW_ID_BYTES:
        return ["the file's name is no object id"]
    if partition_of(raw) != int(partition):
        return [f"it lies in partition {partition} and belongs to {partition_of(raw):04d}"]
    return []


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
