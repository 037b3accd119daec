"""What went wrong with an object's file, and what that means for the object and its callers."""

from __future__ import annotations

from typing import Final

import apsw

from common.errors import LimpetError, StorageError, StorageUnavailable, Unavailable
from shard.storage.commit_log import Outcome

_REFUSING: Final = frozenset({
    apsw.SQLITE_BUSY, apsw.SQLITE_CANTOPEN, apsw.SQLITE_FULL, apsw.SQLITE_IOERR,
    apsw.SQLITE_NOMEM, apsw.SQLITE_PERM, apsw.SQLITE_READONLY, apsw.SQLITE_PROTOCOL,
})  # fmt: skip
_DAMAGED: Final = frozenset({apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB, apsw.SQLITE_FORMAT})


def storage_failure(error: BaseException, path: str) -> LimpetError | None:
    """Return what *error* means if it is the file's or the disk's fault; ``None`` if the app's.

    All of them are raised before anything was committed.
    """
    if isinstance(error, OSError):
        return StorageUnavailable(f"the object's storage is not available: {path}: {error}")
    if not isinstance(error, apsw.Error):
        return None
    code = getattr(error, "result", apsw.SQLITE_ERROR) & 0xFF
    if code in _REFUSING:
        return StorageUnavailable(f"the object's storage is not available: {path}: {error}")
    if code in _DAMAGED:
        return StorageError(f"the object's storage is damaged: {path}: {error}")
    return None


def is_damaged(error: BaseException) -> bool:
    """Whether a file is damaged, so that it is of no use to try again."""
    return isinstance(error, apsw.Error) and getattr(error, "result", 0) & 0xFF in _DAMAGED


def commit_failure(outcome: Outcome, error: BaseException | None, path: str) -> LimpetError:
    """Return what callers are told of a commit that was not acknowledged."""
    if outcome is Outcome.FENCED:
        return Unavailable("the object has moved to another process")
    return StorageError(
        f"the disk failed while a commit was written, which may or may not last: {path}: {error}"
    )
