"""Goes back to an earlier state of an object: one commit that makes the database as it was.

As a commit it is in the log, or it is not; it waits for the disk like any other, later bookmarks
are greater than earlier ones, and it can itself be undone. The earlier state is built in a file
beside the database, which counts for nothing if the process dies meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import apsw

from common.ids import ObjectId
from shard.storage import meta
from shard.storage.bookmark import Bookmark, proof_of_object, read_bookmark
from shard.storage.database import Database
from shard.storage.points import STAMP
from shard.storage.schema import (
    META_ALARM,
    META_EPOCH,
    META_GENERATION,
    META_HISTORY,
    META_NAME,
    META_RESTORE,
    META_RESTORED,
)
from shard.storage.segment import HistoryDamaged
from shard.storage.timeline import Timeline

SUFFIX: Final = "-restore"

_READ_VERSIONS_AT: Final = 18
_GET: Final = "SELECT value FROM _cf_META WHERE key = ?"
_SET: Final = "INSERT OR REPLACE INTO _cf_META VALUES (?, ?)"


def write_wanted(bookmark: Bookmark, token: bytes) -> str:
    """Return what the file says of a restoration that is wanted."""
    return f"{bookmark} {token.hex()}"


def restore(
    database: Database,
    wanted: str,
    object_id: ObjectId,
    identity: meta.Identity,
    now_ms: int,
    alarm_moves: Callable[[int | None], None],
) -> None:
    """Do what :func:`write_wanted` says, in one commit. Not durable when it returns.

    Blocks for as long as copying the database and its history takes. *alarm_moves* is told when the
    alarm will be due, before the commit.

    Raises:
        JsException: the state is not there any more.
        HistoryDamaged: the history cannot be used.
        apsw.Error, OSError: the disk refuses.
    """
    text, _, token = wanted.partition(" ")
    timeline = Timeline(database, proof_of_object(object_id))
    place = timeline.find(read_bookmark(text))
    path = database.path + SUFFIX
    try:
        timeline.build(place, path)
        number, _ = meta.history(database)
        stamp = STAMP.pack(number if database.frames else number + 1, now_ms)
        source = _open(path)
        try:
            _sign(source, identity, stamp, bytes.fromhex(token))
            alarm_moves(source.execute(_GET, (META_ALARM,)).get)
            database.copy_from(source)
        finally:
            source.close()
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
    database.identity = database.stamped_ms = None


def _open(path: str) -> apsw.Connection:
    """Open a database that was built of pages; it gets no log of its own."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, b"\1\1", _READ_VERSIONS_AT)
    finally:
        os.close(fd)
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        found = connection.execute("PRAGMA quick_check(1)").get
        if found != "ok":
            raise HistoryDamaged(f"the state that was built is damaged: {found}")
    except apsw.Error as error:
        connection.close()
        raise HistoryDamaged(f"the state that was built is damaged: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _sign(connection: apsw.Connection, identity: meta.Identity, stamp: bytes, token: bytes) -> None:
    rows = [
        (META_GENERATION, identity.generation),
        (META_EPOCH, identity.epoch),
        (META_HISTORY, stamp),
        (META_RESTORED, token),
    ]
    if identity.name is not None:
        rows.append((META_NAME, identity.name))
    connection.executemany(_SET, rows)
    connection.execute("DELETE FROM _cf_META WHERE key = ?", (META_RESTORE,))
