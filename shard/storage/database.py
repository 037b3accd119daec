"""One object's database while it is open: a connection, its rules, and its write-ahead log.

Calls run on the event loop's thread and are answered from SQLite's cache. Nothing here waits for
the disk: ``synchronous=OFF``, no automatic checkpoints. What makes a commit last is in
:mod:`shard.storage.commit_log`; checkpoints are ours (:meth:`Database.checkpoint`, on a thread).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Final

import apsw

from common.ids import Partition
from shard.storage.authorizer import Authorizer
from shard.storage.disk import Disk
from shard.storage.history import History, Log
from shard.storage.log_frames import FRAME_BYTES, LOG_HEAD_BYTES, read_salts
from shard.storage.points import STAMP
from shard.storage.rescue import STRANGER, is_displaced, put_back
from shard.storage.schema import META_HISTORY, empty_database
from shard.storage.wal import WalFile, cut_to_durable

MAX_STATEMENT_CHARS: Final = 100_000
MAX_VALUE_BYTES: Final = 8 << 20
"""Of a string, a blob, and a row."""

_LIMITS: Final = (
    (apsw.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (apsw.SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT_CHARS),
    (apsw.SQLITE_LIMIT_COLUMN, 100),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (apsw.SQLITE_LIMIT_COMPOUND_SELECT, 5),
    (apsw.SQLITE_LIMIT_VDBE_OP, 25_000),
    (apsw.SQLITE_LIMIT_FUNCTION_ARG, 127),
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
    (apsw.SQLITE_LIMIT_VARIABLE_NUMBER, 100),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 10),
)
RESERVE_FROM_BYTES: Final = 64 * 1024
"""A log that has become this long is an active object's: room is made for what comes."""

_SECTOR_BYTES: Final = 512

# Our statements are compiled with a flag that the app's have not: the cache of compiled statements
# tells them apart by it, so an app that writes one of ours word for word does not get ours.
_OURS: Final = apsw.SQLITE_PREPARE_PERSISTENT


class Database:
    """An open database.

    Args:
        path: of the file; it is made, with its folders, if it does not exist.
        disk: see :mod:`shard.storage.disk`.
        cache_bytes: how much of it SQLite keeps in memory at most.
        history: keeps what checkpoints replace; none does by default.

    Attributes:
        connection: SQLite's own.
        rules: decides what SQL may do; everything while ``rules.trusted``.
        wal: its write-ahead log, once something needs to last.
        wal_bytes: length of the log.
        frames: how many pages the log has that count: those of whole commits.
        inherited: the log had contents at the opening, which may not be on disk.
        busy: a thread has the connection; :meth:`wait` waits for it.
        right: the partition and the generation by whose right it was opened.
        identity: what the file says of itself, as far as it was written in this opening.
        stamped_ms: the time that it says, likewise.
        history: what its checkpoints replaced.
        used: something was read or written since this was last set to false.

    Raises:
        apsw.Error, OSError: it cannot be opened.
    """

    __slots__ = (
        "_created_fd",
        "_cursor",
        "_disk",
        "_execute",
        "_idle",
        "_inode",
        "_opened_bytes",
        "_reserved_bytes",
        "_wal_pages",
        "connection",
        "frames",
        "history",
        "identity",
        "inherited",
        "is_open",
        "path",
        "right",
        "rules",
        "stamped_ms",
        "used",
        "wal",
        "wal_bytes",
    )

    def __init__(
        self, path: str, disk: Disk, cache_bytes: int, history: History | None = None
    ) -> None:
        self.path = path
        self.history = history or History(path, disk, 0, 0)
        self.wal: WalFile | None = None
        self.rules = Authorizer()
        self.used = True
        self.identity: object = None
        self.right: tuple[Partition, int | None] = Partition(0), None
        self.stamped_ms: int | None = None
        self._disk = disk
        self._wal_pages = 0
        self._reserved_bytes = 0
        self._idle = threading.Event()
        self._idle.set()
        self._created_fd = _create(path)
        self.wal_bytes = self._opened_bytes = _size(f"{path}-wal")
        self.inherited = self.wal_bytes > 0
        self._inode = os.stat(path).st_ino
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self.connection = connection
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
            self._cursor = connection.cursor()
            self._execute = self._cursor.execute
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "synchronous = OFF",
                "wal_autocheckpoint = 0",
                "foreign_keys = ON",
                "temp_store = MEMORY",
                f"cache_size = -{cache_bytes >> 10}",
            ):
                self.run(f"PRAGMA {pragma}")
            for limit, value in _LIMITS:
                connection.limit(limit, value)
            connection.set_wal_hook(self._committed)
            connection.authorizer = self.rules
            # The first access makes the log, and replays it.
            self.run("SELECT count(*) FROM _cf_META")
            self.frames = self._count_frames()
        except BaseException:
            self._drop_connection()
            raise
        self.is_open = True

    def run(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        """Run a statement of ours to its end; its only value, its only row, or its rows."""
        rules = self.rules
        rules.trusted = True
        try:
            return self._execute(sql, bindings, prepare_flags=_OURS).get
        finally:
            rules.trusted = False

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement of ours; all rows."""
        rules = self.rules
        rules.trusted = True
        try:
            return self._execute(sql, bindings, prepare_flags=_OURS).fetchall()
        finally:
            rules.trusted = False

    def commit(self) -> bool:
        """Commit; whether anything was appended to the log."""
        self._wal_pages = 0
        self.run("COMMIT")
        if not self._wal_pages:
            return False
        self.frames = self._wal_pages
        self.wal_bytes = length = LOG_HEAD_BYTES + self._wal_pages * FRAME_BYTES
        if length > self._reserved_bytes - FRAME_BYTES and length >= RESERVE_FROM_BYTES:
            self._reserved_bytes = self.durable_log().reserve(length)
        return True

    def copy_from(self, source: apsw.Connection) -> None:
        """Make this database like another one, in one commit; no transaction may be open."""
        self.rules.trusted = True
        try:
            with self.connection.backup("main", source, "main") as copying:
                copying.step(-1)
        finally:
            self.rules.trusted = False
        self.frames = self._count_frames()
        self.wal_bytes = LOG_HEAD_BYTES + self.frames * FRAME_BYTES

    def durable_log(self) -> WalFile:
        """The log, as what has to last."""
        if self.wal is None:
            self.wal = WalFile(
                self.path, self._disk, self._created_fd, self._opened_bytes, self._inode
            )
            self._created_fd = None
        return self.wal

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        return self.connection.in_transaction

    def wait(self) -> None:
        """Wait until no thread has the connection."""
        self._idle.wait()

    @property
    def busy(self) -> bool:
        """A thread has the connection."""
        return not self._idle.is_set()

    def lend(self) -> None:
        """A thread will have the connection: from now on :attr:`busy`."""
        self._idle.clear()

    def checkpoint(self, now_ms: int) -> None:
        """Move the log into the database and empty it; on a thread, after :meth:`lend`.

        What is replaced goes into the history first.

        No statement may be under way.

        Raises:
            apsw.Error, OSError: it failed; nothing is lost.
        """
        try:
            log = self.durable_log()
            # The log is durable before the database is written, the database before the log is
            # emptied, and that before it is written again: at any moment one of them is whole.
            log.sync(self.wal_bytes)
            self._keep_history(log, now_ms)
            frames, copied = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            log.sync_database()
            if copied < frames:
                return  # a statement reads the log
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            log.cut()
            self.wal_bytes = self._reserved_bytes = self.frames = 0
        finally:
            self._idle.set()

    def _keep_history(self, log: WalFile, now_ms: int) -> None:
        if not self.frames:
            return
        stamp = self.run("SELECT value FROM _cf_META WHERE key = ?", (META_HISTORY,))
        number = 0 if stamp is None else STAMP.unpack(stamp)[0]
        moved = Log(number, read_salts(log.fd), log.fd, self.frames, log.database_fd())
        self.history.keep(moved, now_ms)

    def close(self) -> None:
        """Close it; the log stays as it is. No effect if it is closed."""
        if self.is_open:
            self.is_open = False
            self.wait()
            self._drop_connection()

    @property
    def displaced(self) -> bool:
        """Its files were deleted or replaced: closing it now would lose what it holds."""
        return self.is_open and is_displaced(self.path, self._inode, self.wal_bytes)

    def give_up(self) -> None:
        """Lend it for good: :meth:`put_back` closes it, and nobody else uses it any more."""
        self.wait()
        self.is_open = False
        self.lend()

    def put_back(self) -> None:
        """Write it anew at its place, and close it; on a thread, after :meth:`give_up`.

        Raises:
            apsw.Error, OSError: it failed.
        """
        try:
            put_back(self, self._inode, self._disk)
        finally:
            self._drop_connection()
            self._idle.set()

    def abandon(self) -> None:
        """Close it after a failed sync: what is not known to be on disk is dropped.

        Raises:
            OSError: the disk is still out of order.
        """
        durable = None if self.wal is None else self.wal.durable_bytes
        self.close()
        if durable is not None:
            cut_to_durable(f"{self.path}-wal", durable)

    def _count_frames(self) -> int:
        frames, _ = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        return frames

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _drop_connection(self) -> None:
        self.is_open = False
        self.connection.close(True)
        if self.wal is not None:
            self.wal.close()
        elif self._created_fd is not None:
            os.close(self._created_fd)
            self._created_fd = None


def _create(path: str) -> int | None:
    """Make the file if there is none; a descriptor of it if it may not be on disk."""
    image = empty_database()
    try:
        size = os.stat(path).st_size
        if size > len(image):
            return None
        torn = _was_being_made(path, image)
        if size == len(image) and not torn:
            # No checkpoint has written it, so whoever made it may have died before it was synced.
            return os.open(path, os.O_RDWR)
        if not torn:
            return None
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, image, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _was_being_made(path: str, image: bytes) -> bool:
    """Whether the power failed while the file was being made: parts of the image are missing.

    It is on disk before anything in its log is told, so that log was told to nobody: it is dropped.
    Where no byte of the file is left to show that, its log is kept under another name.
    """
    with open(path, "rb") as file:
        written = file.read()
    for start in range(0, len(written), _SECTOR_BYTES):
        piece = written[start : start + _SECTOR_BYTES]
        if piece.strip(b"\0") and piece != image[start : start + len(piece)]:
            return False
    if written == image:
        return False
    log = f"{path}-wal"
    if not written and _size(log):
        os.replace(log, f"{log}{STRANGER}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)
    return True


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
