"""Loads the app: its entry module, the classes it exports, and the ``env`` it is given.

The app's folder comes first on its import path, so that it finds its own modules; the ``js`` and
``pyodide`` modules that Cloudflare's programs import come last, so that they never shadow a
package of the app's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn

from common.errors import ConfigError
from common.wrangler import Binding, Project
from workers import DurableObject

_HOME: Final = Path(__file__).resolve().parents[1]
COMPAT_PATH: Final = str(_HOME / "workers" / "compat")

RESERVED: Final = ("workers", "gateway", "shard", "common", "local")
"""Top-level modules of Limpet: an app may not bring its own of such a name."""


@dataclass(frozen=True, slots=True)
class App:
    """An app that has been imported.

    Attributes:
        project: its project file.
        module: its entry module.
        entry: the class ``Default``, or ``None``.
        classes: the exported classes by name.
    """

    project: Project
    module: ModuleType
    entry: type[Any] | None
    classes: dict[str, type[Any]]

    def without_rpc(self) -> list[Binding]:
        """The bindings to a class that is no DurableObject: it has ``fetch``, but no RPC."""
        return [
            each
            for each in self.project.bindings
            if not issubclass(self.class_of(each), DurableObject)
        ]

    def class_of(self, binding: Binding) -> type[Any]:
        """The class that a binding names.

        Raises:
            ConfigError: the entry module does not export it.
        """
        found = self.classes.get(binding.class_name)
        if found is None:
            own = (name for name, each in self.classes.items() if not _is_ours(each))
            exported = ", ".join(sorted(own)) or "none"
            raise ConfigError(
                f"binding {binding.name} names the class {binding.class_name!r}, "
                f"which {self.project.main.name} does not export (its classes: {exported})",
                where=binding.where,
                remedy=f"define class {binding.class_name}(DurableObject), or correct class_name",
            )
        return found


def load_app(project: Project) -> App:
    """Import the entry module of *project* into this process.

    Raises:
        ConfigError: it does not import, brings a reserved module, or lacks a class that a binding
            names; says in which file and line.
    """
    root = project.main.parent
    for folder in (project.root, root):
        refuse_reserved_modules(folder)
    for path in (str(project.root), str(root)):
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)
    if COMPAT_PATH not in sys.path:
        sys.path.append(COMPAT_PATH)
    module = _import(project.main)
    classes = _exported_classes(module)
    entry = classes.get("Default")
    app = App(project, module, entry, classes)
    for binding in project.bindings:
        _refuse_without_constructor(binding, app.class_of(binding))
    return app


def takes_nothing(found: type[Any]) -> bool:
    """Whether a class has but ``object``'s constructor, which ctx and env cannot be given to."""
    own: Any = found
    return own.__init__ is object.__init__ and own.__new__ is object.__new__


def _refuse_without_constructor(binding: Binding, found: type[Any]) -> None:
    if takes_nothing(found):
        raise ConfigError(
            f"binding {binding.name} names {binding.class_name}, which is no DurableObject and "
            "cannot be constructed with (ctx, env)",
            where=binding.where,
            remedy=f"write class {binding.class_name}(DurableObject)",
        )


def refuse_reserved_modules(root: Path) -> None:
    """Raise if the folder has a top-level module that one of Limpet's own would hide.

    Raises:
        ConfigError: names the module.
    """
    for name in RESERVED:
        for path in (root / f"{name}.py", root / name / "__init__.py"):
            if path.exists() and not path.resolve().is_relative_to(_HOME / name):
                raise ConfigError(
                    f"the module name {name!r} is reserved for Limpet itself",
                    where=str(path),
                    remedy="rename the module",
                )


class _Exited(SystemExit):
    """The app called ``os._exit`` in the process that imports it."""

    def __str__(self) -> str:
        return f"os._exit({self.code})"


@contextmanager
def _ends_caught() -> Iterator[None]:
    """Make an end of the process by the app's import an exception that knows its line.

    ``os._exit`` raises meanwhile, in this thread of this process. A ``KeyboardInterrupt`` passes
    only if there was a SIGINT; one of the app's own becomes a ``SystemExit``.
    """
    real_exit = os._exit
    here = (os.getpid(), threading.get_ident())
    importing = True

    def exit_(status: int) -> NoReturn:
        if importing and (os.getpid(), threading.get_ident()) == here:
            raise _Exited(status)
        real_exit(status)

    interrupted = False
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        assert callable(previous)
        previous(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    takes_signals = is_main and callable(previous)
    if takes_signals:
        signal.signal(signal.SIGINT, on_interrupt)
    os._exit = exit_
    try:
        yield
    except KeyboardInterrupt as error:
        if interrupted:
            raise
        raise SystemExit("KeyboardInterrupt").with_traceback(error.__traceback__) from error
    finally:
        importing = False
        if os._exit is exit_:
            os._exit = real_exit
        if takes_signals and signal.getsignal(signal.SIGINT) is on_interrupt:
            signal.signal(signal.SIGINT, previous)


def _import(path: Path) -> ModuleType:
    name = path.stem if path.stem.isidentifier() else "app_main"
    sys.modules.pop(name, None)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(
            "is not a Python module", where=str(path), remedy="let `main` name a .py file"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _ends_caught():
            spec.loader.exec_module(module)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        raise ConfigError(
            f"{type(error).__name__}: {error.msg}",
            where=_place(error, path),
            remedy="correct the syntax",
        ) from error
    except KeyboardInterrupt:
        sys.modules.pop(name, None)
        raise
    except SystemExit as error:
        sys.modules.pop(name, None)
        how = error if isinstance(error, _Exited) or error.__cause__ else f"SystemExit: {error}"
        raise ConfigError(
            f"the app ended the process while it was imported: {how}",
            where=_innermost_line(error, path),
            remedy="put what is for scripts alone under `if __name__ == '__main__':`",
        ) from error
    except BaseException as error:
        sys.modules.pop(name, None)
        raise ConfigError(
            f"the app does not import: {type(error).__name__}: {error}",
            where=_innermost_line(error, path),
            remedy=_import_remedy(error),
        ) from error
    return module


def _place(error: SyntaxError, path: Path) -> str:
    numbers = [each for each in (error.lineno, error.offset) if each is not None]
    return ":".join(map(str, [error.filename or path, *numbers]))


def _innermost_line(error: BaseException, path: Path) -> str:
    # The app's own line, not the one inside the library that it called.
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if Path(frame.filename).is_relative_to(path.parent):
            return f"{frame.filename}:{frame.lineno}"
    return str(path)


def _import_remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that provides {error.name!r} into Limpet's environment"
    return "correct the module; `limpet check` shows it without starting anything"


def _is_ours(each: type[Any]) -> bool:
    return each.__module__.partition(".")[0] in RESERVED


def _exported_classes(module: ModuleType) -> dict[str, type[Any]]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    return {name: value for name in names if inspect.isclass(value := getattr(module, name, None))}
