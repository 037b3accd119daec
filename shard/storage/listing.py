"""The objects that a data directory holds, whether a cluster runs on it or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shard.storage.glance import read_identity
from shard.storage.layout import SUFFIX, unique_key_of
from shard.storage.schema import META_ALARM, META_NAME


@dataclass(frozen=True, slots=True)
class Listed:
    """An object that has a file.

    Attributes:
        unique_key: of its namespace; the folder's name if the key cannot be told from it.
        object_id: 64 hex digits.
        name: what it was named with, if its file knows.
        alarm_ms: when its alarm is due, in milliseconds since 1970.
        size_bytes: of its database and its log.
        path: of its database.
    """

    unique_key: str
    object_id: str
    name: str | None
    alarm_ms: int | None
    size_bytes: int
    path: str


def objects(data_dir: Path, unique_keys: frozenset[str] | None = None) -> Iterator[Listed]:
    """List the objects of these namespaces, or of all, by namespace and id.

    Files that go or cannot be read meanwhile are left out.
    """
    for folder in sorted(data_dir.glob("[0-9][0-9][0-9][0-9]/*/"), key=lambda each: each.name):
        key = unique_key_of(folder.name) or folder.name
        if unique_keys is not None and key not in unique_keys:
            continue
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                known = read_identity(str(path))
                size = path.stat().st_size + _size(f"{path}-wal")
            except OSError:
                continue
            if known is not None:
                name, alarm = known.get(META_NAME), known.get(META_ALARM)
                yield Listed(key, path.stem, name, alarm, size, str(path))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
