from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.wrangler import Binding, find_project

JSONC = """\
// A project
{
  "$schema": "node_modules/wrangler/config-schema.json",
  "name": "my-worker",
  "main": "src/entry.py",
  "compatibility_date": "2026-11-01",
  "compatibility_flags": ["python_workers"],
  "observability": { "enabled": true },  /* unknown to us */
  "vars": { "GREETING": "hello", "LIMITS": { "users": 5 } },
  "durable_objects": {
    "bindings": [{ "name": "ROOMS", "class_name": "Room" },],
  },
  "migrations": [{ "tag": "v1", "new_sqlite_classes": ["Room"] }],
}
"""
TOML = """\
name = "my-worker"
main = "src/entry.py"
compatibility_date = 2026-11-01
compatibility_flags = ["python_workers"]

[vars]
GREETING = "hello"
LIMITS = { users = 5 }

[[durable_objects.bindings]]
name = "ROOMS"
class_name = "Room"

[[migrations]]
tag = "v1"
new_sqlite_classes = ["Room"]

[observability]
enabled = true
"""


def app(folder: Path, text: str, name: str = "wrangler.jsonc") -> Path:
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "entry.py").touch()
    file = folder / name
    file.write_text(text)
    return file


def project(folder: Path, **keys: Any) -> Path:
    return app(folder, json.dumps({"main": "src/entry.py", **keys}, indent=2))


@pytest.mark.parametrize(
    ("name", "text"),
    [("wrangler.jsonc", JSONC), ("wrangler.json", JSONC), ("wrangler.toml", TOML)],
)
def test_all_three_forms_read_alike(tmp_path: Path, name: str, text: str) -> None:
    file = app(tmp_path, text, name)
    for path in (tmp_path, file):
        found = find_project(path)
        assert found.file == file
        assert found.root == tmp_path
        assert found.name == "my-worker"
        assert found.main == tmp_path / "src" / "entry.py"
        assert found.vars == {"GREETING": "hello", "LIMITS": {"users": 5}}
        assert found.compatibility_date == "2026-11-01"
        assert found.compatibility_flags == ("python_workers",)
        (binding,) = found.bindings
        assert binding == Binding("ROOMS", "Room", "my-worker-Room", True, binding.where)
        assert binding.where.startswith(f"{file}:")


def test_what_may_be_left_out(tmp_path: Path) -> None:
    found = find_project(project(tmp_path))
    assert (found.name, found.bindings, dict(found.vars)) == ("main", (), {})
    assert (found.compatibility_date, found.compatibility_flags) == (None, ())


def test_without_a_name_the_key_begins_with_main(tmp_path: Path) -> None:
    found = find_project(
        project(tmp_path, durable_objects={"bindings": [{"name": "R", "class_name": "Room"}]})
    )
    assert found.bindings[0].unique_key == "main-Room"
    assert not found.bindings[0].sqlite


def test_several_bindings_may_share_a_class(tmp_path: Path) -> None:
    bindings = [{"name": n, "class_name": "Room", "script_name": "w"} for n in ("A", "B")]
    found = find_project(project(tmp_path, name="w", durable_objects={"bindings": bindings}))
    assert {binding.unique_key for binding in found.bindings} == {"w-Room"}


def test_exports_form(tmp_path: Path) -> None:
    found = find_project(
        project(
            tmp_path,
            name="w",
            durable_objects={"bindings": [{"name": "R", "class_name": "Room"}]},
            exports={
                "Default": {"type": "worker-entrypoint"},
                "Hall": {"type": "durable-object", "state": "renamed", "renamed_to": "Room"},
                "Room": {"type": "durable-object", "storage": "sqlite"},
            },
        )
    )
    assert (found.bindings[0].unique_key, found.bindings[0].sqlite) == ("w-Hall", True)


def test_the_file_of_highest_rank_counts(tmp_path: Path) -> None:
    app(tmp_path, TOML, "wrangler.toml")
    app(tmp_path, JSONC, "wrangler.jsonc")
    assert find_project(tmp_path).file.name == "wrangler.jsonc"


def test_vars_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        find_project(project(tmp_path)).vars["x"] = 1  # type: ignore[index]


BINDING = {"name": "R", "class_name": "Room"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"main": None}, ':1:1: has no "main"'),
        ({"main": "gone.py"}, ":2:3: main is 'gone.py', but there is no file"),
        ({"main": "wrangler.jsonc"}, ":2:3: main is 'wrangler.jsonc', which is not a Python"),
        ({"main": 5}, ":2:3: main must be a string, but is the number 5"),
        ({"name": ["x"]}, ":3:3: name must be a string, but is the list ['x']"),
        ({"compatibility_date": "tomorrow"}, ":3:3: compatibility_date is 'tomorrow'"),
        ({"compatibility_date": "2026-13-01"}, ":3:3: compatibility_date is '2026-13-01'"),
        ({"durable_objects": []}, ":3:3: durable_objects must be an object"),
        ({"durable_objects": {"bindings": {}}}, ":4:5: durable_objects.bindings must be a list"),
        (
            {"durable_objects": {"bindings": [{"name": "R"}]}},
            ":5:7: durable_objects.bindings[0].class_name must be a string, but is missing",
        ),
        (
            {"durable_objects": {"bindings": [BINDING, {**BINDING, "class_name": "Hall"}]}},
            ":10:9: two bindings are named 'R'",
        ),
        ({"durable_objects": {"bindings": [BINDING]}, "vars": {"R": "x"}}, ":12:5: 'R' is both"),
        (
            {"durable_objects": {"bindings": [{**BINDING, "script_name": "other"}]}},
            ":8:9: binding 'R' is to a class of another worker, 'other'",
        ),
        (
            {
                "migrations": [{"tag": "v1", "new_classes": ["Room"]}],
                "exports": {"Room": {"type": "durable-object"}},
            },
            ":11:3: exports and migrations cannot both declare Durable Objects",
        ),
        (
            {
                "durable_objects": {"bindings": [BINDING]},
                "exports": {"Room": {"type": "durable-object", "state": "deleted"}},
            },
            ":7:9: class Room is bound, but exports says it is deleted",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    file = project(tmp_path, **keys)
    with pytest.raises(ConfigError) as caught:
        find_project(tmp_path)
    assert str(caught.value).startswith(f"{file}{message}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "has none of wrangler.json, wrangler.jsonc, wrangler.toml"),
        ("nowhere", "does not exist"),
        ("entry.py", "is not a project file"),
    ],
)
def test_a_path_without_a_project_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "entry.py").touch()
    with pytest.raises(ConfigError, match=message) as caught:
        find_project(tmp_path / path)
    assert caught.value.remedy is not None
    assert "Point APP at" in caught.value.remedy


def test_the_examples_are_projects() -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    for file in examples.glob("*/wrangler.*"):
        assert find_project(file).main.suffix == ".py"
