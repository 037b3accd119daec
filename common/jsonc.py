"""JSON with comments and trailing commas, as in wrangler.jsonc, remembering where things stand.

The standard parser cannot say where a value stood once the text is well formed; messages such as
"wrangler.jsonc:7:13: class_name must be a string" need that. So this is a small parser of its own:
RFC 8259 with ``//`` and ``/* */`` comments and with a comma allowed before ``]`` and ``}``.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Path: TypeAlias = tuple[str | int, ...]
"""Where a value is in the document: keys and list positions from the top; ``()`` is the whole."""

MAX_DEPTH: Final = 100
"""Deepest nesting of lists and objects; a bound on recursion, far above any real file."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z_]+")
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_MAX_DIGITS: Final = 400


class JsoncError(ValueError):
    """The text is not JSON with comments.

    Attributes:
        message: what is wrong.
        line: 1-based.
        column: 1-based, in characters.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"{message} (line {line}, column {column})")
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text.

    Attributes:
        value: dicts, lists, strings, numbers, booleans and ``None``.
        positions: line and column (both from 1) of every value, by its path. For a member of an
            object this is where its key stands.
    """

    value: object
    positions: Mapping[Path, tuple[int, int]]


def parse(text: str) -> Document:
    """Parse a whole text. Of a repeated key the last one counts, as with ``json``.

    Raises:
        JsoncError: it is not JSON with comments, or is nested deeper than ``MAX_DEPTH``.
    """
    parser = _Parser(text)
    value = parser.document()
    return Document(value, parser.positions)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._at = 0
        self._path: list[str | int] = []
        self.positions: dict[Path, tuple[int, int]] = {}

    def document(self) -> object:
        self._blank()
        value = self._value()
        if self._at < len(self._text):
            self._fail("unexpected text after the end of the document")
        return value

    def _value(self) -> object:
        """Parse a value that starts right here, and the blanks after it."""
        # setdefault: a member of an object has its key's place already.
        self.positions.setdefault(tuple(self._path), self._position(self._at))
        if len(self._path) > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        match self._peek():
            case "{":
                value: object = self._object()
            case "[":
                value = self._array()
            case '"':
                value = self._string()
            case "":
                self._fail("unexpected end of file")
            case _:
                value = self._scalar()
        self._blank()
        return value

    def _object(self) -> dict[str, object]:
        result: dict[str, object] = {}
        self._skip()
        while self._peek() != "}":
            place = self._position(self._at)
            if self._peek() != '"':
                self._fail("expected a key in double quotes, or '}'")
            key = self._string()
            self._blank()
            if self._peek() != ":":
                self._fail("expected ':'")
            self._skip()
            self._path.append(key)
            self.positions[tuple(self._path)] = place
            result[key] = self._value()
            self._path.pop()
            self._separator("}")
        self._at += 1
        return result

    def _array(self) -> list[object]:
        result: list[object] = []
        self._skip()
        while self._peek() != "]":
            self._path.append(len(result))
            result.append(self._value())
            self._path.pop()
            self._separator("]")
        self._at += 1
        return result

    def _separator(self, end: str) -> None:
        if self._peek() == ",":
            self._skip()
        elif self._peek() != end:
            self._fail(f"expected ',' or '{end}'")

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            self._fail("string that does not end on its line, or has an invalid escape")
        self._at = found.end()
        return str(json.loads(found.group()))

    def _scalar(self) -> float | bool | None:
        if found := _NUMBER.match(self._text, self._at):
            if len(found.group()) > _MAX_DIGITS:
                self._fail(f"number of more than {_MAX_DIGITS} characters")
            self._at = found.end()
            return json.loads(found.group())  # type: ignore[no-any-return]
        found = _WORD.match(self._text, self._at)
        if found is None or found.group() not in _WORDS:
            self._fail(f"unexpected {found.group() if found else self._peek()!r}")
        self._at = found.end()
        return _WORDS[found.group()]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        """Step over one character and the blanks after it."""
        self._at += 1
        self._blank()

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None, "the pattern matches the empty string"
        self._at = found.end()
        if self._text.startswith("/*", self._at):
            self._fail("comment that does not end")

    def _position(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, at)
        return line, at - self._line_starts[line - 1] + 1

    def _fail(self, message: str) -> NoReturn:
        raise JsoncError(message, *self._position(self._at))
