"""URLSearchParams: the ``name=value`` pairs of a query (WHATWG URL §5 and §6.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote_plus


class URLSearchParams:
    """The ``name=value`` pairs of a query.

    Args:
        init: a query string (a leading ``?`` is dropped), a mapping, or pairs.

    Source: https://developer.mozilla.org/docs/Web/API/URLSearchParams
    """

    __slots__ = ("_changed", "_pairs")

    def __init__(self, init: str | Mapping[str, Any] | Iterable[tuple[str, Any]] = "") -> None:
        self._changed: Callable[[str | None], None] | None = None
        if isinstance(init, str):
            text = init.removeprefix("?")
            self._pairs = parse_qsl(text, keep_blank_values=True, errors="replace")
        elif isinstance(init, URLSearchParams):
            self._pairs = list(init._pairs)
        elif isinstance(init, Mapping):
            self._pairs = [(str(name), _text(value)) for name, value in init.items()]
        else:
            self._pairs = [(str(name), _text(value)) for name, value in init]

    @classmethod
    def new(cls, init: Any = "") -> URLSearchParams:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls(init)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of ``name``, or ``default``."""
        return next((value for each, value in self._pairs if each == name), default)

    def getAll(self, name: str) -> list[str]:
        """All values of ``name``, in order."""
        return [value for each, value in self._pairs if each == name]

    def has(self, name: str, value: str | None = None) -> bool:
        """Whether there is such a name (with that value)."""
        return any(n == name and (value is None or v == value) for n, v in self._pairs)

    def append(self, name: str, value: object) -> None:
        """Add a pair."""
        self._change([*self._pairs, (name, _text(value))])

    def set(self, name: str, value: object) -> None:
        """Replace all pairs of that name with one, at the place of the first."""
        kept: list[tuple[str, str]] = []
        pending: str | None = _text(value)
        for pair in self._pairs:
            if pair[0] != name:
                kept.append(pair)
            elif pending is not None:
                kept.append((name, pending))
                pending = None
        if pending is not None:
            kept.append((name, pending))
        self._change(kept)

    def delete(self, name: str, value: str | None = None) -> None:
        """Remove all pairs of that name (and value)."""
        self._change(
            [(n, v) for n, v in self._pairs if n != name or (value is not None and v != value)]
        )

    def sort(self) -> None:
        """Sort by name; the order of equal names stays."""
        self._change(sorted(self._pairs, key=lambda pair: pair[0]))

    def keys(self) -> list[str]:
        """Return the names, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[str]:
        """Return the values, in order."""
        return [value for _, value in self._pairs]

    def entries(self) -> list[tuple[str, str]]:
        """Return the pairs, in order."""
        return list(self._pairs)

    items = entries

    def toString(self) -> str:
        """Return the pairs as ``application/x-www-form-urlencoded``, without ``?``."""
        return "&".join(f"{_form_quote(name)}={_form_quote(value)}" for name, value in self._pairs)

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    get_all = getAll
    to_string = toString

    def __str__(self) -> str:
        return self.toString()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(each == name for each, _ in self._pairs)

    def __repr__(self) -> str:
        return f"URLSearchParams({self.toString()!r})"

    def _change(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        if self._changed is not None:
            self._changed(self.toString() or None)

    def _bind(self, changed: Callable[[str | None], None]) -> None:
        """Let a URL know of each change."""
        self._changed = changed

    def _reset(self, query: str) -> None:
        """Take over a URL's new query, without telling it."""
        self._pairs = URLSearchParams(query)._pairs


def _form_quote(text: str) -> str:
    return quote_plus(text, safe="*", errors="replace").replace("~", "%7E")


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)
