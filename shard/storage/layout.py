"""Where files lie.

::

    DATA_DIR/<partition>/owner                              common.ownership
                         alarms.index                       shard.alarms.index_file
                         <namespace>/<object id>.sqlite     shard.storage.database
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from common.ids import ObjectId, Partition
from common.ownership import LOCK_FILE

SUFFIX: Final = ".sqlite"
FOLDERS: Final = 3
"""How many folders of ours are above a database: its namespace's, its partition's, ``DATA_DIR``."""
ALARM_INDEX: Final = "alarms.index"
MAX_FOLDER_CHARS: Final = 120


def folder_name(unique_key: str) -> str:
    """Return the name of a namespace's folder: its key, with what file systems dislike escaped."""
    name = quote(unique_key, safe="-_.~ ")
    if not name.strip(". ") or name == LOCK_FILE or name.startswith(ALARM_INDEX):
        name = "".join(f"%{byte:02X}" for byte in unique_key.encode()) or "%"
    if len(name) > MAX_FOLDER_CHARS:
        digest = hashlib.sha256(unique_key.encode()).hexdigest()[:16]
        name = f"{name[: MAX_FOLDER_CHARS - 17]}~{digest}"
    return name


def database_path(data_dir: Path, unique_key: str, object_id: ObjectId) -> str:
    """Return the path of an object's database."""
    return f"{data_dir}/{object_id.partition:04d}/{folder_name(unique_key)}/{object_id}{SUFFIX}"


def unique_key_of(folder: str) -> str | None:
    """Return the key of the namespace whose folder that is; ``None`` if it cannot be told."""
    key = unquote(folder)
    return key if folder_name(key) == folder else None


def partition_folder(data_dir: Path, partition: Partition) -> str:
    """Return the path of a partition's folder."""
    return f"{data_dir}/{partition:04d}"


def alarm_index_path(data_dir: Path, partition: Partition) -> str:
    """Return the path of a partition's index of alarms."""
    return f"{partition_folder(data_dir, partition)}/{ALARM_INDEX}"
