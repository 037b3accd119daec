"""Errors as they cross a link: class name, message and flags out, an exception back in."""

from __future__ import annotations

import builtins
from typing import Any, Final

from common.errors import LimpetError
from workers.exceptions import ERROR_FLAGS

MAX_TEXT_CHARS: Final = 16_384
"""Longest message that is passed on; the rest is cut."""


class RemoteError(Exception):
    """An exception of another process whose class does not exist here.

    Attributes:
        name: the class's name there.
    """

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


def write_error(error: BaseException) -> dict[str, Any]:
    """The map of a ``FAILED`` record."""
    fields: dict[str, Any] = {
        "name": type(error).__name__,
        "message": str(error)[:MAX_TEXT_CHARS],
        "status": error.http_status if isinstance(error, LimpetError) else 500,
        "remote": True,
    }
    for flag in ERROR_FLAGS:
        if getattr(error, flag, False):
            fields[flag] = True
    if isinstance(error, LimpetError):
        fields["remote"] = False
    return fields


def read_error(fields: dict[str, Any]) -> BaseException:
    """The exception that :func:`write_error` wrote, as a builtin class of that name if there is one."""
    name, message = str(fields.get("name")), str(fields.get("message"))
    kind = getattr(builtins, name, None)
    error: Exception
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(message)
        except TypeError:
            error = RemoteError(message, name)
    else:
        error = RemoteError(message, name)
    for flag in ERROR_FLAGS:
        if fields.get(flag):
            setattr(error, flag, True)
    return error
