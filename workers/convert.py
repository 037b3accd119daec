"""Conversions that Cloudflare's SDK has between Python and JavaScript values.

Here no value ever becomes a JavaScript one, so they only check. What a value turns into on its way
to another object is in :mod:`workers.serialization`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Set
from types import SimpleNamespace
from typing import Any

from workers.env import env, waitUntil


class JsDict(dict[Any, Any]):
    """A ``dict`` whose keys can be read as attributes too: ``row["name"]`` and ``row.name``.

    All dicts that come out of calls and storage are of this class. A key that is the name of a
    ``dict`` method, as ``items``, can only be read with brackets.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __copy__(self) -> JsDict:
        return JsDict(self)

    def __reduce__(self) -> tuple[type[JsDict], tuple[dict[Any, Any]]]:
        return JsDict, (dict(self),)


def python_from_rpc(obj: Any) -> Any:
    """Return ``obj``: values from calls are Python values already.

    Source: https://developers.cloudflare.com/workers/languages/python/ffi/
    """
    return obj


def python_to_rpc(value: Any) -> Any:
    """Return ``value``, once it is known to hold nothing that must be awaited first.

    Raises:
        TypeError: it is or contains an awaitable.

    Source: https://developers.cloudflare.com/workers/languages/python/ffi/
    """
    _refuse_awaitables(value, set())
    return value


def import_from_javascript(module_name: str) -> Any:
    """Return what Cloudflare's JavaScript module of that name has, as far as it exists here.

    Args:
        module_name: ``"cloudflare:workers"`` (``env``, ``waitUntil`` and the base classes).

    Raises:
        ImportError: any other module.

    Source: https://developers.cloudflare.com/workers/languages/python/ffi/
    """
    if module_name == "cloudflare:workers":
        from workers.durable_object import DurableObject
        from workers.entrypoint import WorkerEntrypoint
        from workers.rpc import RpcTarget

        return SimpleNamespace(
            env=env,
            waitUntil=waitUntil,
            DurableObject=DurableObject,
            WorkerEntrypoint=WorkerEntrypoint,
            RpcTarget=RpcTarget,
        )
    raise ImportError(
        f"Failed to import {module_name!r}: there is no JavaScript here, only 'cloudflare:workers'."
    )


def _refuse_awaitables(value: object, seen: set[int]) -> None:
    if isinstance(value, Awaitable):
        raise TypeError(f"Awaitable {type(value)} cannot be sent over RPC.")
    if isinstance(value, Mapping | list | tuple | Set) and id(value) not in seen:
        seen.add(id(value))
        for item in value.values() if isinstance(value, Mapping) else value:
            _refuse_awaitables(item, seen)
