"""Exceptions on their way to another object: described as plain data, rebuilt at the other side.

An exception arrives as the same class if the receiver has imported that class already, with the
same arguments and attributes; no module is imported and no constructor of the app's runs for it.
The traceback of the other side is its note and its attribute ``remote_traceback``.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

from workers.exceptions import RemoteError

MAX_TRACEBACK_CHARS: Final = 64 * 1024
MAX_CAUSES: Final = 16
_NOTE_HEAD: Final = "Raised in another object:\n"
_NOT_PROPERTIES: Final = frozenset(("__notes__", "remote_traceback"))


def describe_error(error: BaseException, is_serializable: Callable[[Any], bool]) -> list[Any]:
    """Return ``error`` as data: module, class, arguments, attributes, notes, traceback, cause.

    Args:
        error: any exception.
        is_serializable: tells whether an argument or attribute can be sent. An argument that cannot
            is replaced by its text, an attribute is left out.
    """
    return _describe(error, is_serializable, MAX_CAUSES)


def _describe(
    error: BaseException, is_serializable: Callable[[Any], bool], causes: int
) -> list[Any]:
    cls = type(error)
    args = [arg if is_serializable(arg) else _text(arg) for arg in error.args]
    properties = {
        name: value
        for name, value in vars(error).items()
        if name not in _NOT_PROPERTIES and is_serializable(value)
    }
    notes = [
        note
        for note in getattr(error, "__notes__", ())
        if isinstance(note, str) and not note.startswith(_NOTE_HEAD)
    ]
    cause = error.__cause__
    return [
        cls.__module__,
        cls.__qualname__,
        args,
        properties,
        notes,
        _traceback_of(error),
        _describe(cause, is_serializable, causes - 1) if cause is not None and causes > 0 else None,
        _text(error),
    ]


def rebuild_error(description: list[Any]) -> Exception:
    """Return the exception that :func:`describe_error` described."""
    module, qualname, args, properties, notes, trace, cause, text = description
    error = _make(_find_class(module, qualname), args)
    if error is None:
        error = RemoteError(text, qualname.rpartition(".")[2])
        properties = {**properties, "name": properties.get("name", error.name)}
    vars(error).update(properties)
    if cause is not None:
        error.__cause__ = rebuild_error(cause)
    for note in notes:
        error.add_note(note)
    if trace is not None:
        error.remote_traceback = trace  # type: ignore[attr-defined]
        error.add_note(_NOTE_HEAD + trace)
    return error


def _find_class(module: str, qualname: str) -> type[Exception] | None:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _make(cls: type[Exception] | None, args: list[Any]) -> Exception | None:
    if cls is None:
        return None
    try:
        if cls.__module__ == "builtins":
            return cls(*args)
        error = cls.__new__(cls, *args)
        error.args = tuple(args)
    except Exception:
        return None
    return error if isinstance(error, cls) else None


def _traceback_of(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        remote = getattr(error, "remote_traceback", None)
        return remote if isinstance(remote, str) else None
    text = "".join(traceback.format_exception(error))
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return text


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
