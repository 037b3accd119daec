from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from common.config_file import MAX_FILE_BYTES, Node, read
from common.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, text: str | bytes, name: str = "c.jsonc") -> Node:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(file)


def test_nodes_know_their_name_and_place(tmp_path: Path) -> None:
    top = load(tmp_path, '{\n "a": {\n  "b": [1, "x"]\n }\n}')
    nodes = list(top.get("a").get("b").elements())
    assert nodes[1].text() == "x"
    assert nodes[1].name == "a.b[1]"
    assert nodes[1].where == f"{tmp_path}/c.jsonc:3:12"
    assert [key for key, _ in top.items()] == ["a"]


def test_a_missing_value_is_at_the_nearest_thing_around_it(tmp_path: Path) -> None:
    top = load(tmp_path, '{\n "a": {}\n}')
    missing = top.get("a").get("b")
    assert missing.missing
    assert missing.where.endswith("c.jsonc:2:2")
    assert list(missing.elements()) == []
    assert list(missing.items()) == []
    with pytest.raises(ConfigError, match=r"a\.b must be a string, but is missing"):
        missing.text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", "the number 5"),
        ("true", "the boolean true"),
        ("{}", "the object {}"),
        ("[1]", r"the list \[1\]"),
        ('"' + "x" * 99 + '"', "the string 'x{36}"),
    ],
)
def test_a_wrong_type_is_named(tmp_path: Path, text: str, found: str) -> None:
    node = load(tmp_path, '{"a": ' + text + "}").get("a")
    with pytest.raises(ConfigError, match=f"a must be .*, but is {found}"):
        (node.get("b") if not isinstance(node.value, dict) else node).text()


def test_an_empty_string_is_not_a_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a must not be empty"):
        load(tmp_path, '{"a": ""}').get("a").text()


def test_a_list_is_not_an_object_nor_the_reverse(tmp_path: Path) -> None:
    top = load(tmp_path, '{"a": [], "b": {}}')
    with pytest.raises(ConfigError, match="a must be an object"):
        top.get("a").get("x")
    with pytest.raises(ConfigError, match="b must be a list"):
        list(top.get("b").elements())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.jsonc", '{\n"a" 1}', "c.jsonc:2:5: expected ':'"),
        ("c.toml", "a = 1\nb = ", "c.toml: Invalid value"),
        ("c.toml", "a = 1\nb = ?\n", "c.toml:2:5: Invalid value"),
        ("c.toml", "a = 1\na = 2\n", "c.toml:2:6: Cannot overwrite a value"),
        ("c.json", b"{\n\xff}", "c.json:2: is not UTF-8"),
        ("c.json", " " * (MAX_FILE_BYTES + 1), "c.json: is larger than"),
    ],
)
def test_a_malformed_file_says_where(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, name)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read(tmp_path / "none.json")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf{}").value == {}


TOML = """\
name = "x"
main = 5

[durable_objects]
bindings = [{ name = "A", class_name = "B" }]

[[migrations]]
tag = "v1"
"""


def test_toml_values_are_placed_where_that_is_certain(tmp_path: Path) -> None:
    top = load(tmp_path, TOML, "c.toml")
    assert top.get("main").where.endswith("c.toml:2:1")
    binding = next(top.get("durable_objects").get("bindings").elements())
    assert binding.get("class_name").where.endswith("c.toml:5:27")
    # "name" occurs twice: the binding's is only known to be inside `bindings`.
    assert binding.get("name").where.endswith("c.toml:5:1")
