"""``js.ArrayBuffer`` and ``js.Uint8Array``: byte arrays with JavaScript's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Uint8Array(bytearray):
    """Bytes that can be changed, with the names of JavaScript's typed array and of its proxies."""

    @classmethod
    def new(cls, source: Any = 0, offset: int = 0, length: int | None = None) -> Uint8Array:
        """Make one of a size, of bytes, or of numbers 0..255."""
        if isinstance(source, int):
            return cls(source)
        end = None if length is None else offset + length
        data = source if isinstance(source, bytes | bytearray | memoryview) else bytes(source)
        return cls(data[offset:end])

    @staticmethod
    def from_(items: Iterable[int]) -> Uint8Array:
        """Make one of numbers 0..255."""
        return Uint8Array(items)

    @property
    def length(self) -> int:
        """Number of bytes."""
        return len(self)

    byteLength = length

    @property
    def buffer(self) -> Uint8Array:
        """Itself: array and buffer are one here."""
        return self

    def set(self, source: bytes | bytearray | memoryview | Iterable[int], offset: int = 0) -> None:
        """Copy ``source`` into it at ``offset``.

        Raises:
            ValueError: it does not fit.
        """
        data = bytes(source)
        if not 0 <= offset <= len(self) - len(data):
            raise ValueError("offset is out of bounds")
        self[offset : offset + len(data)] = data

    def slice(self, start: int | None = None, end: int | None = None) -> Uint8Array:
        """Return a copy of a part."""
        return Uint8Array(self[start:end])

    def subarray(self, start: int | None = None, end: int | None = None) -> Uint8Array:
        """Return a copy of a part; unlike in JavaScript, it does not share memory."""
        return Uint8Array(self[start:end])

    def assign(self, source: bytes | bytearray | memoryview) -> None:
        """Copy ``source``, of the same length, into it: the name of Pyodide's proxies."""
        if len(source) != len(self):
            raise ValueError("cannot assign from a buffer of another length")
        self[:] = source

    def to_py(self) -> memoryview:
        """Return the bytes as a ``memoryview``."""
        return memoryview(self)

    to_memoryview = to_py

    def to_bytes(self) -> bytes:
        """Return the bytes."""
        return bytes(self)


ArrayBuffer = Uint8Array
"""The same class: array and buffer are one here."""
