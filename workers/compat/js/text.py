"""``js.JSON`` and the functions that turn text into bytes and back."""

from __future__ import annotations

import base64
import binascii
import codecs
import datetime as dt
import json
import math
from typing import Any
from urllib.parse import quote, unquote

from workers.compat.js.buffers import Uint8Array
from workers.convert import JsDict
from workers.exceptions import InvalidAccessError

String = str


class JSON:
    """JavaScript's ``JSON``."""

    @staticmethod
    def parse(text: str) -> Any:
        """Return the value that ``text`` stands for.

        Raises:
            json.JSONDecodeError: it is no JSON (a ``ValueError``).
        """
        return json.loads(text, object_hook=JsDict)

    @staticmethod
    def stringify(value: Any, _replacer: object = None, space: int | str | None = None) -> str:
        """Return ``value`` as JSON without blanks, or indented by ``space``.

        Raises:
            TypeError: it has no JSON form.
            ValueError: it contains itself.
        """
        indent = space or None
        separators = (",", ":") if indent is None else (",", ": ")
        plain = _plain(value)
        return json.dumps(plain, ensure_ascii=False, separators=separators, indent=indent)


class TextEncoder:
    """Text to UTF-8."""

    encoding = "utf-8"

    @classmethod
    def new(cls) -> TextEncoder:
        """Make one."""
        return cls()

    def encode(self, text: str = "") -> Uint8Array:
        """Return ``text`` as UTF-8."""
        return Uint8Array(text.encode("utf-8", "replace"))


class TextDecoder:
    """Bytes to text.

    Raises:
        ValueError: the encoding is unknown.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        try:
            self.encoding = codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"unknown encoding: {encoding}") from None

    @classmethod
    def new(cls, encoding: str = "utf-8", _options: object = None) -> TextDecoder:
        """Make one."""
        return cls(encoding)

    def decode(self, data: bytes | bytearray | memoryview = b"") -> str:
        """Return ``data`` as text; what is invalid becomes U+FFFD."""
        return bytes(data).decode(self.encoding, "replace").removeprefix("\ufeff")


def btoa(text: str) -> str:
    """Return the Latin-1 bytes of ``text`` in base64.

    Raises:
        InvalidAccessError: a character is beyond U+00FF.
    """
    try:
        return base64.b64encode(text.encode("latin-1")).decode()
    except UnicodeEncodeError:
        raise InvalidAccessError(
            "btoa() can only operate on characters in the Latin1 (ISO/IEC 8859-1) range."
        ) from None


def atob(text: str) -> str:
    """Return what ``text`` is in base64, byte by byte as characters.

    Raises:
        InvalidAccessError: it is no base64.
    """
    packed = "".join(text.split())
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode("latin-1")
    except binascii.Error:
        raise InvalidAccessError(
            "atob() called with invalid base64-encoded data. (Only whitespace, '+', '/', "
            "alphanumeric ASCII, and up to two terminal '=' signs when the input data length is "
            "divisible by 4 are allowed.)"
        ) from None


def encodeURIComponent(text: object) -> str:
    """Return ``text`` percent-encoded, as a part of a URL."""
    return quote(str(text), safe="!'()*-._~")


def decodeURIComponent(text: object) -> str:
    """Return ``text`` without its percent-encoding.

    Raises:
        UnicodeDecodeError: that is no UTF-8 (a ``ValueError``).
    """
    return unquote(str(text), errors="strict")


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat(timespec="milliseconds")[:23] + "Z"
        case _ if hasattr(value, "toJSON"):
            return _plain(value.toJSON())
    return value
