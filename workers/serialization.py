"""Values as bytes: what may be stored, attached to a socket, or passed to another object.

The format is msgpack with extension types; nothing in it can name code to run. What goes in comes
out with the same type and value, except that

* ``tuple`` comes out as ``list``, ``bytearray`` and ``memoryview`` as ``bytes``;
* ``dict`` comes out as :class:`~workers.convert.JsDict`;
* what derives from a built-in type comes out as that type;
* ``datetime`` comes out in UTC (one without a zone counts as local time);
* an exception comes out as its class, if that is known at the receiver, with the text of its
  traceback as a note; otherwise as :class:`~workers.exceptions.RemoteError`;
* an object that occurs twice comes out as two.

What cannot be written as bytes (functions, streams, stubs) goes through a :class:`HandleTable`, if
the caller has one: calls do, storage does not.
https://developers.cloudflare.com/workers/runtime-apis/rpc/#structured-clonable-types-and-more
"""

from __future__ import annotations

import datetime as dt
import inspect
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

import msgpack

from workers.blob import Blob, File
from workers.body import take_body
from workers.convert import JsDict
from workers.exceptions import DataCloneError, JsException
from workers.headers import Headers
from workers.namespace import DurableObjectStub
from workers.remote_errors import describe_error, rebuild_error
from workers.request import Request
from workers.response import FetchResponse, Response
from workers.rpc import RpcStub, RpcTarget
from workers.streams import ReadableStream

MAX_CALL_BYTES: Final = 32 * 1024 * 1024
"""Limit of the arguments of a call, and of its result."""
MAX_DEPTH: Final = 500
"""How deep lists and dicts may be nested."""

# Codes of the extension types. They are on disk: never change one.
_BIG_INT: Final = 1
_SET: Final = 2
_FROZEN_SET: Final = 3
_DATETIME: Final = 4
_DECIMAL: Final = 5
_UUID: Final = 6
_ERROR: Final = 7
_HANDLE: Final = 8
_HEADERS: Final = 9
_BLOB: Final = 10
_FILE: Final = 11
_REQUEST: Final = 12
_RESPONSE: Final = 13

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_REFUSED: Final = (
    'Could not serialize object of type "{}". This type does not support serialization.'
)


class HandleTable(Protocol):
    """Carries what is passed by reference; made by the host for each call."""

    def put(self, value: Any) -> Any:
        """Return serializable data that stands for ``value`` on the way.

        Args:
            value: a function, :class:`~workers.rpc.RpcTarget`, :class:`~workers.rpc.RpcStub`,
                :class:`~workers.namespace.DurableObjectStub` or
                :class:`~workers.streams.ReadableStream`.

        Raises:
            DataCloneError: this one cannot be passed.
        """

    def take(self, data: Any) -> Any:
        """Return the stub or stream for what :meth:`put` returned at the other side."""


def serialize(
    value: Any, handles: HandleTable | None = None, max_bytes: int | None = None
) -> bytes:
    """Return ``value`` as bytes.

    Args:
        value: anything of the types named above; its content is read before this returns.
        handles: for what is passed by reference; without it such values are refused.
        max_bytes: limit of the size in bytes.

    Raises:
        DataCloneError: a value of another type, one that contains itself, or nested too deeply.
        TypeError: it contains an awaitable.
        JsException: the limit of a call is exceeded.
    """
    encoder = _idle.pop() if _idle else _Encoder()
    encoder.handles = handles
    try:
        data: bytes = encoder.pack(value)
    except (ValueError, RecursionError, BufferError) as error:
        _refuse_shape(value, error)
    finally:
        encoder.handles = None
        if len(_idle) < _MAX_IDLE:
            _idle.append(encoder)
    if max_bytes is not None and len(data) > max_bytes:
        raise JsException(
            f"Serialized RPC arguments or return values are limited to {max_bytes >> 20}MiB, "
            f"but the size of this value was: {len(data)} bytes.",
            "Error",
        )
    return data


def deserialize(data: bytes | memoryview, handles: HandleTable | None = None) -> Any:
    """Return the value that :func:`serialize` turned into ``data``.

    Args:
        data: the bytes.
        handles: what ``serialize`` was given, at this side.

    Raises:
        ValueError: ``data`` is malformed.
    """
    decoder = _plain_decoder if handles is None else _Decoder(handles)
    try:
        return decoder.unpack(data)
    except TypeError as error:
        # A tuple as a dict's key has come as a list, which cannot be one: again, the slow way.
        try:
            return _Decoder(handles, decoder.taken, pairs=True).unpack(data)
        except TypeError:
            raise ValueError(f"malformed serialized value: {error}") from error


def serialize_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], handles: HandleTable | None = None
) -> bytes:
    """Return the arguments of a call as bytes: at most 32 MiB. Raises as :func:`serialize`."""
    return serialize([args, kwargs] if kwargs else [args], handles, MAX_CALL_BYTES)


def deserialize_call(
    data: bytes | memoryview, handles: HandleTable | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that :func:`serialize_call` was given."""
    parts = deserialize(data, handles)
    if not isinstance(parts, list) or not 1 <= len(parts) <= 2:
        raise ValueError("malformed arguments of a call")
    return parts[0], parts[1] if len(parts) == 2 else {}


def serialize_result(value: Any, handles: HandleTable | None = None) -> bytes:
    """Return the result of a call as bytes: at most 32 MiB. Raises as :func:`serialize`."""
    return serialize(value, handles, MAX_CALL_BYTES)


def serialize_error(error: BaseException) -> bytes:
    """Return ``error`` as bytes, whatever it holds: what cannot be sent becomes text."""
    return serialize(_Error(error))


class _Error:
    """Wraps an exception that may be no ``Exception``."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Encoder:
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
        encoder = _Encoder()
        encoder.handles = self.handles
        return encoder.pack(value)

    def _extension(self, code: int, value: Any) -> msgpack.ExtType:
        return msgpack.ExtType(code, self._nested(value))

    def _handle(self, value: Any) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(value)
        return self._extension(_HANDLE, self.handles.put(value))

    def _by_call(self, code: int, value: Any, content: list[Any]) -> msgpack.ExtType:
        if self.handles is None:
            raise _refused(value)
        return self._extension(code, content)

    def _error(self, error: BaseException) -> msgpack.ExtType:
        return self._extension(_ERROR, describe_error(error, self._is_serializable))

    def _is_serializable(self, value: Any) -> bool:
        try:
            serialize(value)
        except (DataCloneError, TypeError):
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
        return self._extension(_REQUEST, content)

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
        return self._extension(_RESPONSE, content)


def _big_int(_: _Encoder, value: int) -> msgpack.ExtType:
    size = value.bit_length() // 8 + 1
    return msgpack.ExtType(_BIG_INT, value.to_bytes(size, "big", signed=True))


def _datetime(_: _Encoder, value: dt.datetime) -> msgpack.ExtType:
    try:
        micros = (value.astimezone(dt.UTC) - _EPOCH) // _MICROSECOND
    except (OverflowError, OSError):
        raise DataCloneError(f"Could not serialize {value!r}: it is out of range in UTC.") from None
    return msgpack.ExtType(_DATETIME, micros.to_bytes(8, "big", signed=True))


def _plain_int(encoder: _Encoder, value: int) -> Any:
    value = int(value)
    return value if -(1 << 63) <= value < 1 << 64 else _big_int(encoder, value)


_CONVERSIONS: Final[dict[type[Any], Callable[[_Encoder, Any], Any]]] = {
    tuple: lambda _, value: list(value),
    JsDict: lambda _, value: dict(value),
    int: _big_int,
    set: lambda encoder, value: encoder._extension(_SET, list(value)),
    frozenset: lambda encoder, value: encoder._extension(_FROZEN_SET, list(value)),
    dt.datetime: _datetime,
    Decimal: lambda _, value: msgpack.ExtType(_DECIMAL, str(value).encode()),
    uuid.UUID: lambda _, value: msgpack.ExtType(_UUID, value.bytes),
    memoryview: lambda _, value: bytes(value),
    bytearray: lambda _, value: bytes(value),
    _Error: lambda encoder, value: encoder._error(value.error),
    Headers: lambda encoder, value: encoder._by_call(_HEADERS, value, value.raw),
    Blob: lambda encoder, value: encoder._by_call(_BLOB, value, [bytes(value), value.content_type]),
    File: lambda encoder, value: encoder._by_call(
        _FILE, value, [bytes(value), value.content_type, value.name, value.last_modified]
    ),
    Request: lambda encoder, value: encoder._request(value),
    Response: lambda encoder, value: encoder._response(value),
    FetchResponse: lambda encoder, value: encoder._response(value),
}

_BASES: Final[tuple[tuple[type[Any], Callable[[_Encoder, Any], Any]], ...]] = (
    (str, lambda _, value: str.__str__(value)),
    (int, _plain_int),
    (float, lambda _, value: float(value)),
    (dict, lambda _, value: dict(value)),
    (list, lambda _, value: list(value)),
    (tuple, lambda _, value: list(value)),
    (bytes, lambda _, value: bytes(value)),
    (bytearray, lambda _, value: bytes(value)),
    (set, lambda encoder, value: encoder._extension(_SET, list(value))),
    (frozenset, lambda encoder, value: encoder._extension(_FROZEN_SET, list(value))),
    (dt.datetime, _datetime),
    (Exception, lambda encoder, value: encoder._error(value)),
)

_BY_REFERENCE: Final = (RpcTarget, RpcStub, DurableObjectStub, ReadableStream)

_MAX_IDLE: Final = 4
_idle: list[_Encoder] = []


def _refused(value: object) -> DataCloneError:
    return DataCloneError(_REFUSED.format(type(value).__name__))


def _refuse_shape(value: Any, error: Exception) -> NoReturn:
    path = _find_cycle(value)
    if path is not None:
        raise DataCloneError(
            f"Could not serialize a value that contains itself: value{path}."
        ) from None
    if "recursion" in str(error):
        raise DataCloneError(
            f"Could not serialize a value that is nested more than {MAX_DEPTH} levels deep."
        ) from None
    raise DataCloneError(f"Could not serialize: {error}") from None


def _find_cycle(value: Any) -> str | None:
    """Return where ``value`` contains one of its own ancestors, as ``['a'][0]``."""
    ancestors: set[int] = set()
    stack: list[tuple[str, Any, bool]] = [("", value, False)]
    while stack:
        path, item, leaving = stack.pop()
        if leaving:
            ancestors.discard(id(item))
            continue
        if not isinstance(item, dict | list | tuple):
            continue
        if id(item) in ancestors:
            return path
        ancestors.add(id(item))
        stack.append((path, item, True))
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        stack.extend((f"{path}[{key!r}]", child, False) for key, child in pairs)
    return None


class _Decoder:
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
        if code != _HANDLE or self._handles is None:
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
    _BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    _DATETIME: lambda data: (
        _EPOCH + dt.timedelta(microseconds=int.from_bytes(data, "big", signed=True))
    ),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: uuid.UUID(bytes=data),
}
_NESTED_EXTENSIONS: Final[dict[int, Callable[[Any], Any]]] = {
    _SET: lambda items: set(map(_hashable, items)),
    _FROZEN_SET: lambda items: frozenset(map(_hashable, items)),
    _ERROR: rebuild_error,
    _HEADERS: Headers.from_wire,
    _BLOB: lambda content: Blob(*content),
    _FILE: _file,
    _REQUEST: lambda content: Request.from_wire(*content),
    _RESPONSE: _response_of,
}

_plain_decoder: Final = _Decoder()
