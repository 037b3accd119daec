"""Section 4.3: SQL, its cursors, values, errors, limits, and what is refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from common.errors import ObjectReset
from tests.shard.storage.support import Home
from workers import JsException
from workers.storage import DurableObjectStorage as Storage

FOUR = "SELECT column1 AS n FROM (VALUES (1), (2), (3), (4))"


def rows(home: Home, query: str, *bindings: Any) -> list[list[Any]]:
    found: list[list[Any]] = home.run(lambda s: s.sql.exec(query, *bindings).raw().toArray())
    return found


def refusal(home: Home, query: str, *bindings: Any) -> str:
    with pytest.raises(JsException) as caught:
        rows(home, query, *bindings)
    assert home.lives == 1, "the object was reset"
    return caught.value.message


def test_exec_runs_at_once_even_if_the_cursor_is_dropped(home: Home) -> None:
    rows(home, "CREATE TABLE t (a)")
    home.run(lambda s: repr(s.sql.exec("INSERT INTO t VALUES (1)")))
    assert rows(home, "SELECT * FROM t") == [[1]]


def test_all_ways_of_reading_share_one_position(home: Home) -> None:
    def body(s: Storage) -> Any:
        cursor = s.sql.exec(FOUR)
        first = cursor.next()
        second = next(iter(cursor))
        third = next(cursor.raw())
        rest = cursor.toArray()
        return [first, second.n, third, rest, cursor.next().done, cursor.toArray()]

    assert home.run(body) == [{"done": False, "value": {"n": 1}}, 2, [3], [{"n": 4}], True, []]


def test_one(home: Home) -> None:
    def body(s: Storage) -> None:
        assert s.sql.exec("SELECT 7 AS x").one().x == 7
        cursor = s.sql.exec("SELECT 1 AS x UNION SELECT 2")
        cursor.next()
        assert cursor.one() == {"x": 2}
        with pytest.raises(JsException, match="got no results"):
            s.sql.exec("SELECT 1 WHERE 0").one()
        with pytest.raises(JsException, match="got multiple results"):
            s.sql.exec(FOUR).one()

    home.run(body)


def test_column_names(home: Home) -> None:
    def body(s: Storage) -> None:
        assert s.sql.exec("CREATE TABLE t (a, b)").columnNames == []
        assert s.sql.exec("SELECT * FROM t").columnNames == ["a", "b"]
        cursor = s.sql.exec("SELECT 1 AS x, 2 AS x")
        assert cursor.columnNames == ["x", "x"]
        assert cursor.toArray() == [{"x": 2}]
        assert s.sql.exec("SELECT 1 AS x, 2 AS x").raw().toArray() == [[1, 2]]

    home.run(body)


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (None, "null", None),
        (1, "integer", 1),
        (2**63 - 1, "integer", 2**63 - 1),
        (-(2**63), "integer", -(2**63)),
        (1.0, "real", 1.0),
        (math.nan, "null", None),
        (True, "integer", 1),
        ("tèxt\0x", "text", "tèxt\0x"),
        ("\ud800", "text", "\ufffd"),
        (b"\0\xff", "blob", b"\0\xff"),
        (bytearray(b"x"), "blob", b"x"),
        (memoryview(b"x"), "blob", b"x"),
    ],
    ids=repr,
)
def test_values_in_and_out(home: Home, value: Any, kind: str, found: Any) -> None:
    assert rows(home, "SELECT typeof(?1), ?1", value) == [[kind, found]]


@pytest.mark.parametrize("value", [2**63, object(), [1], {"a": 1}, 1j], ids=repr)
def test_values_that_sql_has_not(home: Home, value: Any) -> None:
    with pytest.raises(TypeError, match="SQL"):
        rows(home, "SELECT ?", value)


@pytest.mark.parametrize("query", ["SELECT ?", "SELECT 1", "SELECT ?1, ?2"])
def test_a_wrong_count_of_bindings(home: Home, query: str) -> None:
    given = (1,) if "?" not in query else (1, 2, 3)
    assert refusal(home, query, *given) == "Wrong number of parameter bindings for SQL query."


def test_named_parameters_are_positional(home: Home) -> None:
    assert rows(home, "SELECT :a, @b, $c, ?2", 1, 2, 3) == [[1, 2, 3, 2]]


def test_several_statements(home: Home) -> None:
    assert rows(home, "CREATE TABLE t (a); INSERT INTO t VALUES (';'); SELECT ? FROM t; ", 5) == [
        [5]
    ]
    early = refusal(home, "INSERT INTO t VALUES (?); SELECT ?", 1, 2)
    assert early.startswith(
        "When executing multiple SQL statements in a single call, only the last"
    )
    assert "no such table" in refusal(home, "INSERT INTO t VALUES ('kept'); SELECT * FROM nope")
    assert rows(home, "SELECT count(*) FROM t") == [[2]]
    trigger = "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END; SELECT 3"
    assert rows(home, trigger) == [[3]]


@pytest.mark.parametrize("query", ["", "  ", "-- x", "/* x */", "SELECT 1; -- x", ";"])
def test_no_statement(home: Home, query: str) -> None:
    assert refusal(home, query) == "SQL code did not contain a statement."


def test_errors_have_sqlites_text_and_code(home: Home) -> None:
    rows(home, "CREATE TABLE u (a UNIQUE); INSERT INTO u VALUES (1)")
    assert refusal(home, "SELECT * FROM nope") == "no such table: nope: SQLITE_ERROR"
    assert refusal(home, "SELEC") == 'near "SELEC": syntax error at offset 0: SQLITE_ERROR'
    assert refusal(home, "INSERT INTO u VALUES (1)") == (
        "UNIQUE constraint failed: u.a: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"
    )


def test_open_cursors_survive_awaits_writes_and_commits(home: Home) -> None:
    async def body(s: Storage) -> Any:
        s.sql.exec("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)")
        await asyncio.sleep(0)
        cursor = s.sql.exec("SELECT a FROM t ORDER BY rowid")
        twin = s.sql.exec("SELECT a FROM t ORDER BY rowid")
        seen = [cursor.next().value.a]
        s.sql.exec("INSERT INTO t VALUES (4)")
        await s.sync()
        with pytest.raises(JsException, match="database table is locked: SQLITE_LOCKED"):
            s.sql.exec("DROP TABLE t")
        return seen + [row.a for row in cursor], len(twin.toArray())

    assert home.run(body) == ([1, 2, 3, 4], 4)


def test_an_unread_returning_cursor_loses_nothing(home: Home) -> None:
    cursors: list[Any] = []
    rows(home, "CREATE TABLE t (a)")
    home.run(lambda s: cursors.append(s.sql.exec("INSERT INTO t VALUES (1), (2) RETURNING a")))
    home.settle()
    assert rows(home, "SELECT count(*) FROM t") == [[2]]
    assert cursors[0].toArray() == [{"a": 1}, {"a": 2}]


def test_text_that_is_not_utf_8(home: Home) -> None:
    """Reading it is refused. Nothing else is harmed, not even the statement's own writes."""
    bad = "CAST(x'ff41' AS TEXT)"

    def body(s: Storage) -> Any:
        s.kv.put("before", 1)
        s.sql.exec("CREATE TABLE t (a)")
        refused = []
        for query in (
            f"INSERT INTO t VALUES ('a'), ({bad}) RETURNING a",
            f"INSERT INTO t VALUES ({bad}), ('b') RETURNING a",
            f"SELECT {bad}",
        ):
            with pytest.raises(Exception, match=r"not valid UTF-8.*read it as a BLOB") as caught:
                s.sql.exec(query).toArray()
            refused.append(caught)
        cursor = s.sql.exec("SELECT a FROM t")
        assert cursor.next().value == {"a": "a"}
        with pytest.raises(Exception, match="not valid UTF-8"):
            cursor.next()
        return refused

    kept = home.run(body)
    home.settle()
    assert (home.lives, len(kept)) == (1, 3), "it was reset"
    assert rows(home, "SELECT CAST(a AS BLOB) FROM t") == [[b"a"], [b"\xffA"], [b"\xffA"], [b"b"]]
    assert home.run(lambda s: s.kv.get("before")) == 1


def test_rows_read_and_written(home: Home) -> None:
    def body(s: Storage) -> Any:
        counts = []
        for query in (
            "CREATE TABLE t (a)",
            "INSERT INTO t VALUES (1)",
            "CREATE INDEX i ON t (a)",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO t VALUES (3), (4)",
            "SELECT a FROM t",
        ):
            cursor = s.sql.exec(query)
            cursor.toArray()
            counts.append((cursor.rowsRead, cursor.rowsWritten))
        return counts

    assert home.run(body) == [(1, 2), (0, 1), (1, 2), (0, 2), (0, 4), (4, 0)]


@pytest.mark.parametrize("max_facts", [1000, 1], ids=["remembered", "forgotten"])
def test_a_statement_counts_and_is_checked_each_time_it_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch, max_facts: int
) -> None:
    """SQLite keeps statements compiled, and asks about them only when it compiles them."""
    monkeypatch.setattr("shard.storage.authorizer.MAX_FACTS", max_facts)

    def body(s: Storage) -> None:
        for _ in range(3):
            s.sql.exec("CREATE TABLE t (a)")
            for number in range(3):
                assert s.sql.exec("INSERT INTO t VALUES (?)", number).rowsWritten == 1
                assert s.sql.exec("DELETE FROM t WHERE a = 9").rowsWritten == 0
                assert s.sql.exec("UPDATE t SET a = a").rowsWritten == number + 1
            assert s.sql.exec("CREATE INDEX i ON t (a)").rowsWritten == 2
            assert s.sql.exec("INSERT INTO t VALUES (?)", 7).rowsWritten == 2
            assert s.sql.exec("DROP INDEX i").rowsWritten == 2
            assert s.sql.exec("INSERT INTO t VALUES (?)", 8).rowsWritten == 1
            for _ in range(3):
                with pytest.raises(Exception, match="not authorized: SQLITE_AUTH"):
                    s.sql.exec("ALTER TABLE t RENAME TO _cf_t")
            s.sql.exec("ALTER TABLE t RENAME TO u")
            s.sql.exec("ALTER TABLE u ADD COLUMN b DEFAULT 5")
            assert s.sql.exec("SELECT sum(b) AS b FROM u").one().b == 25
            s.sql.exec("DROP TABLE u")

    home.run(body)
    home.settle()
    names = [row[0] for row in rows(home, "SELECT name FROM sqlite_schema")]
    assert names == ["_cf_KV", "_cf_META"]


def test_a_statement_is_known_to_the_objects_next_life(home: Home) -> None:
    """The connection, and what is compiled in it, may outlive an activation."""

    def body(s: Storage) -> int:
        s.sql.exec("CREATE TABLE IF NOT EXISTS t (a)")
        return s.sql.exec("DELETE FROM t WHERE a = 1").rowsWritten

    assert home.run(body) == 0
    home.slot.reset(ObjectReset("for the test"))
    assert home.run(body) == 0


def test_database_size(home: Home) -> None:
    def body(s: Storage) -> Any:
        empty = s.sql.databaseSize
        s.sql.exec("CREATE TABLE t (a)")
        s.sql.exec("INSERT INTO t VALUES (randomblob(100000))")
        with pytest.raises(AttributeError):
            s.sql.databaseSize = 1  # type: ignore[misc]
        return empty, s.sql.databaseSize

    empty, filled = home.run(body)
    assert empty == 4096
    assert filled % 4096 == 0
    assert 100_000 < filled < 130_000


def test_foreign_keys_are_on(home: Home) -> None:
    rows(home, "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p(id))")
    assert "FOREIGN KEY constraint failed" in refusal(home, "INSERT INTO c VALUES (1)")


@pytest.mark.parametrize(
    "query",
    ["BEGIN", "begin immediate", "COMMIT", "END", "ROLLBACK", "SAVEPOINT a", "RELEASE a"],
)
def test_transaction_statements_are_refused(home: Home, query: str) -> None:
    assert refusal(home, query).startswith(
        "To execute a transaction, please use the state.storage.transaction() or "
    )


NOT_AUTHORIZED = [
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "CREATE TEMP TABLE t (a)",
    "CREATE TABLE temp.t (a)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER g AFTER INSERT ON x BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE f USING fts4(a)",
    "CREATE VIRTUAL TABLE f USING dbstat",
    "CREATE TABLE _cf_x (a)",
    "CREATE TABLE _CF_x (a)",
    "CREATE INDEX _cf_i ON x (a)",
    "CREATE INDEX i ON _cf_KV (value)",
    "CREATE VIEW _cf_v AS SELECT 1",
    "CREATE TRIGGER _cf_g AFTER INSERT ON x BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE _cf_f USING fts5(a)",
    "ALTER TABLE x RENAME TO _cf_x",
    "ALTER/**/TABLE x RENAME/**/TO\n[_CF_x]",
    "ALTER TABLE _cf_KV RENAME TO y",
    "ALTER TABLE _cf_KV ADD COLUMN x",
    "DROP TABLE _cf_KV",
    "INSERT INTO _cf_KV VALUES ('a', x'00')",
    "INSERT OR REPLACE INTO _cf_KV VALUES (?, ?)",
    "DELETE FROM _cf_META",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version",
    "PRAGMA page_count",
    "PRAGMA integrity_check",
    "PRAGMA cache_size",
    "PRAGMA synchronous = FULL",
    "PRAGMA synchronous = OFF",
    "PRAGMA foreign_keys = ON; PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA encoding",
    "PRAGMA auto_vacuum",
    "PRAGMA database_list",
    "PRAGMA function_list",
    "PRAGMA compile_options",
    "PRAGMA page_size = 512",
    "PRAGMA writable_schema = 1",
    "PRAGMA wal_checkpoint",
    "PRAGMA locking_mode = NORMAL",
]


@pytest.mark.parametrize("query", NOT_AUTHORIZED)
def test_what_is_not_authorized(home: Home, query: str) -> None:
    rows(home, "CREATE TABLE x (a)")
    home.run(lambda s: s.kv.put("a", 1))
    assert refusal(home, query, *((1, 2) if "?" in query else ())) == "not authorized: SQLITE_AUTH"
    assert rows(home, "SELECT count(*) FROM x") == [[0]]
    assert home.run(lambda s: s.kv.get("a")) == 1


def test_our_tables_cannot_be_read_but_seen(home: Home) -> None:
    home.run(lambda s: s.kv.put("a", 1))
    assert refusal(home, "SELECT * FROM _cf_KV") == (
        "access to _cf_KV.key is prohibited: SQLITE_AUTH"
    )
    assert "SQLITE_AUTH" in refusal(home, "SELECT count(*) FROM _cf_META")
    # Word for word what our own code runs.
    assert "prohibited" in refusal(home, "SELECT value FROM _cf_KV WHERE key = ?", "a")
    names = [row[0] for row in rows(home, "SELECT name FROM sqlite_master ORDER BY name")]
    assert "_cf_KV" in names
    assert ["_cf_KV"] in rows(home, "SELECT name FROM pragma_table_list")


def test_the_schema_table_cannot_be_written(home: Home) -> None:
    text = refusal(home, "UPDATE sqlite_master SET sql = ''")
    assert text == "table sqlite_master may not be modified: SQLITE_ERROR"


@pytest.mark.parametrize("query", ["VACUUM", "VACUUM INTO 'x'"])
def test_vacuum(home: Home, query: str) -> None:
    assert refusal(home, query) == "cannot VACUUM from within a transaction: SQLITE_ERROR"


@pytest.mark.parametrize(
    "pragma",
    [
        "table_list", "table_info(t)", "table_xinfo(t)", "index_list(t)", "index_info(i)",
        "index_xinfo(i)", "foreign_key_list(t)", "foreign_key_check", "foreign_keys",
        "foreign_keys = off", "defer_foreign_keys", "case_sensitive_like", "legacy_alter_table",
        "ignore_check_constraints", "recursive_triggers", "reverse_unordered_selects",
        "data_version", "page_size", "quick_check", "optimize",
    ],
)  # fmt: skip
def test_pragmas_that_are_allowed(home: Home, pragma: str) -> None:
    rows(home, "CREATE TABLE t (a); CREATE INDEX i ON t (a)")
    rows(home, f"PRAGMA {pragma}")


@pytest.mark.parametrize(
    "function",
    [
        "sqlite_version()", "sqlite_source_id()", "sqlite_compileoption_get(0)",
        "sqlite_compileoption_used('X')", "power(1, 2)", "unistr('x')", "if(1, 2, 3)",
        "json_pretty('1')",
    ],
)  # fmt: skip
def test_functions_that_are_refused(home: Home, function: str) -> None:
    name = function.partition("(")[0]
    expected = f"not authorized to use function: {name} at offset 7: SQLITE_ERROR"
    assert refusal(home, f"SELECT {function}") == expected


@pytest.mark.parametrize("function", ["soundex('x')", "median(1)", "regexp('x', 'y')"])
def test_functions_that_do_not_exist(home: Home, function: str) -> None:
    assert "function" in refusal(home, f"SELECT {function}")


def test_no_extension_is_loaded(home: Home) -> None:
    assert refusal(home, "SELECT load_extension('x')") == "not authorized: SQLITE_ERROR"
    assert "prohibited" in refusal(home, "SELECT * FROM dbstat")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("SELECT '{\"a\":[1]}' -> 'a', '{\"a\":1}' ->> 'a', json(jsonb('[1]'))", ["[1]", 1, "[1]"]),
        ("SELECT sum(value) FROM json_each('[1,2]')", [3]),
        ("SELECT row_number() OVER ()", [1]),
        ("WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n+1 FROM c LIMIT 3) SELECT max(n) FROM c"  # noqa: E501
        ,
         [3]),
        ("SELECT sqrt(4), ceil(1.5), pow(2, 3), round(pi(), 2), ln(1)", [2.0, 2.0, 8.0, 3.14, 0.0]),
        ("SELECT iif(1, 2, 3), ifnull(NULL, 1), printf('%d', 1), hex(x'ff'), substr('abc', 2)",
         [2, 1, "1", "FF", "bc"]),
        ("SELECT date('2026-01-02'), strftime('%Y', '2026-01-02')", ["2026-01-02", "2026"]),
        ("SELECT 'abc' LIKE 'A%', 'abc' GLOB 'a*'", [1, 1]),
    ],
)  # fmt: skip
def test_what_sql_can_do(home: Home, query: str, found: list[Any]) -> None:
    assert rows(home, query) == [found]


def test_schemas_of_every_kind(home: Home) -> None:
    rows(home, "CREATE TABLE s (a INTEGER PRIMARY KEY, b TEXT) STRICT, WITHOUT ROWID")
    rows(home, "CREATE TABLE g (a, b GENERATED ALWAYS AS (a * 2)); INSERT INTO g VALUES (2)")
    assert rows(home, "SELECT b FROM g") == [[4]]
    rows(home, "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('one two')")
    assert rows(home, "SELECT snippet(f, 0, '<', '>', '', 5) FROM f WHERE f MATCH 'two'") == [
        ["one <two>"]
    ]
    rows(home, "CREATE VIRTUAL TABLE r USING rtree(id, lo, hi); INSERT INTO r VALUES (1, 2, 3)")
    assert rows(home, "SELECT id FROM r WHERE lo < 2.5") == [[1]]
    rows(home, "INSERT INTO s VALUES (1, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b")
    rows(home, "ALTER TABLE g RENAME COLUMN a TO _cf_a; ALTER TABLE g RENAME TO h")
    assert rows(home, "SELECT _cf_a FROM h") == [[2]]
    rows(home, "REINDEX; ANALYZE; EXPLAIN SELECT 1")
    rows(home, "DROP TABLE f; DROP TABLE r; DROP TABLE h")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (lambda: "SELECT 1 --" + "x" * 100_000, "statement too long: SQLITE_TOOBIG"),
        (lambda: "CREATE TABLE tc (" + ",".join(f"c{n}" for n in range(101)) + ")",
         "too many columns on tc: SQLITE_ERROR"),
        (lambda: "SELECT 1" + " UNION ALL SELECT 1" * 5,
         "too many terms in compound SELECT: SQLITE_ERROR"),
        (lambda: "SELECT 'x' LIKE '" + "x" * 51 + "'",
         "LIKE or GLOB pattern too complex: SQLITE_ERROR"),
        (lambda: "SELECT zeroblob(8388609)", "string or blob too big: SQLITE_TOOBIG"),
        (lambda: "SELECT max(" + ",".join("1" * 128) + ")", "too many arguments on function max"),
        (lambda: "SELECT " + "(" * 101 + "1" + ")" * 101, ""),
    ],
)  # fmt: skip
def test_limits(home: Home, query: Callable[[], str], text: str) -> None:
    if text:
        assert refusal(home, query()).startswith(text)
    else:
        rows(home, query())


def test_the_limit_of_bound_parameters(home: Home) -> None:
    assert len(rows(home, "SELECT " + ",".join("?" * 100), *range(100))[0]) == 100
    text = refusal(home, "SELECT " + ",".join("?" * 101), *range(101))
    assert text == "too many SQL variables at offset 207: SQLITE_ERROR"


def test_a_big_binding_is_refused(home: Home) -> None:
    text = refusal(home, "SELECT ?", b"x" * ((8 << 20) + 1))
    assert text == "string or blob too big: SQLITE_TOOBIG"
