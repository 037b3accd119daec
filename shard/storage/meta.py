"""What an object's file says of itself: name, generation, alarm, history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shard.storage.database import Database
from shard.storage.points import STAMP
from shard.storage.schema import (
    META_ALARM,
    META_EPOCH,
    META_GENERATION,
    META_HISTORY,
    META_NAME,
    META_RESTORE,
)

_GET: Final = "SELECT value FROM _cf_META WHERE key = ?"
_SET: Final = "INSERT OR REPLACE INTO _cf_META VALUES (?, ?)"
_DELETE: Final = "DELETE FROM _cf_META WHERE key = ?"

STAMP_INTERVAL_MS: Final = 1000
"""How exactly the time of a commit is kept. One row more is written this often, not each time."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose file it is, and who writes it.

    Attributes:
        name: of the object, if it is known.
        generation: at which its partition is owned.
        epoch: during which generations rise.
    """

    name: str | None
    generation: int
    epoch: str


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


def history(database: Database) -> tuple[int, int]:
    """The number of the log that was written last, and the time of the last stamp; 0 if none."""
    stamp = database.run(_GET, (META_HISTORY,))
    number, at_ms = (0, 0) if stamp is None else STAMP.unpack(stamp)
    return number, at_ms


def write_stamp(database: Database, now_ms: int) -> None:
    """Note in the open transaction what the time is, and the log's number if it is a new one."""
    stamped_ms = database.stamped_ms
    if (
        stamped_ms is not None
        and database.frames
        and -STAMP_INTERVAL_MS < now_ms - stamped_ms < STAMP_INTERVAL_MS
    ):
        return
    number, _ = history(database)
    if not database.frames:
        number += 1
    database.run(_SET, (META_HISTORY, STAMP.pack(number, now_ms)))
    database.stamped_ms = now_ms


def restore_wanted(database: Database) -> str | None:
    """What :func:`want_restore` has noted."""
    wanted: str | None = database.run(_GET, (META_RESTORE,))
    return wanted


def want_restore(database: Database, wanted: str | None) -> None:
    """Note what to go back to at the next start; ``None`` is nothing."""
    if wanted is None:
        database.run(_DELETE, (META_RESTORE,))
    else:
        database.run(_SET, (META_RESTORE, wanted))
