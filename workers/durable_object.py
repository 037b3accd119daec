"""DurableObject: the base class of an app's objects, and how the host makes an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.rpc import RpcCallable

if TYPE_CHECKING:
    from workers.context import DurableObjectState
    from workers.env import Env


class DurableObject(RpcCallable):
    """Base of an app's Durable Object classes.

    A subclass may define any of ``fetch(request)``, ``alarm(info)``,
    ``webSocketMessage(ws, message)``, ``webSocketClose(ws, code, reason, was_clean)`` and
    ``webSocketError(ws, error)``, sync or async; every other method may be called through a stub.
    An ``__init__(self, ctx, env)`` of its own need not call this one's.

    Attributes:
        ctx: the object's state: id, storage, sockets.
        env: the app's bindings.

    Source: https://developers.cloudflare.com/durable-objects/api/base/
    """

    ctx: DurableObjectState
    env: Env

    def __init__(self, ctx: DurableObjectState, env: Env) -> None:
        self.ctx = ctx
        self.env = env


def prepare_instance(cls: type[Any], ctx: Any, env: Any) -> Any:
    """Make an instance of an app's class, with ``ctx`` and ``env`` set before its ``__init__``.

    Args:
        cls: a DurableObject, a WorkerEntrypoint, or any class that takes ``(ctx, env)``.
        ctx: the state or execution context.
        env: the bindings.

    Raises:
        Exception: what the app's ``__init__`` raises.
    """
    if not issubclass(cls, RpcCallable) or cls.__new__ is not object.__new__:
        return cls(ctx, env)
    instance = cls.__new__(cls)
    instance.ctx = ctx  # type: ignore[attr-defined]
    instance.env = env  # type: ignore[attr-defined]
    instance.__init__(ctx, env)  # type: ignore[misc]
    return instance
