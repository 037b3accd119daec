"""What a backup says of itself.

::

    DIR/unfinished                                     while it is being made, or was not finished
    DIR/manifest.json                                  written last: counts, versions, times
    DIR/objects.jsonl                                  a line for each object: path, bytes, sha256
    DIR/<partition>/<namespace>/<object id>.sqlite     the objects
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import ConfigError
from local.object_files import Damaged, sync_file

FORMAT: Final = 1
UNFINISHED: Final = "unfinished"
MANIFEST: Final = "manifest.json"
LIST: Final = "objects.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a backup.

    Attributes:
        path: of its file, in the backup.
        bytes: its size.
        sha256: of its contents.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module.

    Attributes:
        format: of the backup.
        objects, bytes: how many there are, and their size together.
        namespaces: how many objects each namespace's folder has.
        began_at, ended_at: when it was made, ISO 8601.
        running: whether a cluster ran meanwhile.
        versions: of Limpet, SQLite and Python.
        list_sha256: of the list of objects.
        damaged: objects that are not in it, because their files are not in order.
    """

    format: int
    objects: int
    bytes: int
    namespaces: dict[str, int]
    began_at: str
    ended_at: str
    running: bool
    versions: dict[str, str]
    list_sha256: str
    damaged: list[str]


def begin(folder: Path) -> None:
    """Make the folder of a new backup.

    Raises:
        ConfigError: it has something in it, or cannot be made.
    """
    where = str(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = sorted(each.name for each in folder.iterdir())
        if not there:
            (folder / UNFINISHED).touch()
            sync_file(folder)
            sync_file(folder.parent)
            return
    except OSError as error:
        raise ConfigError(
            f"cannot be used: {error.strerror}", where=where, remedy="Choose another folder."
        ) from None
    if UNFINISHED in there:
        said = "there is a backup that was not finished"
    elif MANIFEST in there:
        said = "there is a backup already"
    else:
        said = f"the folder is not empty ({there[0]!r} is there)"
    raise ConfigError(said, where=where, remedy="Give each backup a folder of its own.")


def finish(folder: Path, entries: list[Entry], **about: Any) -> Manifest:
    """Write what the backup says of itself; durable when this returns."""
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in entries).encode()
    namespaces: dict[str, int] = {}
    for each in entries:
        name = each.path.split("/")[1]
        namespaces[name] = namespaces.get(name, 0) + 1
    manifest = Manifest(
        format=FORMAT,
        objects=len(entries),
        bytes=sum(each.bytes for each in entries),
        namespaces=namespaces,
        list_sha256=hashlib.sha256(lines).hexdigest(),
        **about,
    )
    write_durably(folder / LIST, lines)
    write_durably(folder / MANIFEST, json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    (folder / UNFINISHED).unlink()
    sync_file(folder)
    return manifest


def read(folder: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        ConfigError: there is no whole backup.
    """
    where = str(folder)
    if (folder / UNFINISHED).exists():
        raise ConfigError(
            "this backup was not finished", where=where, remedy="Make another, and remove this one."
        )
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"this is no backup: {error}", where=where, remedy="Name the folder of a backup."
        ) from None
    if manifest.format != FORMAT:
        raise ConfigError(
            f"the backup has format {manifest.format}, this version reads {FORMAT}",
            where=where,
            remedy="Use the version of Limpet that it names.",
        )
    return manifest


def entries_of(folder: Path, manifest: Manifest) -> Iterator[Entry]:
    """The objects of a backup.

    Raises:
        Damaged: the list is not the one that was written.
    """
    try:
        lines = (folder / LIST).read_bytes()
    except OSError as error:
        raise Damaged(f"{folder / LIST}: {error.strerror}") from None
    if hashlib.sha256(lines).hexdigest() != manifest.list_sha256:
        raise Damaged(f"{folder / LIST}: the checksum is wrong")
    for line in lines.splitlines():
        yield Entry(**json.loads(line))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file in one piece: after a crash it is there whole, or not."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    sync_file(new)
    os.replace(new, path)
    sync_file(path.parent)
