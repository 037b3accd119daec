"""Python values to msgpack: what each type becomes, and which are refused."""

from __future__ import annotations

import datetime as dt
import inspect
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgpack

from workers.blob import Blob, File
from workers.body import take_body
from workers.convert import JsDict
from workers.exceptions import DataCloneError
from workers.headers import Headers
from workers.namespace import DurableObjectStub
from workers.remote_errors import describe_error
from workers.request import Request
from workers.response import FetchResponse, Response
from workers.rpc import RpcStub, RpcTarget
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
from workers.streams import ReadableStream

_MICROSECOND: Final = dt.timedelta(microseconds=1)
_REFUSED: Final = (
    'Could not serialize object of type "{}". This type does not support serialization.'
)


class AnyError:
    """Wraps an exception that may be no ``Exception``."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Encoder:
    """A packer and what it needs; used by one ``serialize`` at a time."""

    __slots__ = ("handles", "pack")

    def __init__(self) -> None:
        self.handles: HandleTable | None = None
        self.pack: Callable[[Any], bytes] = msgpack.Packer(
            default=self._default, strict_types=True, unicode_errors="surrogatepass"
        ).pack

    def _default(self, value: Any) -> Any:
        convert = _CONVERSIONS.get(type(value))
        if convert is not None:
            return convert(self, value)
        for base, convert in _BASES:
            if isinstance(value, base):
                return convert(self, value)
        if isinstance(value, _BY_REFERENCE) or (
            callable(value) and not isinstance(value, type) and not inspect.isawaitable(value)
        ):
            return self._handle(value)
        if inspect.isawaitable(value):
            raise TypeError(f"Awaitable {type(value)} cannot be sent over RPC.")
        raise _refused(value)

    def _nested(self, value: Any) -> bytes:
        encoder = Encoder()
        encoder.handles = self.handles
        return encoder.pack(value)

    def _extension(self, code: int, value: Any) -> msgpack.ExtType:
        return msgpack.ExtType(code, self._nested(value))

    def _handle(self, value: Any) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(value)
        return self._extension(HANDLE, self.handles.put(value))

    def _by_call(self, code: int, value: Any, content: list[Any]) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(value)
        return self._extension(code, content)

    def _error(self, error: BaseException) -> msgpack.ExtType:
        return self._extension(ERROR, describe_error(error, self._is_serializable))

    def _is_serializable(self, value: Any) -> bool:
        try:
            Encoder().pack(value)
        except (DataCloneError, TypeError, ValueError, RecursionError, BufferError):
            return False
        return True

    def _request(self, request: Request) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(request)
        content = [
            str(request.method),
            request.url,
            request.headers.raw,
            take_body(request),
            request.redirect,
        ]
        return self._extension(REQUEST, content)

    def _response(self, response: FetchResponse) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(response)
        if response.web_socket is not None:
            raise _refused(response.web_socket)
        content = [
            response.status,
            response.status_text,
            response.headers.raw,
            take_body(response),
            response.url,
        ]
        return self._extension(RESPONSE, content)


def _big_int(_: Encoder, value: int) -> msgpack.ExtType:
    size = value.bit_length() // 8 + 1
    return msgpack.ExtType(BIG_INT, value.to_bytes(size, "big", signed=True))


def _datetime(_: Encoder, value: dt.datetime) -> msgpack.ExtType:
    try:
        micros = (value.astimezone(dt.UTC) - EPOCH) // _MICROSECOND
    except (OverflowError, OSError):
        raise DataCloneError(f"Could not serialize {value!r}: it is out of range in UTC.") from None
    return msgpack.ExtType(DATETIME, micros.to_bytes(8, "big", signed=True))


def _plain_int(encoder: Encoder, value: int) -> Any:
    value = int(value)
    return value if -(1 << 63) <= value < 1 << 64 else _big_int(encoder, value)


_CONVERSIONS: Final[dict[type[Any], Callable[[Encoder, Any], Any]]] = {
    tuple: lambda _, value: list(value),
    JsDict: lambda _, value: dict(value),
    int: _big_int,
    set: lambda encoder, value: encoder._extension(SET, list(value)),
    frozenset: lambda encoder, value: encoder._extension(FROZEN_SET, list(value)),
    dt.datetime: _datetime,
    Decimal: lambda _, value: msgpack.ExtType(DECIMAL, str(value).encode()),
    uuid.UUID: lambda _, value: msgpack.ExtType(UUID, value.bytes),
    memoryview: lambda _, value: bytes(value),
    bytearray: lambda _, value: bytes(value),
    AnyError: lambda encoder, value: encoder._error(value.error),
    Headers: lambda encoder, value: encoder._by_call(HEADERS, value, value.raw),
    Blob: lambda encoder, value: encoder._by_call(BLOB, value, [bytes(value), value.content_type]),
    File: lambda encoder, value: encoder._by_call(
        FILE, value, [bytes(value), value.content_type, value.name, value.last_modified]
    ),
    Request: lambda encoder, value: encoder._request(value),
    Response: lambda encoder, value: encoder._response(value),
    FetchResponse: lambda encoder, value: encoder._response(value),
}

_BASES: Final[tuple[tuple[type[Any], Callable[[Encoder, Any], Any]], ...]] = (
    (str, lambda _, value: str.__str__(value)),
    (int, _plain_int),
    (float, lambda _, value: float(value)),
    (dict, lambda _, value: dict(value)),
    (list, lambda _, value: list(value)),
    (tuple, lambda _, value: list(value)),
    (bytes, lambda _, value: bytes(value)),
    (bytearray, lambda _, value: bytes(value)),
    (set, lambda encoder, value: encoder._extension(SET, list(value))),
    (frozenset, lambda encoder, value: encoder._extension(FROZEN_SET, list(value))),
    (dt.datetime, _datetime),
    (Exception, lambda encoder, value: encoder._error(value)),
)

_BY_REFERENCE: Final = (RpcTarget, RpcStub, DurableObjectStub, ReadableStream)


def _refused(value: object) -> DataCloneError:
    return DataCloneError(_REFUSED.format(type(value).__name__))
