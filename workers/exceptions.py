"""Errors that an app sees.

::

    Exception
    ├── JsException                what JavaScript would have thrown: has name and message
    │   ├── DataCloneError         a value that cannot be stored or sent
    │   └── InvalidAccessError     an argument outside what the call accepts (a close code)
    ├── ValueError ── RangeError   JavaScript's RangeError
    ├── OSError ── BodyUsedError   a body read twice
    └── RemoteError                an exception of another process whose class is unknown here
    BaseException
    └── DurableObjectAbort         raised by ctx.abort(): passes every ``except Exception``

An exception that comes from another object carries flags as attributes, each absent when false
(https://developers.cloudflare.com/durable-objects/best-practices/error-handling/):

``remote``
    the other side raised it; it did not arise in this object or on the way.
``retryable``
    the call may be made again, on a new stub.
``overloaded``
    the object has more to do than it can: do not retry at once.
``durableObjectReset``
    the object lost its memory; its stub is broken, a new stub works.
"""

from __future__ import annotations

from typing import Final, TypeVar

ERROR_FLAGS: Final = ("remote", "retryable", "overloaded", "durableObjectReset")
"""The flags, in the order in which they travel."""

E = TypeVar("E", bound=BaseException)


class JsException(Exception):  # noqa: N818 - Pyodide's name
    """An error with JavaScript's ``name`` and ``message``, as ``pyodide.ffi.JsException``.

    Args:
        message: what went wrong.
        name: JavaScript's name of the error; the class's own name unless given.

    Source: https://developers.cloudflare.com/workers/languages/python/ffi/
    """

    def __init__(self, message: str = "", name: str | None = None) -> None:
        super().__init__(message)
        self.name = name if name is not None else type(self).__name__

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0]) if self.args else ""

    @classmethod
    def new(cls, message: str = "", *_options: object) -> JsException:
        """Make one, as ``new Error(message)`` does in JavaScript."""
        return cls(message)


class DataCloneError(JsException):
    """A value cannot be serialized, neither for storage nor for a call.

    Source: https://developers.cloudflare.com/workers/runtime-apis/rpc/#supported-types
    """


class InvalidAccessError(JsException):
    """An argument outside what the call accepts, as a WebSocket close code of 1004.

    Source: https://developers.cloudflare.com/workers/runtime-apis/websockets/
    """


class RangeError(ValueError):
    """A number outside its range; JavaScript's ``RangeError``."""


class BodyUsedError(OSError):
    """The body of a request or response was read before.

    Source: https://developers.cloudflare.com/workers/runtime-apis/request/
    """

    def __init__(self, message: str = "Body already used") -> None:
        super().__init__(message)


class RemoteError(Exception):
    """An exception of another object whose class does not exist here.

    Args:
        message: its text.
        name: the name of its class, without the module.
    """

    def __init__(self, message: str = "", name: str = "Error") -> None:
        super().__init__(message)
        self.name = name

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0]) if self.args else ""


class DurableObjectAbort(BaseException):
    """Raised by ``ctx.abort()`` to stop the code that called it.

    Not an ``Exception``, so ``except Exception`` does not catch it; ``finally`` runs.

    Source: https://developers.cloudflare.com/durable-objects/api/state/#abort
    """


def set_flags(
    error: E,
    *,
    remote: bool = False,
    retryable: bool = False,
    overloaded: bool = False,
    durable_object_reset: bool = False,
) -> E:
    """Set on ``error`` the flags that are true, and return it. Flags it has already stay."""
    if remote:
        error.remote = True  # type: ignore[attr-defined]
    if retryable:
        error.retryable = True  # type: ignore[attr-defined]
    if overloaded:
        error.overloaded = True  # type: ignore[attr-defined]
    if durable_object_reset:
        error.durableObjectReset = True  # type: ignore[attr-defined]
    return error


def get_flags(error: BaseException) -> dict[str, bool]:
    """Return the flags set on ``error``, by the names under which an app reads them."""
    return {name: True for name in ERROR_FLAGS if getattr(error, name, False) is True}
