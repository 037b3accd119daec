"""What an app's SQL may do: SQLite asks here while it compiles each statement.

The rules are those of Cloudflare (docs/compatibility.md has the table): data, tables, indexes,
triggers, views, full-text and r-tree tables are the app's; transactions, other files, our own
tables and whatever reaches outside the database are not.
"""

from __future__ import annotations

from typing import Final

import apsw

_OWN_PREFIX: Final = "_cf_"
_MODULES: Final = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})
_HIDDEN_TABLES: Final = frozenset(
    {"dbstat", "sqlite_dbpage", "sqlite_stmt", "bytecode", "tables_used", "carray"}
)

_READING_PRAGMAS: Final = frozenset({
    "table_list", "table_info", "table_xinfo", "index_list", "index_info", "index_xinfo",
    "foreign_key_list", "foreign_key_check", "data_version", "quick_check", "optimize",
})  # fmt: skip
_SWITCHES: Final = frozenset({
    "foreign_keys", "defer_foreign_keys", "case_sensitive_like", "ignore_check_constraints",
    "legacy_alter_table", "recursive_triggers", "reverse_unordered_selects",
})  # fmt: skip
_SWITCH_VALUES: Final = frozenset({"on", "off", "true", "false", "yes", "no", "0", "1"})

_FUNCTION_NAMES: Final = """
    abs changes char coalesce concat concat_ws format glob hex ifnull iif instr
    last_insert_rowid
    length like likelihood likely load_extension lower ltrim max min nullif octet_length printf
    quote random randomblob replace round rtrim sign substr substring subtype
    total_changes trim typeof
    unhex unicode unlikely upper zeroblob match
    current_date current_time current_timestamp date datetime julianday strftime time timediff
    unixepoch
    avg count group_concat string_agg sum total
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank
    row_number
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log
    log10 log2
    mod pi pow radians sin sinh sqrt tan tanh trunc
    -> ->> json json_array json_array_insert json_array_length json_each json_error_position
    json_extract json_group_array json_group_object json_insert json_object json_patch
    json_quote
    json_remove json_replace json_set json_tree json_type json_valid
    jsonb jsonb_array jsonb_array_insert jsonb_each jsonb_extract jsonb_group_array
    jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace
    jsonb_set
    jsonb_tree
    bm25 fts5 fts5_get_locale fts5_insttoken fts5_locale fts5_source_id highlight snippet
    rtreecheck rtreedepth rtreenode
    sqlite_drop_column sqlite_rename_column sqlite_rename_quotefix sqlite_rename_table
    sqlite_rename_test sqlite_fail sqlite_add_constraint sqlite_drop_constraint
    sqlite_find_constraint
    stat_get stat_init stat_push
"""
_FUNCTIONS: Final = frozenset(_FUNCTION_NAMES.split())

MAX_FACTS: Final = 1000
"""How many statements of one connection are remembered."""

_ALLOW: Final = apsw.SQLITE_OK
_DENY: Final = apsw.SQLITE_DENY

_NAMES: Final = {
    # action: whether its first and its second argument name something in the database
    apsw.SQLITE_CREATE_INDEX: (True, True),
    apsw.SQLITE_CREATE_TABLE: (True, False),
    apsw.SQLITE_CREATE_TRIGGER: (True, True),
    apsw.SQLITE_CREATE_VIEW: (True, False),
    apsw.SQLITE_DELETE: (True, False),
    apsw.SQLITE_DROP_INDEX: (True, True),
    apsw.SQLITE_DROP_TABLE: (True, False),
    apsw.SQLITE_DROP_TRIGGER: (True, True),
    apsw.SQLITE_DROP_VIEW: (True, False),
    apsw.SQLITE_INSERT: (True, False),
    apsw.SQLITE_READ: (True, False),
    apsw.SQLITE_UPDATE: (True, False),
    apsw.SQLITE_ANALYZE: (False, False),
    apsw.SQLITE_REINDEX: (False, False),
    apsw.SQLITE_RECURSIVE: (False, False),
    apsw.SQLITE_SELECT: (False, False),
}
_TRANSACTIONS: Final = (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT)
_VIRTUAL_TABLES: Final = (apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE)


class Authorizer:
    """The authorizer of one connection (https://www.sqlite.org/c3ref/set_authorizer.html).

    Attributes:
        trusted: a statement of ours is being compiled or run: everything is allowed.
        transaction_refused: the statement that was just refused would have begun or ended a
            transaction.
        altering: the statement that was just compiled changes a table's definition.
        written_table: the table that it writes to.
        asked: a statement of the app has been compiled. One that SQLite has kept compiled is not
            asked about again.
    """

    __slots__ = (
        "_facts",
        "_facts_dropped",
        "altering",
        "asked",
        "transaction_refused",
        "trusted",
        "written_table",
    )

    def __init__(self) -> None:
        self.trusted = False
        self._facts: dict[str, tuple[bool, str | None]] = {}
        self._facts_dropped = False
        self.forget()

    def forget(self) -> None:
        """A new statement of the app comes."""
        self.asked = False
        self.transaction_refused = False
        self.altering = False
        self.written_table: str | None = None

    def facts_of(self, statement: str) -> tuple[bool, str | None]:
        """:attr:`altering` and :attr:`written_table` of a statement that is about to run.

        As they were when it was compiled: the connection keeps statements compiled, and does not
        ask about them again.
        """
        if not self.asked:
            return self._facts.get(statement, (False, None))
        if len(self._facts) >= MAX_FACTS:
            self._facts.clear()
            self._facts_dropped = True
        facts = self._facts[statement] = self.altering, self.written_table
        return facts

    def knows(self, statement: str) -> bool:
        """It may run as it was compiled before; otherwise it has to be compiled anew."""
        return not self._facts_dropped or statement in self._facts

    def __call__(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        trigger: str | None,
    ) -> int:
        """Decide on one action of a statement."""
        if self.trusted:
            return _ALLOW
        self.asked = True
        names = _NAMES.get(action)
        if names is not None:
            return self._object(action, first, second, names, database)
        if action == apsw.SQLITE_FUNCTION:
            return _ALLOW if (second or "").lower() in _FUNCTIONS else _DENY
        if action == apsw.SQLITE_PRAGMA:
            return _ALLOW if _pragma_allowed((first or "").lower(), second) else _DENY
        if action in _VIRTUAL_TABLES:
            allowed = (second or "").lower() in _MODULES and not _is_own(first)
            return _ALLOW if allowed else _DENY
        if action == apsw.SQLITE_ALTER_TABLE:
            self.altering = True
            return _DENY if _is_own(second) else _ALLOW
        if action in _TRANSACTIONS:
            self.transaction_refused = True
        return _DENY

    def _object(
        self,
        action: int,
        first: str | None,
        second: str | None,
        names: tuple[bool, bool],
        database: str | None,
    ) -> int:
        if names[0] and _is_own(first):
            return _DENY
        if names[1] and _is_own(second):
            return _DENY
        if action == apsw.SQLITE_READ:
            return _DENY if (first or "").lower() in _HIDDEN_TABLES else _ALLOW
        if action in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE):
            # ALTER TABLE looks through the schema of temporary tables, which has nothing in it.
            if database == "temp" and not self.altering:
                return _DENY
            if self.written_table is None:
                self.written_table = first
        return _ALLOW


def _is_own(name: str | None) -> bool:
    return name is not None and name[: len(_OWN_PREFIX)].lower() == _OWN_PREFIX


def _pragma_allowed(name: str, argument: str | None) -> bool:
    if name in _READING_PRAGMAS:
        return True
    if name in _SWITCHES:
        return argument is None or argument.lower() in _SWITCH_VALUES
    return name == "page_size" and argument is None
