"""``env``: the bindings and variables that an app's wrangler file declares.

https://developers.cloudflare.com/workers/runtime-apis/bindings/
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from workers.host import current_host


class Env:
    """Bindings by name, as attributes or items: ``env.ROOMS``, ``env["ROOMS"]``.

    Args:
        bindings: the names and what they stand for.
        declared_in: the file that declares them, for error messages.

    Source: https://developers.cloudflare.com/workers/runtime-apis/bindings/
    """

    def __init__(
        self, bindings: Mapping[str, Any] | None = None, declared_in: str = "wrangler.jsonc"
    ) -> None:
        # Plain attributes: reading env.ROOMS costs no call.
        self.__dict__.update(bindings or {})
        self.__dict__["_declared_in"] = declared_in

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_missing(name, self, self.__dict__.get("_declared_in")))

    def __getitem__(self, name: str) -> Any:
        if name in self:
            return self.__dict__[name]
        raise KeyError(_missing(name, self, self.__dict__.get("_declared_in")))

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__ and name != "_declared_in"

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.__dict__ if name != "_declared_in")

    def __len__(self) -> int:
        return len(self.__dict__) - 1

    def __repr__(self) -> str:
        return f"<env: {', '.join(self) or 'no bindings'}>"


class _ModuleEnv(Env):
    """``workers.env``: whatever env belongs to the code that asks."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        patch = _patches.get()
        if name in patch:
            return patch[name]
        return getattr(current_host().env, name)

    def __getitem__(self, name: str) -> Any:
        patch = _patches.get()
        return patch[name] if name in patch else current_host().env[name]

    def __contains__(self, name: object) -> bool:
        return name in _patches.get() or name in current_host().env

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(current_host().env), **_patches.get()})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return "<workers.env>"


_patches: ContextVar[Mapping[str, Any]] = ContextVar("limpet_env_patches", default={})  # noqa: B039

env = _ModuleEnv()
"""The bindings, without having to be handed an ``env``.

Source: https://developers.cloudflare.com/workers/runtime-apis/bindings/#importing-env-as-a-global
"""


@contextmanager
def patch_env(
    d: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None, **kwds: Any
) -> Iterator[None]:
    """Replace bindings of ``workers.env`` for the length of a ``with`` block, and what it starts.

    Args:
        d: names and values.
        kwds: the same as keywords; they win.

    Source: https://developers.cloudflare.com/workers/languages/python/
    """
    token = _patches.set({**_patches.get(), **dict(d or ()), **kwds})
    try:
        yield
    finally:
        _patches.reset(token)


def waitUntil(awaitable: object) -> None:
    """Keep the running object or request alive until ``awaitable`` is done.

    Its failure is logged and harms nothing else. What is not awaitable is ignored.

    Raises:
        RuntimeError: called outside any handler.

    Source: https://developers.cloudflare.com/workers/runtime-apis/context/#waituntil
    """
    current_host().wait_until(awaitable)


wait_until = waitUntil


def _missing(name: str, known: Iterable[str], declared_in: str | None) -> str:
    close = difflib.get_close_matches(name.upper(), list(known), n=1, cutoff=0.6)
    question = f": did you mean {close[0]!r}?" if close else "."
    return (
        f"env has no binding {name!r}{question} "
        f"Bindings are declared in {declared_in or 'wrangler.jsonc'} under "
        "durable_objects.bindings, variables under vars."
    )
