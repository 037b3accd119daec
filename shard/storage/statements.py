"""Splits SQL into its statements, the way SQLite does."""

from __future__ import annotations

import re
from typing import Final

import apsw

_TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
      | --[^\n]* | /\*.*?(?:\*/|\Z) | ;""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_SPACE: Final = " \t\n\r\f"


def is_empty(statement: str) -> bool:
    """Whether *statement* is nothing but comments and white space."""
    return not _COMMENT.sub("", statement).strip(_SPACE + ";")


def split(query: str) -> list[str]:
    """Return the statements of *query*, each with its semicolon.

    What follows the last semicolon is a statement too, unless it is white space alone: a comment
    there, like an empty query, makes a statement that SQLite finds empty.
    """
    first = query.find(";")
    if first < 0 or not query[first + 1 :].strip(_SPACE):
        return [query]
    statements: list[str] = []
    start = 0
    for match in _TOKEN.finditer(query):
        end = match.end()
        # A semicolon inside CREATE TRIGGER does not end it.
        if match.group() == ";" and apsw.complete(query[start:end]):
            statements.append(query[start:end])
            start = end
    if query[start:].strip(_SPACE) or not statements:
        statements.append(query[start:])
    return statements
