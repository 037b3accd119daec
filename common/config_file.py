"""A configuration file as a tree whose every value knows its file, line and column.

Reads ``.jsonc``, ``.json`` (comments are welcome there too) and ``.toml``. A :class:`Node` is asked
for what it should hold; where it holds something else the error says which file, which line, what
was expected and what was found.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from common import jsonc
from common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES: Final = 1024 * 1024
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a configuration file.

    Attributes:
        value: the value, ``None`` where the file has none.
        file: the file it comes from.
        path: keys and list positions from the top of the file.
        positions: line and column of each path, as far as known.
    """

    value: object
    file: Path
    path: jsonc.Path
    positions: Mapping[jsonc.Path, tuple[int, int]]

    @property
    def where(self) -> str:
        """``file:line:column`` of this value, or of the nearest thing around it that has one."""
        path = self.path
        while path and path not in self.positions:
            path = path[:-1]
        line_column = self.positions.get(path)
        return f"{self.file}:{line_column[0]}:{line_column[1]}" if line_column else str(self.file)

    @property
    def name(self) -> str:
        """How people refer to it: ``durable_objects.bindings[0].name``."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).lstrip(".") or "the file"

    @property
    def missing(self) -> bool:
        """Whether the file leaves it out. An explicit null counts as left out."""
        return self.value is None

    def error(self, message: str, remedy: str | None = None) -> ConfigError:
        """Return an error about this value; the caller raises it."""
        return ConfigError(message, where=self.where, remedy=remedy)

    def get(self, key: str) -> Node:
        """Return a member; a missing node if there is none.

        Raises:
            ConfigError: this is neither missing nor a table.
        """
        return self._child(self._table().get(key), key)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Iterate over the members; none if this is missing.

        Raises:
            ConfigError: this is neither missing nor a table.
        """
        for key, value in self._table().items():
            yield str(key), self._child(value, str(key))

    def elements(self) -> Iterator[Node]:
        """Iterate over a list; empty if this is missing.

        Raises:
            ConfigError: this is neither missing nor a list.
        """
        if self.missing:
            return
        if not isinstance(self.value, list):
            raise self._expected("a list")
        for index, value in enumerate(self.value):
            yield self._child(value, index)

    def text(self) -> str:
        """Return a string that is not empty.

        Raises:
            ConfigError: this is anything else, or missing.
        """
        if not isinstance(self.value, str):
            raise self._expected("a string")
        if not self.value:
            raise self.error(f"{self.name} must not be empty")
        return self.value

    def _table(self) -> Mapping[str, object]:
        if self.missing:
            return {}
        if not isinstance(self.value, dict):
            raise self._expected("an object")
        return self.value

    def _child(self, value: object, part: str | int) -> Node:
        return Node(value, self.file, (*self.path, part), self.positions)

    def _expected(self, what: str) -> ConfigError:
        found = "missing" if self.missing else f"{_kind(self.value)} {_excerpt(self.value)}"
        return self.error(f"{self.name} must be {what}, but is {found}")


def read(file: Path) -> Node:
    """Read and parse a file; its suffix says which syntax.

    Args:
        file: ``.json``, ``.jsonc`` or ``.toml``, UTF-8, at most ``MAX_FILE_BYTES`` bytes.

    Raises:
        ConfigError: it cannot be read or is not well formed.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(file)) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"is larger than {MAX_FILE_BYTES} bytes", where=str(file))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8", where=f"{file}:{line}") from error
    return _read_toml(file, text) if file.suffix == ".toml" else _read_jsonc(file, text)


def _read_jsonc(file: Path, text: str) -> Node:
    try:
        document = jsonc.parse(text)
    except jsonc.JsoncError as error:
        raise ConfigError(error.message, where=f"{file}:{error.line}:{error.column}") from error
    return Node(document.value, file, (), document.positions)


def _read_toml(file: Path, text: str) -> Node:
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error) if isinstance(error, ValueError) else "nested too deep"
        place = _TOML_PLACE.search(message)
        where = f"{file}:{place[1]}:{place[2]}" if place and place[1] else str(file)
        raise ConfigError(_TOML_PLACE.sub("", message), where=where) from error
    return Node(value, file, (), _toml_positions(text, value))


def _toml_positions(text: str, value: Mapping[str, object]) -> dict[jsonc.Path, tuple[int, int]]:
    """Find the lines of a TOML file's values, as far as that is certain.

    tomllib keeps no positions. A key that is written exactly once in the file and occurs exactly
    once in its tree must be the same one; any other value goes by the nearest such key around it.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"""(?:^|[{,\[.])\s*["']?([\w-]+)["']?\s*(?=[=\].])""", line):
            places.setdefault(found[1], []).append((number, found.start(1) + 1))
    paths: dict[str, list[jsonc.Path]] = {}
    for path in _paths(value, ()):
        if isinstance(path[-1], str):
            paths.setdefault(path[-1], []).append(path)
    return {
        paths[key][0]: found[0]
        for key, found in places.items()
        if len(found) == 1 and len(paths.get(key, ())) == 1
    }


def _paths(value: object, path: jsonc.Path) -> Iterator[jsonc.Path]:
    members: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = list(enumerate(value))
    for part, child in members:
        yield (*path, part)
        yield from _paths(child, (*path, part))


def _kind(value: object) -> str:
    match value:
        case bool():
            return "the boolean"
        case int() | float():
            return "the number"
        case str():
            return "the string"
        case list():
            return "the list"
        case dict():
            return "the object"
        case _:
            return type(value).__name__


def _excerpt(value: object) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 40 else text[:37] + "..."
