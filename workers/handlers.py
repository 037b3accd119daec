"""Handlers: the methods of an app's class that the runtime calls, and how many arguments they take.

A handler is called *relaxed*: surplus positional arguments are dropped, so that ``alarm(self)`` and
``alarm(self, info)`` both work, and ``fetch(self, request)`` as well as
``fetch(self, request, env, ctx)``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

UNLIMITED: Final = 1 << 16
"""The arity of a handler with ``*args``."""

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@lru_cache(maxsize=4096)
def arity(cls: type[Any], name: str) -> int | None:
    """Return how many positional arguments (beside ``self``) handler ``name`` of ``cls`` takes.

    ``None`` if the class has no such handler. Computed once for each class and name; call it as
    ``instance.fetch(*args[:arity(type(instance), "fetch")])``.

    Args:
        cls: an app's class.
        name: the handler's name.
    """
    for base in cls.__mro__:
        if name in base.__dict__:
            attribute = base.__dict__[name]
            break
    else:
        return None
    function = getattr(cls, name)
    if not callable(function):
        return None
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return UNLIMITED
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return UNLIMITED
    count = sum(parameter.kind in _POSITIONAL for parameter in parameters)
    # Seen from the class, a plain function still has its self.
    bound = isinstance(attribute, staticmethod | classmethod)
    return count if bound else max(count - 1, 0)


def bound_handler(instance: Any, name: str, count: int) -> Callable[..., Any] | None:
    """Return handler ``name`` of ``instance``, to be called with exactly ``count`` arguments.

    ``None`` if its class has no such handler, under that name or in its snake_case form.
    """
    kind: Any = type(instance)
    for spelt in (name, _snake_case(name)):
        taken = arity(kind, spelt)
        if taken is not None:
            method: Callable[..., Any] = getattr(instance, spelt)
            if taken >= count:
                return method
            return lambda *args: method(*args[:taken])
    return None


@lru_cache
def _snake_case(name: str) -> str:
    return re.sub("([A-Z])", lambda match: "_" + match[1].lower(), name)
