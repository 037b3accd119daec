"""Finds a partition's alarms in its objects' own files, when its index does not know them all.

Reads one file after the other, on a thread, beside the objects that are in use. It takes no locks,
so that it is never in an object's way; whoever asks must not use what it says of an object that has
been opened meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from common.ids import RAW_ID_BYTES, Partition, partition_of
from shard.alarms.index_format import Entry
from shard.storage.failures import is_damaged
from shard.storage.layout import SUFFIX, folder_name, partition_folder, unique_key_of
from shard.storage.schema import META_ALARM, META_NAME

log = structlog.get_logger(__name__)

FILES_AT_ONCE: Final = 64

_QUERY: Final = "SELECT key, value FROM _cf_META WHERE key IN (?, ?)"


@dataclass(slots=True)
class Survey:
    """A survey of one partition.

    Attributes:
        partition: which.
        left: the files that are still to be read: the key of a namespace, and a path.
        unread: how many could not be read just now.
    """

    partition: Partition
    left: list[tuple[str, str]] = field(default_factory=list)
    unread: int = 0


def list_objects(data_dir: Path, survey: Survey, known: Iterable[str]) -> None:
    """Find the files of a partition's objects; on a thread.

    Args:
        data_dir: where partitions are.
        survey: whose files; they are added to it.
        known: the keys of the app's namespaces.

    Raises:
        OSError: they cannot be listed.
    """
    folders = {folder_name(key): key for key in known}
    root = partition_folder(data_dir, survey.partition)
    for name in _names(root):
        key = folders.get(name) or unique_key_of(name)
        if key is not None and os.path.isdir(f"{root}/{name}"):
            survey.left += [
                (key, f"{root}/{name}/{file}")
                for file in _names(f"{root}/{name}")
                if file.endswith(SUFFIX)
            ]


def read_some(survey: Survey, is_open: Callable[[str], bool]) -> list[Entry]:
    """What the next files of a survey say, those without an alarm included; on a thread.

    Args:
        survey: which.
        is_open: whether a file is in use: its object's alarm is known then.
    """
    entries: list[Entry] = []
    for _ in range(min(FILES_AT_ONCE, len(survey.left))):
        key, path = survey.left.pop()
        try:
            raw = bytes.fromhex(os.path.basename(path).removesuffix(SUFFIX))
        except ValueError:
            continue
        if len(raw) != RAW_ID_BYTES or partition_of(raw) != survey.partition or is_open(path):
            continue
        try:
            name, due_ms = _read(path)
        except (apsw.Error, OSError) as error:
            log.error("alarms.object_not_read", file=path, error=str(error))
            # One without our tables was being made when the power failed.
            survey.unread += not (is_damaged(error) or isinstance(error, apsw.SQLError))
        else:
            entries.append(Entry(key, raw, name, due_ms))
    return entries


def has_objects(data_dir: Path, partition: Partition) -> bool:
    """Whether there may be objects in a partition; on a thread."""
    root = partition_folder(data_dir, partition)
    return any(os.path.isdir(f"{root}/{name}") for name in _names(root))


def _read(path: str) -> tuple[str | None, int | None]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs="unix-none")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # Without shared memory, which would be one more file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        rows: list[Any] = connection.execute(_QUERY, (META_NAME, META_ALARM)).fetchall()
    finally:
        connection.close(True)
    meta = dict(rows)
    return meta.get(META_NAME), meta.get(META_ALARM)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
