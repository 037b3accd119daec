"""Errors on their way from an object to its caller: the same, whether both share a process or not.

A caller gets a copy, never the callee's own exception: same class, arguments, attributes and cause,
the traceback as a note (:mod:`workers.remote_errors`). What only the runtime knows is added as
attributes: ``remote``, ``retryable``, ``overloaded``, ``durableObjectReset``, ``durableObjectId``.
https://developers.cloudflare.com/durable-objects/best-practices/error-handling/

Whether a failure also broke the caller's stub is told apart from ``durableObjectReset``: an object
may pass on an error that a third one's reset caused, and is itself still well.
"""

from __future__ import annotations

from typing import Any, Final

from common.errors import LimpetError, LinkDown, Overloaded
from workers.exceptions import ERROR_FLAGS, RemoteError, get_flags, set_flags
from workers.serialization import deserialize, serialize_error

MAX_TEXT_CHARS: Final = 16_384
"""Longest message that a gateway is told; the rest is cut."""
_BROKEN: Final = "__limpet_broken__"


def copy_error(
    error: BaseException, *, remote: bool, broken: bool = False, object_id: str | None = None
) -> BaseException:
    """The caller's copy of an error, as if it had crossed a link.

    Args:
        remote: the app's code at the other side raised it.
        broken: the object was reset: the stub that the call was made with is of no use any more.
        object_id: of the object that raised it.
    """
    copy = deserialize(serialize_error(error))
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

    Args:
        error, remote, broken, object_id: see :func:`copy_error`.
        for_shard: tell everything; a gateway is told only name, text and status.
    """
    fields: dict[str, Any] = {
        "name": type(error).__name__,
        "message": str(error)[:MAX_TEXT_CHARS],
        "status": error.http_status if isinstance(error, LimpetError) else 500,
        **get_flags(error),
    }
    if remote:
        fields["remote"] = True
    if for_shard:
        fields["error"] = serialize_error(error)
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


def take_broken(error: BaseException) -> bool:
    """Whether this copy says that the stub broke. Takes the mark off: it is for one caller only."""
    return vars(error).pop(_BROKEN, False) is True


def _marked(
    error: BaseException, *, remote: bool, broken: bool, object_id: str | None
) -> BaseException:
    set_flags(error, remote=remote, overloaded=isinstance(error, Overloaded))
    if remote and object_id is not None:
        error.durableObjectId = object_id  # type: ignore[attr-defined]
    if broken:
        setattr(error, _BROKEN, True)
    return error
