"""``js.Object``, ``Array``, ``Map`` and ``Set``: Python's collections with JavaScript's methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workers.convert import JsDict


class Object:
    """JavaScript's ``Object``: its functions, and ``new()`` for an empty one."""

    @staticmethod
    def new() -> JsDict:
        """Make an empty dict."""
        return JsDict()

    @staticmethod
    def fromEntries(entries: Iterable[Any]) -> JsDict:
        """Return a dict of ``entries``: pairs, or a mapping. Serves as ``dict_converter``."""
        return JsDict(entries)

    @staticmethod
    def keys(value: Mapping[str, Any]) -> list[str]:
        """Return the keys."""
        return list(value.keys())

    @staticmethod
    def values(value: Any) -> list[Any]:
        """Return the values; of a WebSocketPair, both ends."""
        if hasattr(value, "object_values"):
            return list(value.object_values())
        return list(value.values())

    @staticmethod
    def entries(value: Mapping[str, Any]) -> list[list[Any]]:
        """Return ``[key, value]`` lists."""
        return [[key, item] for key, item in value.items()]

    @staticmethod
    def assign(target: dict[str, Any], *sources: Mapping[str, Any] | None) -> dict[str, Any]:
        """Copy the entries of ``sources`` into ``target`` and return it."""
        for source in sources:
            target.update(source or {})
        return target


class Array(list[Any]):
    """A list with the most used methods of JavaScript's arrays."""

    @classmethod
    def new(cls, *items: Any) -> Array:
        """Make one of ``items``; of as many ``None`` if there is one number."""
        if len(items) == 1 and isinstance(items[0], int):
            return cls([None] * items[0])
        return cls(items)

    of = new

    @staticmethod
    def from_(items: Iterable[Any]) -> Array:
        """Make one of any iterable."""
        return Array(items)

    @staticmethod
    def isArray(value: object) -> bool:
        """Whether ``value`` is a list."""
        return isinstance(value, list)

    @property
    def length(self) -> int:
        """Number of items."""
        return len(self)

    def push(self, *items: Any) -> int:
        """Append ``items`` and return the new length."""
        self.extend(items)
        return len(self)

    def forEach(self, callback: Callable[..., object]) -> None:
        """Call ``callback(item)`` for each item."""
        for item in list(self):
            callback(item)

    def to_py(self) -> list[Any]:
        """Return a plain list."""
        return list(self)


class Map(dict[Any, Any]):
    """A dict with the methods of JavaScript's ``Map``."""

    @classmethod
    def new(cls, entries: Iterable[Any] = ()) -> Map:
        """Make one of pairs."""
        return cls(entries)

    def set(self, key: Any, value: Any) -> Map:
        """Set an entry and return the map."""
        self[key] = value
        return self

    def has(self, key: Any) -> bool:
        """Whether there is an entry of that key."""
        return key in self

    def delete(self, key: Any) -> bool:
        """Remove an entry; whether there was one."""
        found = key in self
        self.pop(key, None)
        return found

    def entries(self) -> list[list[Any]]:
        """Return ``[key, value]`` lists."""
        return [[key, value] for key, value in self.items()]

    def forEach(self, callback: Callable[..., object]) -> None:
        """Call ``callback(value, key)`` for each entry."""
        for key, value in list(self.items()):
            callback(value, key)

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self)

    def to_py(self) -> dict[Any, Any]:
        """Return a plain dict."""
        return dict(self)


class Set(set[Any]):
    """A set with the methods of JavaScript's ``Set``."""

    @classmethod
    def new(cls, items: Iterable[Any] = ()) -> Set:
        """Make one of ``items``."""
        return cls(items)

    def has(self, item: Any) -> bool:
        """Whether ``item`` is in it."""
        return item in self

    def delete(self, item: Any) -> bool:
        """Remove ``item``; whether it was there."""
        found = item in self
        self.discard(item)
        return found

    def values(self) -> list[Any]:
        """Return the items."""
        return list(self)

    def forEach(self, callback: Callable[..., object]) -> None:
        """Call ``callback(item)`` for each item."""
        for item in list(self):
            callback(item)

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self)

    def to_py(self) -> set[Any]:
        """Return a plain set."""
        return set(self)
