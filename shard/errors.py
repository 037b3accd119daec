"""Errors on their way from an object to its caller: the same, whether both share a process or not.

A caller gets a copy, never the callee's own exception: same class, arguments, attributes and cause,
the traceback as a note (:mod:`workers.remote_errors`). What only the runtime knows is added as
attributes: ``remote``, ``retryable``, ``overloaded``, ``durableObjectReset``, ``durableObjectId``.
https://developers.cloudflare.com/durable-objects/best-practices/error-handling/

Whether a failure also broke the caller's stub is told apart from ``durableObjectReset``: an object
may pass on an error that a third one's reset caused, and is itself still well.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final

import shard
import workers
from common.errors import LimpetError, LinkDown, Overloaded
from workers.exceptions import ERROR_FLAGS, RemoteError, get_flags, set_flags
from workers.serialization import deserialize, serialize_error

MAX_TEXT_CHARS: Final = 16_384
"""Longest message that a gateway is told; the rest is cut."""
_BROKEN: Final = "__limpet_broken__"
_OURS: Final = tuple(str(Path(str(each.__file__)).parent) for each in (shard, workers))


def copy_error(
    error: BaseException, *, remote: bool, broken: bool = False, object_id: str | None = None
) -> BaseException:
    """The caller's copy of an error, as if it had crossed a link.

    Args:
        error: what the caller is to be told.
        remote: the app's code at the other side raised it.
        broken: the object was reset: the stub that the call was made with is of no use any more.
        object_id: of the object that raised it.
    """
    copy = deserialize(_serialized(error))
    assert isinstance(copy, BaseException)
    return _marked(copy, remote=remote, broken=broken, object_id=object_id)


def write_error(
    error: BaseException,
    *,
    remote: bool,
    broken: bool = False,
    object_id: str | None = None,
    for_shard: bool = True,
) -> dict[str, Any]:
    """The map of a ``FAILED`` record.

    The arguments are those of :func:`copy_error`; and *for_shard*: tell everything, where a gateway
    is told only name, text and status.
    """
    fields: dict[str, Any] = {
        "name": type(error).__name__,
        "message": _text(error),
        "status": error.http_status if isinstance(error, LimpetError) else 500,
        **get_flags(error),
    }
    if remote:
        fields["remote"] = True
    if for_shard:
        fields["error"] = _serialized(error)
        fields["broken"] = broken
        fields["object"] = object_id
    return fields


def read_error(fields: dict[str, Any]) -> BaseException:
    """The exception that :func:`write_error` wrote."""
    data = fields.get("error")
    error: Any = deserialize(data) if isinstance(data, bytes) else None
    if not isinstance(error, BaseException):
        error = RemoteError(str(fields.get("message")), str(fields.get("name")))
        for flag in ERROR_FLAGS:
            if fields.get(flag):
                setattr(error, flag, True)
    return _marked(
        error,
        remote=bool(fields.get("remote")),
        broken=bool(fields.get("broken")),
        object_id=fields.get("object"),
    )


def connection_lost(error: BaseException) -> LinkDown:
    """What a caller is told whose call was under way, or not sent, when the link went down."""
    lost = LinkDown("Network connection lost.")
    lost.add_note(str(error))
    return set_flags(lost, retryable=True)


def is_broken(error: BaseException) -> bool:
    """Whether this copy says that the stub broke."""
    return vars(error).get(_BROKEN) is True


def take_broken(error: BaseException) -> bool:
    """Whether this copy says that the stub broke. Takes the mark off: it is for one caller only."""
    return vars(error).pop(_BROKEN, False) is True


def _serialized(error: BaseException) -> bytes:
    trace = error.__traceback__
    try:
        # The app's author wants to see the app's lines only.
        error.__traceback__ = _from_app(trace)
        return serialize_error(error)
    finally:
        error.__traceback__ = trace


def _from_app(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT_CHARS]
    except Exception:
        return ""


def _marked(
    error: BaseException, *, remote: bool, broken: bool, object_id: str | None
) -> BaseException:
    set_flags(error, remote=remote, overloaded=isinstance(error, Overloaded))
    if remote and object_id is not None:
        error.durableObjectId = object_id  # type: ignore[attr-defined]
    if broken:
        setattr(error, _BROKEN, True)
    return error
