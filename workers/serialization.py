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

from typing import Any, Final, NoReturn

from workers.decoding import Decoder
from workers.encoding import AnyError, Encoder
from workers.exceptions import DataCloneError, JsException
from workers.serialized_format import HandleTable

__all__ = [
    "MAX_CALL_BYTES",
    "HandleTable",
    "deserialize",
    "deserialize_call",
    "serialize",
    "serialize_call",
    "serialize_error",
    "serialize_result",
]

MAX_CALL_BYTES: Final = 32 * 1024 * 1024
"""Limit of the arguments of a call, and of its result."""
MAX_DEPTH: Final = 500
"""How deep lists and dicts may be nested."""

_MAX_IDLE: Final = 4
_idle: list[Encoder] = []
_plain_decoder: Final = Decoder()


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
    encoder = _idle.pop() if _idle else Encoder()
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
    decoder = _plain_decoder if handles is None else Decoder(handles)
    try:
        return decoder.unpack(data)
    except TypeError as error:
        # A tuple as a dict's key has come as a list, which cannot be one: again, the slow way.
        try:
            return Decoder(handles, decoder.taken, pairs=True).unpack(data)
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
    return serialize(AnyError(error))


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
