"""Reads a worker's project file: wrangler.jsonc, wrangler.json or wrangler.toml.

Only what Limpet needs is read; every other key is ignored, as a project file serves other tools
too. Named environments (``env``) are among those.
(https://developers.cloudflare.com/workers/wrangler/configuration/)
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from common import config_file
from common.errors import ConfigError
from common.migrations import ClassHistory

if TYPE_CHECKING:
    from common.config_file import Node

FILE_NAMES: Final = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
"""Names of project files; of several in one folder the first counts, as for wrangler."""

DEFAULT_NAME: Final = "main"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Binding:
    """One namespace of Durable Objects as the app sees it.

    Attributes:
        name: the attribute of ``env``.
        class_name: the class in the app's entry module.
        unique_key: what its ids are derived from (see ``common.migrations``).
        sqlite: whether the class has the SQL and the synchronous key-value storage.
        where: ``file:line:column`` of the class name, for errors about it.
    """

    name: str
    class_name: str
    unique_key: str
    sqlite: bool
    where: str


@dataclass(frozen=True, slots=True)
class Project:
    """A worker's project.

    Attributes:
        file: the project file, absolute.
        root: its folder, absolute.
        name: the worker's name; ``"main"`` if the file gives none.
        main: the entry module, absolute, an existing ``.py`` file.
        bindings: its Durable Object namespaces.
        vars: values for ``env``, as they stand in the file.
        compatibility_date: ``YYYY-MM-DD``; ``None`` asks for the newest behaviour.
        compatibility_flags: as they stand in the file, known or not.
    """

    file: Path
    root: Path
    name: str
    main: Path
    bindings: tuple[Binding, ...]
    vars: Mapping[str, object]
    compatibility_date: str | None
    compatibility_flags: tuple[str, ...]


def find_project(path: Path) -> Project:
    """Read the project at ``path``.

    Args:
        path: a folder with a project file, or such a file of any name with a known suffix.

    Raises:
        ConfigError: there is none, or it is wrong; says in which file and line, and what to do.
    """
    file = _project_file(Path(path).resolve())
    top = config_file.read(file)
    name = DEFAULT_NAME if top.get("name").missing else top.get("name").text()
    bindings = tuple(_bindings(top, _history(top, name)))
    return Project(
        file=file,
        root=file.parent,
        name=name,
        main=_main(top),
        bindings=bindings,
        vars=_vars(top, bindings),
        compatibility_date=_date(top.get("compatibility_date")),
        compatibility_flags=tuple(
            flag.text() for flag in top.get("compatibility_flags").elements()
        ),
    )


def _project_file(path: Path) -> Path:
    if path.is_dir():
        for name in FILE_NAMES:
            if (path / name).is_file():
                return path / name
        raise ConfigError(
            f"has none of {', '.join(FILE_NAMES)}",
            where=str(path),
            remedy="Point APP at an app's folder or at its wrangler file.",
        )
    if not path.is_file():
        raise ConfigError(
            "does not exist",
            where=str(path),
            remedy="Point APP at an app's folder or at its wrangler file.",
        )
    if path.suffix not in {".json", ".jsonc", ".toml"}:
        raise ConfigError(
            "is not a project file: its name must end in .json, .jsonc or .toml",
            where=str(path),
            remedy="Point APP at the wrangler file, not at the code.",
        )
    return path


def _main(top: Node) -> Path:
    main = top.get("main")
    if main.missing:
        raise top.error(
            'has no "main"', 'Add "main": "src/entry.py", the path of the entry module.'
        )
    file = (top.file.parent / main.text()).resolve()
    if not file.is_file():
        raise main.error(
            f"main is {main.text()!r}, but there is no file {file}",
            'Correct "main"; it is relative to the project file.',
        )
    if file.suffix != ".py":
        raise main.error(
            f"main is {main.text()!r}, which is not a Python module",
            "Limpet runs Python Workers: main must be a .py file.",
        )
    return file


def _history(top: Node, worker: str) -> ClassHistory:
    history = ClassHistory(worker)
    migrations, exports = top.get("migrations"), top.get("exports")
    declares = any(entry.get("type").value == "durable-object" for _, entry in exports.items())
    if declares and any(True for _ in migrations.elements()):
        raise exports.error(
            "exports and migrations cannot both declare Durable Objects", "Remove one of them."
        )
    if declares:
        history.declare(exports)
    else:
        history.replay(migrations)
    return history


def _bindings(top: Node, history: ClassHistory) -> list[Binding]:
    bindings: list[Binding] = []
    for entry in top.get("durable_objects").get("bindings").elements():
        name, class_name = entry.get("name"), entry.get("class_name")
        if name.text() in (binding.name for binding in bindings):
            raise name.error(
                f"two bindings are named {name.text()!r}", "Give each binding its own name."
            )
        _own_class(entry, worker=top.get("name").value)
        if fate := history.gone(class_name.text()):
            raise class_name.error(
                f"class {class_name.text()} is bound, but exports says it is {fate}",
                "Bind a live class, or remove the binding.",
            )
        identity = history.identity(class_name.text())
        bindings.append(
            Binding(
                name=name.text(),
                class_name=class_name.text(),
                unique_key=identity.unique_key,
                sqlite=identity.sqlite,
                where=class_name.where,
            )
        )
    return bindings


def _own_class(entry: Node, worker: object) -> None:
    script = entry.get("script_name")
    if not script.missing and script.text() != worker:
        raise script.error(
            f"binding {entry.get('name').text()!r} is to a class of another worker, "
            f"{script.text()!r}; Limpet runs one worker",
            "Move the class into this worker and remove script_name.",
        )


def _vars(top: Node, bindings: tuple[Binding, ...]) -> Mapping[str, object]:
    values: dict[str, object] = {}
    taken = {binding.name for binding in bindings}
    for name, node in top.get("vars").items():
        if name in taken:
            raise node.error(
                f"{name!r} is both a variable and a Durable Object binding", "Rename one of them."
            )
        values[name] = node.value
    return MappingProxyType(values)


def _date(node: Node) -> str | None:
    if node.missing:
        return None
    # TOML has dates of its own.
    if isinstance(node.value, dt.date):
        return node.value.isoformat()[:10]
    text = node.text()
    try:
        if _DATE.fullmatch(text) is None:
            raise ValueError
        dt.date.fromisoformat(text)
    except ValueError:
        raise node.error(
            f"compatibility_date is {text!r}", "Write it as YYYY-MM-DD, as in 2026-11-01."
        ) from None
    return text
