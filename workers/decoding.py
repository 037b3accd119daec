"""Msgpack to Python values."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

import msgpack

from workers.blob import Blob, File
from workers.convert import JsDict
from workers.headers import Headers
from workers.remote_errors import rebuild_error
from workers.request import Request
from workers.response import Response
from workers.serialized_format import (
    BIG_INT,
    BLOB,
    DATETIME,
    DECIMAL,
    EPOCH,
    ERROR,
    FILE,
    FROZEN_SET,
    HANDLE,
    HEADERS,
    REQUEST,
    RESPONSE,
    SET,
    UUID,
    HandleTable,
)


class Decoder:
    """Turns bytes into values.

    Args:
        handles: for what was passed by reference.
        taken: what an earlier attempt at the same bytes has taken from ``handles``, in order.
        pairs: build dicts from pairs, so that their keys may need conversion.
    """

    __slots__ = ("_handles", "_options", "_replay", "taken")

    def __init__(
        self,
        handles: HandleTable | None = None,
        taken: Iterable[Any] = (),
        *,
        pairs: bool = False,
    ) -> None:
        self._handles = handles
        self._replay = iter(taken)
        self.taken: list[Any] = []
        self._options: dict[str, Any] = (
            {"object_pairs_hook": _with_hashable_keys} if pairs else {"object_hook": JsDict}
        )

    def unpack(self, data: bytes | memoryview) -> Any:
        return msgpack.unpackb(
            data,
            ext_hook=self.extension,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            **self._options,
        )

    def extension(self, code: int, data: bytes) -> Any:
        decode = _EXTENSIONS.get(code)
        if decode is not None:
            return decode(data)
        content = self.unpack(data)
        rebuild = _NESTED_EXTENSIONS.get(code)
        if rebuild is not None:
            return rebuild(content)
        if code != HANDLE or self._handles is None:
            raise ValueError(f"serialized value of an unknown type {code}")
        for earlier in self._replay:
            value = earlier
            break
        else:
            value = self._handles.take(content)
        self.taken.append(value)
        return value


def _with_hashable_keys(pairs: list[tuple[Any, Any]]) -> JsDict:
    return JsDict((_hashable(key), value) for key, value in pairs)


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


def _file(content: list[Any]) -> File:
    body, kind, name, modified = content
    return File(body, name, kind, None, modified)


def _response_of(content: list[Any]) -> Response:
    status, text, headers, body, url = content
    return Response.from_wire(status, text, headers, body, None, url)


_EXTENSIONS: Final[dict[int, Callable[[bytes], Any]]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: lambda data: (
        EPOCH + dt.timedelta(microseconds=int.from_bytes(data, "big", signed=True))
    ),
    DECIMAL: lambda data: Decimal(data.decode()),
    UUID: lambda data: uuid.UUID(bytes=data),
}
_NESTED_EXTENSIONS: Final[dict[int, Callable[[Any], Any]]] = {
    SET: lambda items: set(map(_hashable, items)),
    FROZEN_SET: lambda items: frozenset(map(_hashable, items)),
    ERROR: rebuild_error,
    HEADERS: Headers.from_wire,
    BLOB: lambda content: Blob(*content),
    FILE: _file,
    REQUEST: lambda content: Request.from_wire(*content),
    RESPONSE: _response_of,
}
