"""Headers: one object, three habits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.headers import Headers

NAMES = st.text("abcXYZ-!9", min_size=1, max_size=6)
VALUES = st.text(
    st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=10
).map(lambda text: text.strip(" \t\r\n"))


def test_names_have_no_letter_case() -> None:
    headers = Headers({"Content-Type": "text/plain"})
    assert headers.get("content-TYPE") == headers["CONTENT-type"] == "text/plain"
    assert "content-type" in headers
    assert headers.has("Content-Type")


def test_a_missing_name_is_none_as_in_an_http_message() -> None:
    headers = Headers()
    assert headers["x"] is None
    assert headers.get("x") is None
    assert headers.get("x", "default") == "default"
    assert headers.get_all("x") is None
    assert headers.get_all("x", []) == []


def test_several_fields_are_joined_by_name_and_apart_in_get_all() -> None:
    headers = Headers([("A", "1, 2"), ("a", "3")])
    assert headers["a"] == "1, 2, 3"
    assert headers.get_all("A") == ["1, 2", "3"]


def test_set_cookie_is_never_joined() -> None:
    headers = Headers([("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")])
    assert headers.getSetCookie() == headers.get_set_cookie() == ["a=1", "b=2"]
    assert headers.items() == [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x", "y")]
    assert len(headers) == 3


def test_iteration_is_lower_case_and_sorted_and_the_wire_keeps_the_order() -> None:
    headers = Headers({"B": "1", "A": "2"})
    assert list(headers) == headers.keys() == ["a", "b"]
    assert headers.values() == ["2", "1"]
    assert headers.raw == [("B", "1"), ("A", "2")]
    assert dict(headers) == {"a": "2", "b": "1"}
    assert isinstance(headers, Mapping)


def test_set_replaces_all_at_the_place_of_the_first() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    headers.set("A", "4")
    assert headers.raw == [("A", "4"), ("b", "2")]
    headers["c"] = "5"
    del headers["b"]
    assert headers.raw == [("A", "4"), ("c", "5")]


def test_append_delete_update_setdefault() -> None:
    headers = Headers()
    headers.append("x", 1)
    headers.add_header("x", "2")
    assert headers["x"] == "1, 2"
    assert headers.setdefault("x", "3") == "1, 2"
    headers.update({"x": "9", "y": "8"})
    assert headers == {"X": "9", "Y": "8"}
    headers.delete("nothing")
    copy = headers.copy()
    copy.delete("x")
    assert headers.has("x")


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\n", "(", 5, None])
def test_an_invalid_name_is_refused_and_named(name: object) -> None:
    with pytest.raises(TypeError, match="Invalid header name") as caught:
        Headers([(name, "x")])  # type: ignore[list-item]
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("value", ["a\r\nb", "a\0", "\ud800", None, b"x", ["x"]])
def test_an_invalid_value_is_refused_with_its_name(value: object) -> None:
    with pytest.raises(TypeError, match="Invalid value of header 'X-Name'"):
        Headers({"X-Name": value})


def test_surrounding_blanks_are_dropped() -> None:
    assert Headers({"a": " \t b c \r\n"})["a"] == "b c"


@pytest.mark.parametrize("init", ["text", 5, [("a",)], ["ab"], [("a", "b", "c")]])
def test_another_shape_is_refused(init: object) -> None:
    with pytest.raises(TypeError, match="headers"):
        Headers(init)  # type: ignore[arg-type]


def test_from_wire_takes_lists_as_a_parser_gives_them() -> None:
    headers = Headers.from_wire([["Host", "a"], ["X", "1"], ["x", "2"]])  # type: ignore[list-item]
    assert headers.get("host") == "a"
    assert headers["X"] == "1, 2"


def test_for_each_and_new() -> None:
    seen: list[tuple[str, str]] = []
    Headers.new({"A": "1"}).forEach(lambda value, name, headers: seen.append((name, value)))
    assert seen == [("a", "1")]


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_it_agrees_with_a_plain_list(pairs: list[tuple[str, str]]) -> None:
    headers = Headers(pairs)
    for name in {name.lower() for name, _ in pairs}:
        values = [value for each, value in pairs if each.lower() == name]
        assert headers.get_all(name.upper()) == values
        assert headers.get(name) == ", ".join(values)
    assert len(headers) == len({name.lower() for name, _ in pairs})
    assert Headers(headers).raw == headers.raw == pairs
