"""Judges an app's module once it is imported: its classes, its entry point, its handlers.

What an author gets wrong here is silent at run time: a handler with a misspelt name is just never
called. So everything that merely *looks* like a handler is worth a warning.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from local.findings import Finding
from shard.app import takes_nothing
from workers import DurableObject, WorkerEntrypoint

# Handler -> how many arguments it is called with. Surplus ones are dropped, so fewer parameters
# are fine.
OBJECT_HANDLERS = {
    "fetch": 1,
    "alarm": 1,
    "webSocketMessage": 2,
    "webSocketClose": 4,
    "webSocketError": 2,
}
ENTRY_HANDLERS = {"fetch": 1}
ENTRY_POINT = "Default"


def inspect_app(module: ModuleType, bindings: dict[str, str]) -> Iterator[Finding]:
    """Yield what is right and wrong with an app.

    Args:
        module: its entry module.
        bindings: binding name -> class name.
    """
    yield from _inspect_entry_point(module)
    for binding, class_name in bindings.items():
        yield from _inspect_binding(module, binding, class_name)
    yield from _inspect_unbound(module, set(bindings.values()))


def _inspect_entry_point(module: ModuleType) -> Iterator[Finding]:
    found = getattr(module, ENTRY_POINT, None)
    if found is None:
        others = [name for name, _ in _classes(module, WorkerEntrypoint)]
        hint = (
            f"Rename {others[0]} to {ENTRY_POINT}." if others else "It answers the app's requests."
        )
        yield Finding(
            "error",
            f"there is no class {ENTRY_POINT}(WorkerEntrypoint)",
            module.__file__,
            hint,
        )
    elif not (inspect.isclass(found) and issubclass(found, WorkerEntrypoint)):
        yield Finding(
            "error",
            f"{ENTRY_POINT} is not a subclass of WorkerEntrypoint",
            _where(found) or module.__file__,
            f"Write class {ENTRY_POINT}(WorkerEntrypoint).",
        )
    elif not callable(getattr(found, "fetch", None)):
        yield Finding(
            "error",
            f"{ENTRY_POINT} has no fetch(self, request)",
            _where(found),
            "Add it: every request enters there.",
        )
    else:
        yield Finding("ok", f"entry point {ENTRY_POINT}.fetch")
        yield from _inspect_handlers(found, ENTRY_HANDLERS)


def _inspect_binding(module: ModuleType, binding: str, class_name: str) -> Iterator[Finding]:
    found = getattr(module, class_name, None)
    if found is None:
        known = [name for name, _ in _classes(module, DurableObject)]
        close = difflib.get_close_matches(class_name, known, n=1, cutoff=0.5)
        yield Finding(
            "error",
            f"binding {binding} names class {class_name}, which the module does not have",
            module.__file__,
            f"Did you mean {close[0]}?" if close else f"Define class {class_name}(DurableObject).",
        )
    elif not inspect.isclass(found):
        yield Finding(
            "error",
            f"binding {binding} names {class_name}, which is not a class",
            _where(found) or module.__file__,
            f"Write class {class_name}(DurableObject).",
        )
    else:
        if issubclass(found, DurableObject):
            yield Finding("ok", f"binding {binding} -> class {class_name}")
        else:
            # Cloudflare runs such a class as well: fetch and the handlers work, RPC does not.
            yield Finding(
                "warning",
                f"binding {binding} names {class_name}, which is not a subclass of DurableObject: "
                "its methods cannot be called over RPC",
                _where(found) or module.__file__,
                f"Write class {class_name}(DurableObject).",
            )
        yield from _inspect_constructor(found)
        yield from _inspect_handlers(found, OBJECT_HANDLERS)


def _inspect_unbound(module: ModuleType, bound: set[str]) -> Iterator[Finding]:
    for name, found in _classes(module, DurableObject):
        if name not in bound and found.__module__ == module.__name__ and not name.startswith("_"):
            yield Finding(
                "warning",
                f"class {name}(DurableObject) has no binding, so nothing can reach it",
                _where(found),
                "Bind it in the project file under durable_objects.bindings.",
            )


def _inspect_constructor(found: type) -> Iterator[Finding]:
    constructor = found.__dict__.get("__init__")
    if takes_nothing(found):
        yield Finding(
            "error",
            f"{found.__name__} cannot be constructed with (ctx, env)",
            _where(found),
            f"Write class {found.__name__}(DurableObject).",
        )
    elif constructor is not None and not _can_construct(constructor):
        yield Finding(
            "error",
            f"{found.__name__}.__init__ cannot be called as (self, ctx, env)",
            _where(constructor),
            "Write def __init__(self, ctx, env).",
        )


def _inspect_handlers(found: type, handlers: dict[str, int]) -> Iterator[Finding]:
    plain = {_plain(name): name for name in handlers}
    spellings = {form for name in handlers for form in (name, _snake(name))}
    for name, member in inspect.getmembers(found):
        if name.startswith("__") or getattr(DurableObject, name, None) is member:
            continue
        if name in spellings:
            yield from _inspect_handler(found, name, member, handlers[plain[_plain(name)]])
        elif callable(member) and (
            near := difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.9)
        ):
            yield Finding(
                "warning",
                f"{found.__name__}.{name} is never called: handlers go by their exact names",
                _where(member),
                f"Did you mean {plain[near[0]]}?",
            )


def _inspect_handler(found: type, name: str, member: object, given: int) -> Iterator[Finding]:
    if not callable(member):
        yield Finding("error", f"{found.__name__}.{name} is not a method", _where(found))
    elif inspect.isasyncgenfunction(member) or inspect.isgeneratorfunction(member):
        yield Finding(
            "error",
            f"{found.__name__}.{name} is a generator, so calling it does nothing",
            _where(member),
            "Remove the yield from it.",
        )
    elif not _accepts(member, given + 1):
        yield Finding(
            "warning",
            f"{found.__name__}.{name} requires more than the {given} "
            f"argument{'s' if given > 1 else ''} it is called with",
            _where(member),
            "Give the others default values.",
        )


def _can_construct(constructor: Callable[..., None]) -> bool:
    try:
        inspect.signature(constructor).bind("self", "ctx", "env")
    except TypeError:
        return False
    return True


def _accepts(function: Any, given: int) -> bool:
    """Return whether `given` positional arguments (self among them) suffice for a call."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    required = [p for p in parameters if p.default is p.empty]
    if any(p.kind is p.KEYWORD_ONLY for p in required):
        return False
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required) <= given


def _classes(module: ModuleType, base: type) -> list[tuple[str, type]]:
    return [
        (name, found)
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, base) and found is not base
    ]


def _where(thing: object) -> str | None:
    try:
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]
        _, line = inspect.getsourcelines(thing)  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None
    return f"{file}:{line}"


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
