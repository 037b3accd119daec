"""``pyodide.ffi``: conversions that have nothing to convert here, as there is no JavaScript.

https://pyodide.org/en/stable/usage/api/python-api/ffi.html
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from workers.convert import JsDict
from workers.exceptions import JsException
from workers.host import current_host

T = TypeVar("T")

__all__ = [
    "ConversionError",
    "JsArray",
    "JsBuffer",
    "JsException",
    "JsMap",
    "JsPromise",
    "JsProxy",
    "PyProxy",
    "can_run_sync",
    "create_once_callable",
    "create_proxy",
    "destroy_proxies",
    "jsnull",
    "run_sync",
    "to_js",
]

jsnull = None
"""JavaScript's ``null``: Python's ``None``."""


class ConversionError(Exception):
    """A value cannot be converted. Never raised here."""


class JsProxy:
    """A JavaScript object in Python. There are none here: nothing is an instance of it."""


class JsArray(JsProxy):
    """A JavaScript array. There are none here."""


class JsMap(JsProxy):
    """A JavaScript map. There are none here."""


class JsBuffer(JsProxy):
    """A JavaScript buffer. There are none here."""


class JsPromise(JsProxy):
    """A JavaScript promise. There are none here."""


class PyProxy:
    """A function or object as JavaScript would hold it: calls and attributes go through."""

    __slots__ = ("_target",)

    def __init__(self, target: Any) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; of a coroutine function, return the coroutine."""
        return self._target(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def copy(self) -> PyProxy:
        """Return another proxy of the same object."""
        return PyProxy(self._target)

    def destroy(self) -> None:
        """Do nothing: memory needs no help here."""

    def __eq__(self, other: object) -> bool:
        target = other._target if isinstance(other, PyProxy) else other
        return bool(self._target == target)

    def __hash__(self) -> int:
        return hash(self._target)

    def __repr__(self) -> str:
        return f"<PyProxy of {self._target!r}>"


def create_proxy(obj: Any, /, **_options: object) -> PyProxy:
    """Return ``obj`` with a ``destroy()`` method, as listeners and callbacks are passed."""
    return PyProxy(obj)


def create_once_callable(obj: Callable[..., T], /, **_options: object) -> Callable[..., T]:
    """Return a function that calls ``obj`` the first time.

    Raises:
        RuntimeError: when it is called a second time.
    """
    used = False

    def once(*args: Any, **kwargs: Any) -> T:
        nonlocal used
        if used:
            raise RuntimeError("OnceProxy can only be called once")
        used = True
        return obj(*args, **kwargs)

    return once


def destroy_proxies(pyproxies: Iterable[object], /) -> None:
    """Do nothing: memory needs no help here."""


def to_js(
    obj: Any,
    /,
    *,
    dict_converter: Callable[[Iterable[Any]], Any] | None = None,
    **_options: object,
) -> Any:
    """Return ``obj``; dicts as ``dict_converter`` makes them of their items.

    Args:
        obj: any value.
        dict_converter: ``Object.fromEntries``, most often.
    """
    if dict_converter is None:
        return obj
    if isinstance(obj, dict):
        items = [(key, to_js(value, dict_converter=dict_converter)) for key, value in obj.items()]
        return dict_converter(items)
    if isinstance(obj, list | tuple):
        return [to_js(item, dict_converter=dict_converter) for item in obj]
    return obj


def to_py(obj: Any, /, **_options: object) -> Any:
    """Return ``obj``; a dict with attribute access as a plain one."""
    return dict(obj) if isinstance(obj, JsDict) else obj


def run_sync(awaitable: Awaitable[T], /) -> T:
    """Block synchronous code until ``awaitable`` is done, while other objects go on.

    Raises:
        RuntimeError: the calling code cannot be suspended here.
    """
    return current_host().run_sync(awaitable)


def can_run_sync() -> bool:
    """Whether :func:`run_sync` may be called: inside a running app."""
    try:
        current_host()
    except RuntimeError:
        return False
    return True
