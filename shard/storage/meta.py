"""What an object's file says of itself: name, generation, alarm."""

from __future__ import annotations

from typing import Final

from shard.storage.database import Database
from shard.storage.schema import META_ALARM, META_EPOCH, META_GENERATION, META_NAME

_GET: Final = "SELECT value FROM _cf_META WHERE key = ?"
_SET: Final = "INSERT OR REPLACE INTO _cf_META VALUES (?, ?)"
_DELETE: Final = "DELETE FROM _cf_META WHERE key = ?"


def alarm(database: Database) -> int | None:
    """When the alarm is due, in milliseconds since 1970."""
    due_ms: int | None = database.run(_GET, (META_ALARM,))
    return due_ms


def name(database: Database) -> str | None:
    """The object's name, if its file knows it."""
    known: str | None = database.run(_GET, (META_NAME,))
    return known


def set_alarm(database: Database, due_ms: int | None) -> None:
    """Set the alarm, or delete it."""
    if due_ms is None:
        database.run(_DELETE, (META_ALARM,))
    else:
        database.run(_SET, (META_ALARM, due_ms))


def is_fenced(database: Database, generation: int, epoch: str) -> bool:
    """Whether a later owner than *generation* has written the file.

    Generations of another epoch say nothing: they begin anew when the machine does.
    """
    written = database.run(_GET, (META_GENERATION,))
    return (
        written is not None and written > generation and database.run(_GET, (META_EPOCH,)) == epoch
    )


def write_identity(database: Database, name: str | None, generation: int, epoch: str) -> None:
    """Note in the open transaction whose file it is and who writes it, where that has changed."""
    identity = (name, generation, epoch)
    if database.identity == identity:
        return
    if database.run(_GET, (META_GENERATION,)) != generation:
        database.run(_SET, (META_GENERATION, generation))
    if database.run(_GET, (META_EPOCH,)) != epoch:
        database.run(_SET, (META_EPOCH, epoch))
    if name is not None and database.run(_GET, (META_NAME,)) != name:
        database.run(_SET, (META_NAME, name))
    database.identity = identity
