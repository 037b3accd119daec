"""WorkerEntrypoint: the base class of what answers requests that are for no object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workers.rpc import RpcCallable

if TYPE_CHECKING:
    from workers.context import ExecutionContext
    from workers.env import Env

F = TypeVar("F", bound=Callable[..., Any])


class WorkerEntrypoint(RpcCallable):
    """Base of an app's entry point, which is called ``Default``.

    A new instance is made for every request. ``fetch(request)`` answers it.

    Attributes:
        ctx: the request's context.
        env: the app's bindings.

    Source: https://developers.cloudflare.com/workers/runtime-apis/bindings/service-bindings/rpc/#the-workerentrypoint-class
    """

    ctx: ExecutionContext
    env: Env

    def __init__(self, ctx: ExecutionContext, env: Env) -> None:
        self.ctx = ctx
        self.env = env


class WorkflowEntrypoint:
    """Importable, so that an app with workflows loads; workflows do not run here.

    Raises:
        NotImplementedError: an instance is made.

    Source: https://developers.cloudflare.com/workflows/
    """

    def __init__(self, ctx: Any = None, env: Any = None) -> None:
        raise NotImplementedError(
            f"{type(self).__name__}: workflows are not supported. "
            "A Durable Object with an alarm can do a workflow's steps."
        )


def handler(func: F) -> F:
    """Mark a function as a handler; it is returned as it is, its arguments need no conversion.

    Source: https://developers.cloudflare.com/workers/languages/python/
    """
    return func
