"""The import law of the architecture page: who may import whom, and no cycle anywhere.

An import under `if TYPE_CHECKING:` counts for the law (a name in an annotation is still knowledge
of the other side) but not for cycles (it never runs). Imports inside functions count for both: a
cycle hidden in a function is still a cycle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("workers", "gateway", "shard", "common", "local")

# What each package may import of ours, beside itself. A dotted name admits only that module.
LAW: dict[str, tuple[str, ...]] = {
    "common": (),
    "gateway": ("common",),
    "workers": ("common.ids", "common.errors"),
    "shard": ("workers", "common"),
    "local": PACKAGES,
}


@dataclass(frozen=True)
class Import:
    """One import of one of our modules."""

    importer: str
    imported: str
    where: str
    only_types: bool


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_modules(root: Path) -> dict[str, Path]:
    return {
        module_name(path, root): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def import_nodes(node: ast.AST, only_types: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every import statement below `node`, and whether only a type checker runs it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, only_types
    elif isinstance(node, ast.If) and is_type_checking(node.test):
        for child in node.body:
            yield from import_nodes(child, True)
        for child in node.orelse:
            yield from import_nodes(child, only_types)
    else:
        for below in ast.iter_child_nodes(node):
            yield from import_nodes(below, only_types)


def targets(node: ast.stmt, importer: str, is_package: bool, modules: set[str]) -> Iterator[str]:
    """Yield the modules of ours that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = importer.split(".")
            above = node.level - is_package
            kept = parts[: len(parts) - above]
            base = ".".join([*kept, *([base] if base else [])])
        # `from common import ids` names the module common.ids; `from common.ids import X` names
        # common.ids.
        names = []
        for alias in node.names:
            dotted = f"{base}.{alias.name}"
            names.append(dotted if dotted in modules else base)
    else:
        return
    for name in names:
        if name.split(".")[0] in PACKAGES:
            yield name


def find_imports(root: Path) -> list[Import]:
    modules = find_modules(root)
    found = []
    for importer, path in modules.items():
        tree = ast.parse(path.read_text("utf-8"), filename=str(path))
        for node, only_types in import_nodes(tree):
            where = f"{path.relative_to(root)}:{node.lineno}"
            for imported in targets(node, importer, path.name == "__init__.py", set(modules)):
                found.append(Import(importer, imported, where, only_types))
    return found


def breaches(imports: list[Import]) -> list[str]:
    """Return one sentence for each import that the law forbids."""
    said = []
    for each in imports:
        package = each.importer.split(".")[0]
        allowed = (package, *LAW[package])
        if not any(
            each.imported == name or each.imported.startswith(name + ".") for name in allowed
        ):
            may = ", ".join(LAW[package]) or "nothing of ours"
            said.append(
                f"{each.where}: {each.importer} imports {each.imported}; {package} may import {may}"
            )
    return said


def find_cycles(imports: list[Import]) -> list[list[str]]:
    """Return each strongly connected group of modules, in import order where it is a plain ring."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        if not each.only_types and each.imported != each.importer:
            graph.setdefault(each.importer, set()).add(each.imported)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for following in graph.get(todo.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in graph
        if name in reach[name]
    }
    return sorted(sorted(group) for group in groups)


def test_every_import_obeys_the_law() -> None:
    assert not (said := breaches(find_imports(ROOT))), "\n" + "\n".join(said)


def test_no_module_imports_itself_through_others() -> None:
    imports = find_imports(ROOT)
    said = []
    for group in find_cycles(imports):
        said.append("these modules import one another:")
        said += [
            f"  {each.where}: {each.importer} -> {each.imported}"
            for each in imports
            if not each.only_types and each.importer in group and each.imported in group
        ]
    assert not said, "\n" + "\n".join(said)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {"gateway/a.py": "import shard.b", "shard/b.py": ""},
            "gateway/a.py:1: gateway.a imports shard.b",
        ),
        (
            {"common/a.py": "def f():\n  from workers import x"},
            "common/a.py:2: common.a imports workers",
        ),
        (
            {"workers/a.py": "from common import link", "common/link.py": ""},
            "workers.a imports common.link",
        ),
        (
            {"gateway/a.py": "if TYPE_CHECKING:\n  from shard import x"},
            "gateway may import common",
        ),
    ],
)
def test_a_breach_is_found(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    assert complaint in "\n".join(breaches(find_imports(write(tmp_path, files))))


@pytest.mark.parametrize(
    ("files", "group"),
    [
        (
            {"common/a.py": "from . import b", "common/b.py": "import common.a"},
            ["common.a", "common.b"],
        ),
        (
            {
                "common/a.py": "from .b import x",
                "common/b.py": "def f():\n  from common.a import y",
            },
            ["common.a", "common.b"],
        ),
        (
            {"common/__init__.py": "from .a import x", "common/a.py": "from common import y"},
            ["common", "common.a"],
        ),
    ],
)
def test_a_cycle_is_found(tmp_path: Path, files: dict[str, str], group: list[str]) -> None:
    assert find_cycles(find_imports(write(tmp_path, files))) == [group]


def test_what_the_law_allows_passes(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "workers/a.py": "from common import ids, errors\nimport json",
            "common/ids.py": "",
            "common/errors.py": "if TYPE_CHECKING:\n  from . import ids",
            "local/a.py": "import gateway.b, shard",
        },
    )
    imports = find_imports(root)
    assert breaches(imports) == []
    assert find_cycles(imports) == []
