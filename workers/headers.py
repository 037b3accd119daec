"""Headers: a multi-mapping whose names have no letter case.

One object serves three habits: JavaScript's ``Headers`` (``get``, ``append``, ``getSetCookie``),
Python's ``http.client.HTTPMessage`` (``get_all``, a missing name is ``None``) and a mapping.
https://developers.cloudflare.com/workers/runtime-apis/headers/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast, overload

T = TypeVar("T")

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
"""A field name (RFC 9110 §5.1)."""
_BAD_VALUE: Final = re.compile("[\0\r\n\ud800-\udfff]")
_SET_COOKIE: Final = "set-cookie"


class Headers:
    """Header fields of a request or response.

    Reading by name joins several fields of that name with ``", "`` (RFC 9110 §5.3), except
    ``Set-Cookie``, which cannot be joined. Iteration gives lower-case names in alphabetical order,
    as JavaScript does; what goes on the wire keeps its order and letter case.

    Args:
        init: a mapping, an iterable of ``(name, value)`` pairs, another ``Headers``, or ``None``.
            Numbers are accepted as values.

    Raises:
        TypeError: a name or value that HTTP does not allow, named in the message.

    Source: https://developers.cloudflare.com/workers/runtime-apis/headers/
    """

    __slots__ = ("_index", "_raw")

    def __init__(self, init: HeadersInit | None = None) -> None:
        self._raw: list[tuple[str, str]] = []
        self._index: dict[str, list[str]] | None = None
        if init is None:
            return
        if isinstance(init, Headers):
            self._raw = list(init._raw)
            return
        for name, value in _pairs(init):
            self._raw.append((_checked_name(name), _checked_value(name, value)))

    @classmethod
    def new(cls, init: Any = None) -> Headers:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls(init)

    @classmethod
    def from_wire(cls, raw: list[tuple[str, str]]) -> Headers:
        """Take over ``raw`` as it is: pairs that a parser has checked. Costs nothing."""
        headers = cls.__new__(cls)
        headers._raw = raw
        headers._index = None
        return headers

    @property
    def raw(self) -> list[tuple[str, str]]:
        """The fields as they go on the wire: in order, letter case kept. Do not change the list."""
        return self._raw

    # --- reading -----------------------------------------------------------------------------

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: T) -> str | T: ...
    def get(self, name: str, default: T | None = None) -> str | T | None:
        """Return the value of ``name`` (several joined with ``", "``), or ``default``."""
        values = self._values(name)
        if values is None:
            return default
        return values[0] if len(values) == 1 else _joined(name, values)

    @overload
    def get_all(self, name: str) -> list[str] | None: ...
    @overload
    def get_all(self, name: str, default: T) -> list[str] | T: ...
    def get_all(self, name: str, default: T | None = None) -> list[str] | T | None:
        """Return the values of all fields called ``name``, in order; ``default`` if none."""
        values = self._values(name)
        return default if values is None else list(values)

    def getSetCookie(self) -> list[str]:
        """Return the values of all ``Set-Cookie`` fields; empty if there is none."""
        return list(self._values(_SET_COOKIE) or ())

    def has(self, name: str) -> bool:
        """Whether there is a field called ``name``."""
        return self._values(name) is not None

    def keys(self) -> list[str]:
        """Return the lower-case names in order of the alphabet; each ``set-cookie`` by itself."""
        return [name for name, _ in self.items()]

    def values(self) -> list[str]:
        """Return the values, in the order of :meth:`keys`."""
        return [value for _, value in self.items()]

    def items(self) -> list[tuple[str, str]]:
        """Return the names and values, in the order of :meth:`keys`."""
        pairs: list[tuple[str, str]] = []
        for name, values in sorted(self._indexed().items()):
            if name == _SET_COOKIE:
                pairs.extend((name, value) for value in values)
            else:
                pairs.append((name, _joined(name, values)))
        return pairs

    entries = items

    def forEach(self, callback: Callable[..., object], this: object = None) -> None:
        """Call ``callback(value, name, headers)`` for each of :meth:`items`."""
        for name, value in self.items():
            callback(value, name, self)

    def __getitem__(self, name: str) -> str | None:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._values(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self.items() == other.items()
        if isinstance(other, Mapping):
            return self.items() == Headers(cast("Mapping[str, str]", other)).items()
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({self._raw!r})"

    # --- changing ----------------------------------------------------------------------------

    def append(self, name: str, value: object) -> None:
        """Add a field, whether or not there is one of that name.

        Raises:
            TypeError: HTTP does not allow the name or the value.
        """
        self._raw.append((_checked_name(name), _checked_value(name, value)))
        self._index = None

    def set(self, name: str, value: object) -> None:
        """Replace all fields called ``name`` with one.

        Raises:
            TypeError: HTTP does not allow the name or the value.
        """
        field = (_checked_name(name), _checked_value(name, value))
        lower = name.lower()
        position = next(
            (i for i, (each, _) in enumerate(self._raw) if each.lower() == lower), len(self._raw)
        )
        kept = [pair for pair in self._raw if pair[0].lower() != lower]
        kept.insert(position, field)
        self._replace(kept)

    def delete(self, name: str) -> None:
        """Remove all fields called ``name``; no effect if there is none.

        Raises:
            TypeError: HTTP does not allow the name.
        """
        lower = _checked_name(name).lower()
        self._replace([pair for pair in self._raw if pair[0].lower() != lower])

    def add_header(self, name: str, value: object) -> None:
        """Add a field, as :meth:`append` does: ``http.client.HTTPMessage``'s name for it."""
        self.append(name, value)

    def setdefault(self, name: str, value: object) -> str:
        """Set ``name`` unless there is such a field; return its value."""
        if self._values(name) is None:
            self.append(name, value)
        return cast("str", self.get(name))

    def update(self, other: HeadersInit) -> None:
        """Set each field of ``other``."""
        for name, value in Headers(other)._raw:
            self.set(name, value)

    def copy(self) -> Headers:
        """Return an independent copy."""
        return Headers.from_wire(list(self._raw))

    def __setitem__(self, name: str, value: object) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        self.delete(name)

    get_set_cookie = getSetCookie
    for_each = forEach

    # --- inside ------------------------------------------------------------------------------

    def _replace(self, raw: list[tuple[str, str]]) -> None:
        self._raw = raw
        self._index = None

    def _indexed(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self._raw:
                index.setdefault(name.lower(), []).append(value)
            self._index = index
        return index

    def _values(self, name: str) -> list[str] | None:
        index = self._index
        if index is None:
            index = self._indexed()
        return index.get(name) or index.get(name.lower())


Mapping.register(Headers)

if TYPE_CHECKING:
    HeadersInit: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]] | Headers
else:
    HeadersInit = Mapping | Iterable | Headers


def _joined(name: str, values: list[str]) -> str:
    if len(values) == 1 or name.lower() == _SET_COOKIE:
        return values[0]
    return ", ".join(values)


def _pairs(init: object) -> Iterable[tuple[object, object]]:
    if isinstance(init, Mapping):
        return init.items()
    if isinstance(init, str | bytes) or not isinstance(init, Iterable):
        raise TypeError(
            f"headers must be a dict, a list of (name, value) pairs or Headers, "
            f"not {type(init).__name__}"
        )
    pairs = []
    for pair in init:
        if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2:
            raise TypeError(f"headers: each entry must be a (name, value) pair, not {pair!r}")
        pairs.append((pair[0], pair[1]))
    return pairs


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
        raise TypeError(f"Invalid header name {name!r}: letters, digits and !#$%&'*+-.^_`|~ only.")
    return name


def _checked_value(name: object, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = int(value) if isinstance(value, int) else value
        return str(value)
    if not isinstance(value, str):
        raise TypeError(
            f"Invalid value of header {name!r}: {value!r} is {type(value).__name__}, not str."
        )
    text = value.strip(" \t\r\n")
    if _BAD_VALUE.search(text) is not None:
        raise TypeError(
            f"Invalid value of header {name!r}: {text!r} has a line break, NUL or lone surrogate."
        )
    return text
