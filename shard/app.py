"""Loads the app: its entry module, the classes it exports, and the ``env`` it is given.

The app's folder comes first on its import path, so that it finds its own modules; the ``js`` and
``pyodide`` modules that Cloudflare's programs import come last, so that they never shadow a
package of the app's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from common.errors import ConfigError
from common.wrangler import Binding, Project
COMPAT_PATH = str(Path(__file__).resolve().parents[1] / "workers" / "compat")

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

    def class_of(self, binding: Binding) -> type[Any]:
        """The class that a binding names.

        Raises:
            ConfigError: the entry module does not export it.
        """
        found = self.classes.get(binding.class_name)
        if found is None:
            exported = ", ".join(sorted(self.classes)) or "none"
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
    refuse_reserved_modules(root)
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
        app.class_of(binding)
    return app


def refuse_reserved_modules(root: Path) -> None:
    """Raise if the folder has a top-level module that one of Limpet's own would hide.

    Raises:
        ConfigError: names the module.
    """
    for name in RESERVED:
        for path in (root / f"{name}.py", root / name / "__init__.py"):
            if path.exists():
                raise ConfigError(
                    f"the module name {name!r} is reserved for Limpet itself",
                    where=str(path),
                    remedy="rename the module",
                )


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
        spec.loader.exec_module(module)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        raise ConfigError(
            f"{type(error).__name__}: {error.msg}",
            where=f"{error.filename or path}:{error.lineno}:{error.offset}",
            remedy="correct the syntax",
        ) from error
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            f"the app does not import: {type(error).__name__}: {error}",
            where=_innermost_line(error, path),
            remedy=_import_remedy(error),
        ) from error
    return module


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


def _exported_classes(module: ModuleType) -> dict[str, type[Any]]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    return {
        name: value
        for name in names
        if inspect.isclass(value := getattr(module, name, None))
    }
