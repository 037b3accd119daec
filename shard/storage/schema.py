"""What every object's database holds of ours: two tables, hidden from the app.

``_cf_KV`` has the key-value data, ``_cf_META`` what the file must say of itself: the object's name,
the generation that wrote it last, the alarm, and what :mod:`shard.storage.history` needs.
"""

from __future__ import annotations

import functools
from typing import Final

import apsw

PAGE_BYTES: Final = 4096
FORMAT: Final = 1
APPLICATION_ID: Final = 0x4C504554
"""What ``file(1)`` can tell our databases by: "LPET"."""

OWN_PAGES: Final = 2
"""Pages that our own tables take while they are empty."""

META_NAME: Final = "name"
META_GENERATION: Final = "generation"
META_EPOCH: Final = "epoch"
META_ALARM: Final = "alarm"
META_HISTORY: Final = "history"
"""Which of the object's logs this is and the time, as of the last stamp: a BLOB, see
:mod:`shard.storage.points`."""
META_RESTORE: Final = "restore"
"""The bookmark to go back to at the next start, and the name of that restoration."""
META_RESTORED: Final = "restored"
"""The name of the last restoration: a BLOB."""

_WAL_MODE: Final = 2


@functools.cache
def empty_database() -> bytes:
    """Return the contents of a new database file: in WAL mode, with our tables.

    A new object's file is written in one piece, instead of by SQLite in a dozen small ones.
    """
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute(
            "CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )
        connection.execute("CREATE TABLE _cf_META (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
        image = bytearray(connection.serialize("main"))
    finally:
        connection.close()
    # https://www.sqlite.org/fileformat.html#file_format_version_numbers
    image[18] = image[19] = _WAL_MODE
    return bytes(image)
