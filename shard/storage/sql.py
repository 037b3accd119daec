"""The app's SQL: statements run one after the other, rows read as they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

import apsw

from shard.storage.database import MAX_STATEMENT_CHARS, Database
from shard.storage.schema import OWN_PAGES, PAGE_BYTES
from shard.storage.sql_errors import (
    CANCELED,
    EARLY_BINDINGS,
    NO_STATEMENT,
    NOT_AUTHORIZED,
    TOO_LONG,
    TRANSACTION_STATEMENT,
    WRONG_BINDINGS,
)
from shard.storage.statements import is_empty, split
from workers.exceptions import JsException

_CREATE_READ, _CREATE_WRITTEN = 1, 2
"""What a change of the schema counts for, as Cloudflare counts it."""

_FOREIGN_NAMES: Final = (
    "SELECT 1 FROM sqlite_schema WHERE (lower(substr(name, 1, 4)) = '_cf_' "
    "OR lower(substr(tbl_name, 1, 4)) = '_cf_') "
    "AND tbl_name NOT IN ('_cf_KV', '_cf_META') LIMIT 1"
)
_INDEXES: Final = "SELECT count(*) FROM pragma_index_list(?)"

Row = tuple[Any, ...]


class Rows:
    """The rows of a statement (see :class:`workers.host.RowSource`).

    Those of a statement that writes are all there when it has run, and kept here. Those of one that
    reads come from SQLite as they are asked for.
    """

    __slots__ = (
        "__weakref__",
        "_cursor",
        "_failed",
        "_kept",
        "columns",
        "rows_read",
        "rows_written",
    )

    def __init__(self, failed: Callable[[apsw.Error], Exception]) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows_read = 0
        self.rows_written = 0
        self._cursor: apsw.Cursor | None = None
        self._kept: list[Row] | None = None
        self._failed = failed

    def fetch(self) -> Row | None:
        """See :class:`workers.host.RowSource`."""
        if self._kept is not None:
            if not self._kept:
                return None
            self.rows_read += 1
            return self._kept.pop()
        if self._cursor is None:
            return None
        try:
            row: Row | None = self._cursor.fetchone()
        except apsw.CursorClosedError:
            raise JsException(CANCELED, "Error") from None
        except apsw.Error as error:
            self._cursor = None
            raise self._failed(error) from None
        except UnicodeDecodeError as error:
            raise _undecodable(error) from None
        if row is None:
            self._cursor = None
        else:
            self.rows_read += 1
        return row

    @property
    def open(self) -> bool:
        """A statement is under way that has rows left."""
        return self._cursor is not None

    def keep(self) -> None:
        """Read what is left now, so that the statement ends."""
        kept: list[Row] = []
        read = self.rows_read
        while (row := self.fetch()) is not None:
            kept.append(row)
        self.rows_read = read
        self._kept = kept[::-1]

    def cancel(self) -> None:
        """End the statement: reading on fails."""
        if self._cursor is not None:
            self._cursor.close(True)


class SqlRunner:
    """Runs the SQL of one app on one open database.

    Args:
        database: which.
        begin: called before each statement that writes.
        failed: turns an error of SQLite into what is raised; some of them end the object.
    """

    def __init__(
        self,
        database: Database,
        begin: Callable[[], None],
        failed: Callable[[apsw.Error], Exception],
    ) -> None:
        self._database = database
        self._begin = begin
        self._failed = failed
        self._open: WeakSet[Rows] = WeakSet()
        self._index_counts: dict[str, int] = {}

    def exec(self, query: str, bindings: tuple[Any, ...]) -> Rows:
        """See :class:`workers.host.SqlHost`."""
        if len(query) > MAX_STATEMENT_CHARS:
            raise JsException(TOO_LONG, "Error")
        statements = split(query)
        for statement in statements[:-1]:
            self._run(statement, (), early=True)
        return self._run(statements[-1], bindings)

    @property
    def reading(self) -> bool:
        """A cursor is open."""
        return any(rows.open for rows in self._open)

    def end_reading(self) -> None:
        """Let the statements of all open cursors end, without loss."""
        for rows in list(self._open):
            if rows.open:
                rows.keep()

    def cancel_reading(self) -> None:
        """Let all open cursors fail from now on."""
        for rows in list(self._open):
            rows.cancel()

    def _run(
        self,
        statement: str,
        bindings: tuple[Any, ...],
        *,
        early: bool = False,
        converted: bool = False,
    ) -> Rows:
        rules = self._database.rules
        rules.forget()
        try:
            rows = self._execute(statement, bindings)
        except apsw.BindingsError:
            raise JsException(EARLY_BINDINGS if early else WRONG_BINDINGS, "Error") from None
        except apsw.Error as error:
            if rules.transaction_refused:
                raise JsException(TRANSACTION_STATEMENT, "Error") from None
            raise self._failed(error) from None
        except UnicodeDecodeError as error:
            raise _undecodable(error) from None
        except (OverflowError, TypeError, UnicodeEncodeError):
            # A value that SQLite has not: nothing has run.
            if converted:
                raise
            return self._run(statement, _convert(bindings), early=early, converted=True)
        if rows is None:
            raise JsException(NO_STATEMENT, "Error")
        return rows

    def _execute(self, statement: str, bindings: tuple[Any, ...]) -> Rows | None:
        """Run one statement; ``None`` if there is none."""
        database = self._database
        connection = database.connection
        rules = database.rules
        rows = Rows(self._failed)
        cursor = connection.cursor()
        changes = connection.total_changes()
        writes = ran = altering = False
        table: str | None = None

        def before(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
            nonlocal writes, ran, altering, table
            rows.columns = tuple([column[0] for column in cursor.get_description()])
            ran = bool(rows.columns) or not cursor.is_readonly or not is_empty(statement)
            if not cursor.is_readonly:
                writes = True
                alters, table = rules.facts_of(statement)
                self._begin()
                if alters:
                    database.run("SAVEPOINT _cf_alter")
                    altering = True
            return True

        cursor.exec_trace = before
        try:
            cursor.execute(statement, bindings, can_cache=rules.knows(statement))
            if rows.columns:
                rows._cursor = cursor
                if writes:
                    rows.keep()
                else:
                    self._open.add(rows)
        except apsw.Error:
            if altering and connection.in_transaction:
                database.run("ROLLBACK TO _cf_alter")
                database.run("RELEASE _cf_alter")
            raise
        except (UnicodeDecodeError, JsException):
            # What it writes is written before its first row comes. Left open, it would keep the
            # run from its commit for as long as the app holds the exception.
            cursor.close(True)
            raise
        if altering:
            self._check_names()
        if writes:
            self._wrote(rows, table, changes)
        return rows if ran else None

    def _check_names(self) -> None:
        """A table's definition was altered: undo that if anything has a name of ours now."""
        database = self._database
        refused = database.run(_FOREIGN_NAMES) is not None
        if refused:
            database.run("ROLLBACK TO _cf_alter")
        database.run("RELEASE _cf_alter")
        if refused:
            raise JsException(NOT_AUTHORIZED, "Error")

    def _wrote(self, rows: Rows, table: str | None, changes: int) -> None:
        if table is not None and not table.startswith("sqlite_"):
            changed = self._database.connection.total_changes() - changes
            rows.rows_written = changed * (1 + self._indexes(table)) if changed else 0
        else:
            self._index_counts.clear()
            rows.rows_read, rows.rows_written = _CREATE_READ, _CREATE_WRITTEN

    def _indexes(self, table: str) -> int:
        count = self._index_counts.get(table)
        if count is None:
            count = self._index_counts[table] = self._database.run(_INDEXES, (table,))
        return count


def size_of(database: Database) -> int:
    """Bytes of the pages in use, without those of our own empty tables."""
    pages: int = database.run("PRAGMA page_count") - database.run("PRAGMA freelist_count")
    return max(1, pages - OWN_PAGES) * PAGE_BYTES


def delete_everything(database: Database) -> None:
    """Drop whatever the app has made, and empty our tables but for what the file says of itself."""
    database.run("PRAGMA defer_foreign_keys = ON")
    for kind in ("trigger", "view", "table"):
        while (
            found := database.run(
                "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite\\_%' "
                "ESCAPE '\\' AND name NOT IN ('_cf_KV', '_cf_META') "
                "ORDER BY sql NOT LIKE 'create virtual %' LIMIT 1",
                (kind,),
            )
        ) is not None:
            name = str(found).replace('"', '""')
            database.run(f'DROP {kind} "{name}"')
    for table in ("sqlite_sequence", "sqlite_stat1", "sqlite_stat4"):
        if database.run("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)) is not None:
            database.run(f"DELETE FROM {table}")  # noqa: S608
    database.run("DELETE FROM _cf_KV")


def _convert(bindings: tuple[Any, ...]) -> tuple[Any, ...]:
    """Bindings that SQLite has refused as they were: corrected, or refused with a reason."""
    return tuple(map(_binding, bindings))


def _binding(value: Any) -> Any:
    if value is None or isinstance(value, float | bytes | bytearray | memoryview):
        return value
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise TypeError(
                f"SQL integers have 64 bits, {value:.3g} has more: store it as text"
                if abs(value) < 10**300
                else "SQL integers have 64 bits: store larger ones as text"
            )
        return int(value)
    raise TypeError(
        f"SQL bindings are None, bool, int, float, str or bytes, not {type(value).__name__}: "
        "convert it first, for example with str() or json.dumps()"
    )


def _undecodable(error: UnicodeDecodeError) -> JsException:
    return JsException(f"a TEXT value is not valid UTF-8 ({error}): read it as a BLOB", "Error")
