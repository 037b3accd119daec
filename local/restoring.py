"""`limpet restore`: puts a backup in the place of what a data directory has. All of it, or nothing.

::

    stage     DATA_DIR/.restoring/   copies, each compared with its checksum; durable
    out       what was there is moved to DATA_DIR/.replaced-<time>/
    in        the copies are moved to their places

A crash while it stages leaves DATA_DIR as it was. From then on ``DATA_DIR/restoring.json`` says how
far it is: no shard starts while that is there, and the same command goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from common.errors import ConfigError, HeldElsewhere
from common.ids import PARTITION_COUNT, Partition
from common.ownership import LOCK_FILE, FlockOwnership
from common.settings import Settings
from local import manifest
from local.backup import Progress, Say, on_threads
from local.manifest import Entry, Manifest
from local.object_files import Damaged, checksum, objects_of, partitions_in, sync_file
from shard.still import RESTORING

STAGE: Final = ".restoring"
REPLACED: Final = ".replaced-"


@dataclass(frozen=True, slots=True)
class _State:
    """How far it is.

    Attributes:
        step: what is done next.
        list_sha256: tells which backup it is of.
        source: where that lies.
        replaced: name of the folder for what was there.
    """

    step: Literal["out", "in"]
    list_sha256: str
    source: str
    replaced: str


def restore(settings: Settings, folder: Path, say: Say, *, replace_objects: bool) -> Manifest:
    """Put the backup in *folder* into DATA_DIR; durable when this returns.

    Raises:
        ConfigError: a cluster uses DATA_DIR, objects are there already, or it is no backup.
        Damaged: the backup is; DATA_DIR is as it was.
    """
    data_dir = settings.data_dir
    about = manifest.read(folder)
    data_dir.mkdir(parents=True, exist_ok=True)
    ownership = FlockOwnership(data_dir)
    _lock(ownership, data_dir)
    try:
        state = _read_state(data_dir)
        if state is None:
            _refuse_objects(data_dir, replace_objects=replace_objects)
            _stage(data_dir, folder, list(manifest.entries_of(folder, about)), say)
            state = _State("out", about.list_sha256, str(folder.resolve()), _unused(data_dir))
            _write_state(data_dir, state)
        elif state.list_sha256 != about.list_sha256:
            raise ConfigError(
                f"a restoration of {state.source} was interrupted",
                where=f"DATA_DIR={data_dir}",
                remedy=f"Finish it first: limpet restore {state.source}",
            )
        _exchange(data_dir, state, say)
    finally:
        for partition in list(ownership.held()):
            ownership.release(partition)
    return about


def _lock(ownership: FlockOwnership, data_dir: Path) -> None:
    try:
        ownership.acquire(Partition(number) for number in range(PARTITION_COUNT))
    except HeldElsewhere as error:
        raise ConfigError(
            f"a cluster uses it: {error.what} is held by {error.holder or 'a process'}",
            where=f"DATA_DIR={data_dir}",
            remedy="Stop the cluster first, or restore into another --data-dir.",
        ) from None


def _refuse_objects(data_dir: Path, *, replace_objects: bool) -> None:
    if replace_objects:
        return
    count = sum(len(objects_of(data_dir, each)) for each in partitions_in(data_dir))
    if count:
        raise ConfigError(
            f"there are {count} objects already",
            where=f"DATA_DIR={data_dir}",
            remedy="Choose an empty --data-dir, or put the backup in their place with --replace.",
        )


def _stage(data_dir: Path, folder: Path, entries: list[Entry], say: Say) -> None:
    stage = data_dir / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
    parts: dict[Partition, list[Entry]] = {}
    for each in entries:
        parts.setdefault(Partition(int(each.path.split("/")[0])), []).append(each)
    progress = Progress(say, "copied")

    def copy(partition: Partition) -> None:
        for each in parts[partition]:
            target = stage / each.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(folder / each.path, target)
            except FileNotFoundError:
                raise Damaged(f"{folder / each.path}: the file is missing") from None
            if checksum(target) != each.sha256:
                raise Damaged(f"{folder / each.path}: the checksum is wrong")
            sync_file(target)
            progress.add(each.bytes)

    try:
        on_threads(copy, sorted(parts))
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    for path in (*stage.glob("*/*"), *stage.glob("*"), stage, data_dir):
        if path.is_dir():
            sync_file(path)


def _exchange(data_dir: Path, state: _State, say: Say) -> None:
    replaced = data_dir / state.replaced
    if state.step == "out":
        for partition in partitions_in(data_dir):
            _move(data_dir / f"{partition:04d}", replaced / f"{partition:04d}")
        state = replace(state, step="in")
        _write_state(data_dir, state)
    stage = data_dir / STAGE
    for partition in partitions_in(stage):
        _move(stage / f"{partition:04d}", data_dir / f"{partition:04d}")
    (data_dir / RESTORING).unlink()
    sync_file(data_dir)
    shutil.rmtree(stage, ignore_errors=True)
    if replaced.is_dir():
        say(f"what was there before lies in {replaced}: remove it when you need it no more")


def _unused(data_dir: Path) -> str:
    """A name for the folder of what is replaced."""
    name = f"{REPLACED}{time.strftime('%Y%m%d-%H%M%S')}"
    nth = 1
    while (data_dir / name).exists():
        nth += 1
        name = f"{name.partition('~')[0]}~{nth}"
    return name


def _move(source: Path, target: Path) -> None:
    """Move everything but the lock, which stays where processes look for it."""
    names = [name for name in os.listdir(source) if name != LOCK_FILE]
    if not names:
        return
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        os.rename(source / name, target / name)
    sync_file(target)
    sync_file(target.parent)
    sync_file(source)


def _read_state(data_dir: Path) -> _State | None:
    try:
        return _State(**json.loads((data_dir / RESTORING).read_text("utf-8")))
    except FileNotFoundError:
        return None


def _write_state(data_dir: Path, state: _State) -> None:
    manifest.write_durably(data_dir / RESTORING, json.dumps(asdict(state)).encode())
