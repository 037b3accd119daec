"""SQLite's errors in the words in which Cloudflare passes them on."""

from __future__ import annotations

import apsw

from workers.exceptions import JsException

TRANSACTION_STATEMENT = (
    "To execute a transaction, please use the state.storage.transaction() or "
    "state.storage.transactionSync() APIs instead of the SQL BEGIN TRANSACTION or SAVEPOINT "
    "statements. The JavaScript API is safer because it will automatically roll back on "
    "exceptions, and because it interacts correctly with Durable Objects' automatic atomic write "
    "coalescing."
)
NO_STATEMENT = "SQL code did not contain a statement."
WRONG_BINDINGS = "Wrong number of parameter bindings for SQL query."
EARLY_BINDINGS = (
    "When executing multiple SQL statements in a single call, only the last statement can have "
    "parameters."
)
TOO_LONG = "statement too long: SQLITE_TOOBIG"
TOO_BIG = "string or blob too big: SQLITE_TOOBIG"
NOT_AUTHORIZED = "not authorized: SQLITE_AUTH"
CANCELED = "SQLite query was canceled because the database was deleted."


def describe(error: apsw.Error) -> str:
    """Return ``<message>[ at offset N]: <CODE>[ (extended: <CODE>)]``."""
    result = getattr(error, "result", apsw.SQLITE_ERROR)
    extended = getattr(error, "extendedresult", result)
    offset = getattr(error, "error_offset", -1)
    code = apsw.mapping_result_codes.get(result & 0xFF, "SQLITE_ERROR")
    text = f"{error} at offset {offset}: {code}" if offset >= 0 else f"{error}: {code}"
    if extended != result and extended in apsw.mapping_extended_result_codes:
        text += f" (extended: {apsw.mapping_extended_result_codes[extended]})"
    return text


def app_error(error: apsw.Error) -> JsException:
    """Return what the app is told of an error that is its own doing."""
    return JsException(describe(error), "Error")
