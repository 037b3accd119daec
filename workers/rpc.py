"""RPC: what of an object may be called from outside, and what a caller holds meanwhile.

https://developers.cloudflare.com/workers/runtime-apis/rpc/
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from workers.host import TargetChannel

RESERVED_METHODS: Final = frozenset(
    ("alarm", "webSocketMessage", "webSocketClose", "webSocketError", "dup")
)
"""Methods that only the runtime calls."""

LOCAL_NAMES: Final = frozenset(("fetch", "connect", "then", "id", "name"))
"""Names that a stub answers itself, or never has: no method of an object can be reached by them."""

_NOT_A_BASE: Final = (
    "The receiving Durable Object does not support RPC, because its class was not declared with "
    "`extends DurableObject`. In order to enable RPC, make sure your class extends the special "
    'class `DurableObject`, which can be imported from the module "cloudflare:workers".'
)


class RpcCallable:
    """Marks classes whose instances may be called over RPC."""


class RpcTarget(RpcCallable):
    """Base of objects that are passed over RPC by reference: the other side gets a stub.

    Its methods can be called there; its instance attributes cannot be seen. A method ``dispose`` or
    ``__dispose__`` runs once, when the last stub is disposed of.

    Source: https://developers.cloudflare.com/workers/runtime-apis/rpc/#class-instances
    """


def resolve_method(instance: object, name: str) -> Callable[..., Any]:
    """Return what a call of ``name`` on ``instance`` from outside runs.

    That is any callable attribute, whether it begins with ``_`` or not, as Cloudflare's Python
    runtime has it; except names with two underscores at both ends, what only the runtime calls and
    what stubs answer themselves. Of an :class:`RpcTarget`, methods only.

    Args:
        instance: the object.
        name: the method's name, from the other side: not to be trusted.

    Raises:
        TypeError: there is no such method, or it must not be called.
    """
    if name in RESERVED_METHODS:
        raise TypeError(f"'{name}' is a reserved method and cannot be called over RPC.")
    if name == "constructor":
        raise TypeError("Illegal constructor")
    if not isinstance(instance, RpcCallable):
        error = TypeError(_NOT_A_BASE)
        error.add_note(
            "In Python: `from workers import DurableObject`, then "
            f"`class {type(instance).__name__}(DurableObject): ...`"
        )
        raise error
    if name in LOCAL_NAMES or (name.startswith("__") and name.endswith("__")):
        raise _no_method(instance, name)
    if isinstance(instance, RpcTarget) and not hasattr(type(instance), name):
        raise _no_method(instance, name)
    try:
        method = getattr(instance, name)
    except AttributeError:
        raise _no_method(instance, name) from None
    if not callable(method):
        raise _no_method(instance, name)
    return method  # type: ignore[no-any-return]


def _no_method(instance: object, name: str) -> TypeError:
    error = TypeError(f"Method {name} does not exist")
    cls = type(instance)
    known = [each for each in dir(cls) if not each.startswith("_") and callable(getattr(cls, each))]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        error.add_note(f"{cls.__name__} has a method {close[0]!r}.")
    return error


class RpcPromise(Coroutine[Any, Any, Any]):
    """The outcome of a call that is under way. ``await`` it, once.

    The call has been sent already, so a promise that nobody awaits is no error: the method runs and
    its result is dropped. Using a promise as if it were the result is a ``TypeError`` that says so.
    """

    __slots__ = ("_awaitable", "_method", "_steps")

    def __init__(self, awaitable: Awaitable[Any], method: str) -> None:
        self._awaitable = awaitable
        self._method = method
        self._steps: Generator[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._awaitable.__await__()

    # A coroutine by its methods, so that asyncio.create_task() takes it.

    def send(self, value: Any) -> Any:
        """Step it, as an event loop does."""
        if self._steps is None:
            self._steps = self._awaitable.__await__()
        return self._steps.send(value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        """Raise in it, as an event loop does."""
        if self._steps is None:
            self._steps = self._awaitable.__await__()
        return self._steps.throw(typ if val is None else val)

    def close(self) -> None:
        """Do not wait for the outcome."""
        if self._steps is not None:
            self._steps.close()

    def _not_awaited(self, *_: object) -> NoReturn:
        raise TypeError(f"{self._method}() was not awaited: write `await stub.{self._method}()`")

    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = _not_awaited
    __int__ = __float__ = __lt__ = __le__ = __gt__ = __ge__ = _not_awaited
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _not_awaited

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self._method}() was not awaited: write `(await stub.{self._method}()).{name}`"
        )

    def __repr__(self) -> str:
        return f"<RpcPromise of {self._method}(): not awaited yet>"


class RpcStub:
    """A function or :class:`RpcTarget` of another object: call it, or its methods.

    What is called runs where it was made. A stub that came as an argument works until the call
    ends, unless it is kept with :meth:`dup`; one that came as a result works until it is disposed
    of, or garbage-collected. ``with stub:`` disposes of it at the end of the block.

    Source: https://developers.cloudflare.com/workers/runtime-apis/rpc/lifecycle/
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: TargetChannel) -> None:
        self._channel = channel

    def __call__(self, *args: Any, **kwargs: Any) -> RpcPromise:
        """Call the function.

        Raises:
            DataCloneError: an argument cannot be sent.
        """
        return RpcPromise(self._channel.call(None, args, kwargs), "function")

    def __getattr__(self, name: str) -> StubMethod:
        if name == "then" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return StubMethod(self._channel, name)

    def dup(self) -> RpcStub:
        """Another stub of the same target, disposed of separately."""
        return RpcStub(self._channel.dup())

    def dispose(self) -> None:
        """Let the target go; later calls fail: "RPC stub used after being disposed."."""
        self._channel.dispose()

    def __enter__(self) -> RpcStub:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    def __repr__(self) -> str:
        return "<RpcStub>"


class StubMethod:
    """A method of a stub, by name: calling it sends the call."""

    __slots__ = ("_channel", "_name")

    def __init__(self, channel: Any, name: str) -> None:
        self._channel = channel
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> RpcPromise:
        """Send the call.

        Raises:
            DataCloneError: an argument cannot be sent.
        """
        return RpcPromise(self._channel.call(self._name, args, kwargs), self._name)

    def __await__(self) -> NoReturn:
        raise TypeError(f"{self._name} was not called: write `await stub.{self._name}()`")

    def __repr__(self) -> str:
        return f"<method {self._name} of a stub>"
