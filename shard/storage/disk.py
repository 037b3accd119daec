"""What durability needs of a disk beside SQLite. Tests put slow or failing ones in its place."""

from __future__ import annotations

import os


class Disk:
    """The real one. All methods may block, so they are called on threads."""

    @property
    def is_plain(self) -> bool:
        """``sync_data`` is the kernel's ``fdatasync`` and nothing else."""
        return type(self).sync_data is Disk.sync_data

    def sync_data(self, fd: int, path: str) -> None:
        """Return when the file's contents are on disk.

        Raises:
            OSError: they are not, and it is unknown how much of them is.
        """
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)

    def sync_folder(self, path: str) -> None:
        """Return when the names of the files in a folder are on disk.

        Raises:
            OSError: they are not.
        """
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_way(self, path: str, folders: int) -> None:
        """Return when *path* will be found: its name, and those of the folders above it.

        Args:
            path: of a file.
            folders: how many of the folders above it.

        Raises:
            OSError: one of the names is not on disk.
        """
        for _ in range(folders):
            path = os.path.dirname(path)
            self.sync_folder(path)

    def replace(self, path: str, new_path: str) -> None:
        """Give a file another name, and take that from the file that has it.

        Raises:
            OSError: it has its old one.
        """
        os.replace(path, new_path)
