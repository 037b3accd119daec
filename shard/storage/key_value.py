"""The key-value data in a database: a table of keys and serialized values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shard.storage.database import MAX_VALUE_BYTES, Database
from shard.storage.sql_errors import TOO_BIG
from workers.convert import JsDict
from workers.exceptions import JsException
from workers.key_range import KeyRange
from workers.serialization import deserialize, serialize

_GET: Final = "SELECT value FROM _cf_KV WHERE key = ?"
_PUT: Final = "INSERT OR REPLACE INTO _cf_KV VALUES (?, ?)"
_DELETE: Final = "DELETE FROM _cf_KV WHERE key = ?"

_ROW_OVERHEAD_BYTES: Final = 12


def _select(low: str, high: str, order: str) -> str:
    bounds = " AND ".join(each for each in (low, high) if each)
    where = f" WHERE {bounds}" if bounds else ""
    return f"SELECT key, value FROM _cf_KV{where} ORDER BY key{order} LIMIT ?"  # noqa: S608


_SELECTS: Final = {
    (low, high, reverse): _select(low, high, " DESC" if reverse else "")
    for low in ("", "key >= ?", "key > ?")
    for high in ("", "key < ?")
    for reverse in (False, True)
}


def encode(entries: Sequence[tuple[str, Any]]) -> list[tuple[str, bytes]]:
    """Serialize the values of *entries*.

    Raises:
        DataCloneError: one cannot be stored.
        JsException: a key and its value are larger than a row may be.
    """
    rows = [(key, serialize(value)) for key, value in entries]
    for key, data in rows:
        size = len(data) + 4 * len(key) + _ROW_OVERHEAD_BYTES
        if size > MAX_VALUE_BYTES and (
            len(data) + len(key.encode()) + _ROW_OVERHEAD_BYTES > MAX_VALUE_BYTES
        ):
            raise JsException(TOO_BIG, "Error")
    return rows


def get(database: Database, key: str) -> Any:
    """The value of *key*, or ``None``."""
    data = database.run(_GET, (key,))
    return None if data is None else deserialize(data)


def get_many(database: Database, keys: Sequence[str]) -> JsDict:
    """Those of *keys* that exist, in their order."""
    found = JsDict()
    for key in sorted(set(keys)):
        data = database.run(_GET, (key,))
        if data is not None:
            found[key] = deserialize(data)
    return found


def put(database: Database, rows: Sequence[tuple[str, bytes]]) -> None:
    """Store what :func:`encode` returned."""
    for row in rows:
        database.run(_PUT, row)


def delete(database: Database, keys: Sequence[str]) -> int:
    """Delete *keys*; how many existed."""
    connection = database.connection
    count = 0
    for key in keys:
        before = connection.total_changes()
        database.run(_DELETE, (key,))
        count += connection.total_changes() - before
    return count


def select(database: Database, key_range: KeyRange, limit: int | None) -> list[tuple[str, Any]]:
    """The keys and values of a range, in its order, at most *limit*."""
    low, high = key_range.low, key_range.high
    bindings: list[Any] = [bound for bound in (low, high) if bound is not None]
    bindings.append(-1 if limit is None else limit)
    sql = _SELECTS[
        "" if low is None else "key > ?" if key_range.low_excluded else "key >= ?",
        "" if high is None else "key < ?",
        key_range.reverse,
    ]
    return [(key, deserialize(data)) for key, data in database.rows(sql, tuple(bindings))]
