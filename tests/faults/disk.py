"""The disk of real processes: it fails on command, and forgets what was not synced."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("disk.c")
COMPILER = shutil.which("cc")
KINDS = {"write": 1, "sync": 2, "truncate": 4, "open": 8}
_HEAD = struct.Struct("iiii240s")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


class RealDisk:
    """What the processes that are started with :meth:`environ` have as their disk.

    Args:
        folder: for the library and what it keeps.
        shadow: whether to keep what was synced, for :meth:`cut_power`.
    """

    def __init__(self, folder: Path, *, shadow: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        assert COMPILER is not None
        self._library = folder / "disk.so"
        flags = ("-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        command = [COMPILER, *flags, str(SOURCE), "-o", str(self._library), "-ldl", "-pthread"]
        subprocess.run(command, check=True)
        self._shadow = folder / "shadow" if shadow else None
        if self._shadow is not None:
            self._shadow.mkdir()
        path = folder / "control"
        path.write_bytes(bytes(_HEAD.size))
        self._control_path = path
        with path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _HEAD.size)

    def environ(self) -> dict[str, str]:
        """Environment variables for the processes."""
        shadow = {} if self._shadow is None else {"FAULTS_SHADOW": str(self._shadow)}
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTS_CONTROL": str(self._control_path),
            **shadow,
        }

    @contextmanager
    def failing(self, *kinds: str, match: str, error: int = 0, delay_ms: int = 0) -> Iterator[None]:
        """Let calls of these kinds on paths that contain *match* fail, or take their time."""
        mask = sum(KINDS[kind] for kind in kinds)
        name = match.encode()
        # What switches it on comes last.
        self._control[4 : _HEAD.size] = _HEAD.pack(0, error, delay_ms, 0, name)[4:]
        self._control[:4] = struct.pack("i", mask)
        try:
            yield
        finally:
            self._control[:4] = bytes(4)

    @property
    def hits(self) -> int:
        """How many calls have failed or were late, since :meth:`failing` was entered."""
        found: int = struct.unpack_from("i", self._control, 12)[0]
        return found

    def close(self) -> None:
        """Let the control file go."""
        self._control.close()

    def cut_power(self, data: Path) -> dict[str, int]:
        """Leave of *data*, whose processes are dead, what was synced; counts what was dropped."""
        assert self._shadow is not None
        counts = {"files": 0, "never synced": 0, "changed since": 0, "names lost": 0}
        copy = data.with_name(f"{data.name}.cut")
        self._rebuild(data, copy, counts)
        shutil.rmtree(data)
        copy.rename(data)
        # The new files have new inodes; what is in them is on disk.
        for old in self._shadow.iterdir():
            old.unlink()
        for path in (data, *data.rglob("*")):
            self._keep(path)
        return counts

    def _rebuild(self, real: Path, copy: Path, counts: dict[str, int]) -> None:
        assert self._shadow is not None
        copy.mkdir()
        known = self._shadow / str(real.stat().st_ino)
        names = set()
        for line in known.read_text().splitlines() if known.exists() else ():
            inode, is_folder, name = line.split(" ", 2)
            names.add(name)
            here = real / name
            if is_folder == "1":
                if here.exists():
                    self._rebuild(here, copy / name, counts)
                continue
            counts["files"] += 1
            kept = self._shadow / inode
            if name == "owner":
                # Locks need no sync. That generations begin anew with the power is right only
                # because the boot is another one then, and here it is not.
                shutil.copyfile(here, copy / name)
            elif kept.exists():
                shutil.copyfile(kept, copy / name)
                if here.exists() and here.read_bytes() != kept.read_bytes():
                    counts["changed since"] += 1
            else:
                counts["never synced"] += 1
                (copy / name).touch()
        counts["names lost"] += len({each.name for each in real.iterdir()} - names)

    def _keep(self, path: Path) -> None:
        assert self._shadow is not None
        kept = self._shadow / str(path.stat().st_ino)
        if path.is_dir():
            entries = sorted(path.iterdir())
            lines = [f"{each.stat().st_ino} {int(each.is_dir())} {each.name}" for each in entries]
            kept.write_text("".join(f"{line}\n" for line in lines))
        else:
            shutil.copyfile(path, kept)


@contextmanager
def real_disk(
    folder: Path, patch: pytest.MonkeyPatch, *, shadow: bool = False
) -> Iterator[RealDisk]:
    """A disk for the processes that the test starts."""
    disk = RealDisk(folder, shadow=shadow)
    for name, value in disk.environ().items():
        patch.setenv(name, value)
    try:
        yield disk
    finally:
        for name in disk.environ():
            patch.delenv(name)
        disk.close()
