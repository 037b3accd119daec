"""``ctx.storage.sql``: the object's own SQLite database.

https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#sql-api
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from workers.convert import JsDict
from workers.exceptions import JsException

if TYPE_CHECKING:
    from workers.host import RowSource, SqlHost


class SqlStorage:
    """SQL on the object's own database.

    Values go in and come out as ``None``, ``int`` (64 bits, exact), ``float``, ``str`` and
    ``bytes``; ``bool`` goes in as 0 or 1, and NaN as NULL.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#sql-api
    """

    __slots__ = ("_host",)

    def __init__(self, host: SqlHost) -> None:
        self._host = host

    def exec(self, query: str, *bindings: Any) -> SqlStorageCursor:
        """Run SQL at once; the cursor gives the rows of its last statement.

        Args:
            query: one statement or several; only the last may have parameters.
            bindings: the values of ``?``, ``?1``, ``:name`` … in the order of their numbers.

        Raises:
            JsException: SQLite refuses it, with SQLite's message and code; or it is a statement,
                function or pragma that objects may not use.
            TypeError: a binding of another type.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#exec
        """
        if type(query) is not str:
            query = str(query)
        return SqlStorageCursor(self._host.exec(query, bindings))

    @property
    def databaseSize(self) -> int:
        """Size of the database in bytes: its pages in use.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#databasesize
        """
        return self._host.database_size

    @property
    def database_size(self) -> int:
        """The same as :attr:`databaseSize`."""
        return self._host.database_size

    def __repr__(self) -> str:
        return "<SqlStorage>"


class SqlStorageCursor:
    """The rows of a statement, each once: all ways of reading share one position.

    A row is a dict that can be read with attributes too: ``row["name"]``, ``row.name``. Of columns
    with the same name it keeps the last; :meth:`raw` keeps all. A cursor of a ``SELECT`` reads on
    as it is asked, past awaits and commits.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#returns-1
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: RowSource) -> None:
        self._rows = rows

    def next(self) -> JsDict:
        """Return ``{"done": False, "value": row}``, or ``{"done": True}`` after the last row."""
        row = self._rows.fetch()
        if row is None:
            return JsDict(done=True, value=None)
        return JsDict(done=False, value=JsDict(zip(self._rows.columns, row, strict=True)))

    def toArray(self) -> list[JsDict]:
        """Return the rows that are left."""
        columns = self._rows.columns
        return [JsDict(zip(columns, row, strict=True)) for row in iter(self._rows.fetch, None)]

    def one(self) -> JsDict:
        """Return the only row that is left.

        Raises:
            JsException: there is none, or more than one.
        """
        row = self._rows.fetch()
        if row is None:
            raise JsException(
                "Expected exactly one result from SQL query, but got no results.", "Error"
            )
        if self._rows.fetch() is not None:
            raise JsException(
                "Expected exactly one result from SQL query, but got multiple results.", "Error"
            )
        return JsDict(zip(self._rows.columns, row, strict=True))

    def raw(self) -> RawRows:
        """Iterate over the rows as lists, with every column."""
        return RawRows(self._rows.fetch)

    @property
    def columnNames(self) -> list[str]:
        """The names of the columns; ``[]`` for a statement without a result."""
        return list(self._rows.columns)

    @property
    def rowsRead(self) -> int:
        """How many rows have been read so far."""
        return self._rows.rows_read

    @property
    def rowsWritten(self) -> int:
        """How many rows, index entries included, have been written."""
        return self._rows.rows_written

    to_array = toArray
    column_names = columnNames
    rows_read = rowsRead
    rows_written = rowsWritten

    def __iter__(self) -> Iterator[JsDict]:
        return self

    def __next__(self) -> JsDict:
        row = self._rows.fetch()
        if row is None:
            raise StopIteration
        return JsDict(zip(self._rows.columns, row, strict=True))

    def __repr__(self) -> str:
        return f"<SqlStorageCursor of {', '.join(self._rows.columns) or 'nothing'}>"


class RawRows(Iterator[list[Any]]):
    """The rows of a cursor as lists."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[], tuple[Any, ...] | None]) -> None:
        self._fetch = fetch

    def __next__(self) -> list[Any]:
        row = self._fetch()
        if row is None:
            raise StopIteration
        return list(row)

    def next(self) -> JsDict:
        """Return ``{"done": False, "value": row}``, or ``{"done": True}`` after the last row."""
        row = self._fetch()
        return JsDict(done=row is None, value=None if row is None else list(row))

    def toArray(self) -> list[list[Any]]:
        """Return the rows that are left."""
        return list(self)

    to_array = toArray
