"""Blob and File: immutable bytes with a media type.

https://developers.cloudflare.com/workers/languages/python/stdlib/ mirrors them from the web's API.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from workers.streams import ReadableStream

_Bytes: TypeAlias = bytes
_PRINTABLE: Final = range(0x20, 0x7F)


class BlobEnding(StrEnum):
    """What happens to line ends of ``str`` parts."""

    TRANSPARENT = "transparent"
    NATIVE = "native"


class Blob:
    """Immutable bytes with a media type.

    Args:
        blob_parts: one part or an iterable of parts: ``str`` (UTF-8), bytes-like, ``Blob``.
        content_type: the media type, kept lower-case; inherited from a single ``Blob`` part.
        endings: ``"native"`` turns line ends of ``str`` parts into those of the system.

    Raises:
        TypeError: a part is of another type.

    Source: https://developer.mozilla.org/docs/Web/API/Blob
    """

    __slots__ = ("_data", "_type")

    def __init__(
        self,
        blob_parts: Iterable[BlobValue] | BlobValue = (),
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
    ) -> None:
        if isinstance(blob_parts, Blob | str | bytes | bytearray | memoryview):
            if content_type is None and isinstance(blob_parts, Blob):
                content_type = blob_parts.content_type
            blob_parts = (blob_parts,)
        native = endings is not None and BlobEnding(str(endings)) is BlobEnding.NATIVE
        self._data: bytes = b"".join(_part(part, native) for part in blob_parts)
        self._type = _media_type(content_type)

    @classmethod
    def new(cls, parts: Iterable[BlobValue] = (), options: object = None, **init: object) -> Blob:
        """Make one as JavaScript's ``new Blob(parts, {type, endings})`` does."""
        given = {**_options(options), **init}
        kind, endings = given.get("type"), given.get("endings")
        return Blob(
            parts,
            str(kind) if kind is not None else None,
            str(endings) if endings is not None else None,
        )

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._data)

    @property
    def content_type(self) -> str:
        """The media type, lower-case; ``""`` if unknown."""
        return self._type

    type = content_type

    @property
    def js_object(self) -> Blob:
        """Itself: here there is no JavaScript object behind it."""
        return self

    async def text(self) -> str:
        """Return the content as UTF-8; what is invalid becomes U+FFFD."""
        return self._data.decode("utf-8", "replace")

    async def bytes(self) -> _Bytes:
        """Return the content."""
        return self._data

    async def arrayBuffer(self) -> _Bytes:
        """Return the content."""
        return self._data

    def stream(self) -> ReadableStream:
        """Return the content as a stream."""
        return ReadableStream.of(self._data)

    def slice(
        self, start: int | None = None, end: int | None = None, content_type: str | None = None
    ) -> Blob:
        """Return a part of it, with Python's rules for negative indexes."""
        return Blob(self._data[start:end], content_type)

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> _Bytes:
        return self._data

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blob):
            return NotImplemented
        return type(self) is type(other) and self._data == other._data and self._type == other._type

    def __hash__(self) -> int:
        return hash((self._data, self._type))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, content_type={self._type!r})"

    array_buffer = arrayBuffer


class File(Blob):
    """A ``Blob`` with a file name.

    Args:
        blob_parts: see :class:`Blob`.
        filename: its name.
        content_type: the media type; inherited from a single ``Blob`` part.
        endings: see :class:`Blob`.
        last_modified: milliseconds since 1970; inherited from a single ``File`` part, else now.

    Source: https://developer.mozilla.org/docs/Web/API/File
    """

    __slots__ = ("_last_modified", "_name")

    def __init__(
        self,
        blob_parts: Iterable[BlobValue] | BlobValue,
        filename: str,
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
        last_modified: int | None = None,
    ) -> None:
        if last_modified is None and isinstance(blob_parts, File):
            last_modified = blob_parts.last_modified
        super().__init__(blob_parts, content_type, endings)
        self._name = filename
        self._last_modified = int(time.time() * 1000) if last_modified is None else last_modified

    @property
    def name(self) -> str:
        """The file's name."""
        return self._name

    @property
    def last_modified(self) -> int:
        """Milliseconds since 1970."""
        return self._last_modified

    lastModified = last_modified

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File):
            return NotImplemented
        return super().__eq__(other) is True and self._name == other._name

    def __hash__(self) -> int:
        return hash((self._data, self._type, self._name))


if TYPE_CHECKING:
    BlobValue: TypeAlias = str | bytes | bytearray | memoryview | Blob
else:
    BlobValue = str | bytes | bytearray | memoryview | Blob


def _part(part: object, native: bool) -> bytes:
    if isinstance(part, str):
        if native:
            part = part.replace("\r\n", "\n").replace("\r", "\n").replace("\n", os.linesep)
        return part.encode("utf-8", "replace")
    if isinstance(part, Blob):
        return part._data
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part)
    raise TypeError(f"Don't know how to handle {type(part)} for Blob()")


def _media_type(content_type: str | None) -> str:
    if content_type is None or any(ord(char) not in _PRINTABLE for char in content_type):
        return ""
    return content_type.lower()


def _options(options: object) -> dict[str, object]:
    return dict(options) if isinstance(options, dict) else {}
