from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.jsonc import MAX_DEPTH, JsoncError, parse

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=json_values, indent=st.none() | st.integers(0, 4), ascii_only=st.booleans())
def test_every_json_text_means_what_json_says(
    value: object, indent: int | None, ascii_only: bool
) -> None:
    assert parse(json.dumps(value, indent=indent, ensure_ascii=ascii_only)).value == value


@given(value=json_values, comment=st.text(st.characters(exclude_characters="*/\n\r")))
def test_comments_and_trailing_commas_change_nothing(value: object, comment: str) -> None:
    text = json.dumps(value, indent=1)
    lines = [f"{line} // {comment}" for line in text.split("\n")]
    decorated = f"/* {comment}\n*/" + "\n".join(lines)
    assert parse(decorated).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1,]", [1]),
        ('{"a":1,}', {"a": 1}),
        ('{"a": "// no comment /* nor this */"}', {"a": "// no comment /* nor this */"}),
        ("/**/{}//", {}),
        ("/***/ [ /* x */ ] // end", []),
        ('{"a":1,"a":2}', {"a": 2}),
        (r'"\u00e9\ud83d\ude00\n"', "é\U0001f600\n"),
        ("\r\n\t1\r\n", 1),
    ],
)
def test_accepts(text: str, value: object) -> None:
    assert parse(text).value == value


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "unexpected end of file", 1, 1),
        ("[1,\n 2", "expected ',' or ']'", 2, 3),
        ("[1 2]", "expected ',' or ']'", 1, 4),
        ("[,]", "unexpected ','", 1, 2),
        ('{"a" 1}', "expected ':'", 1, 6),
        ("{a: 1}", "expected a key in double quotes, or '}'", 1, 2),
        ('{"a": tru}', "unexpected 'tru'", 1, 7),
        ("{} {}", "unexpected text after the end of the document", 1, 4),
        ("[1] /* x", "comment that does not end", 1, 5),
        ('["a\nb"]', "string that does not end on its line", 1, 2),
        (r'["\x"]', "string that does not end on its line, or has an invalid escape", 1, 2),
        ("[01]", "expected ',' or ']'", 1, 3),
        ("NaN", "unexpected 'NaN'", 1, 1),
        ("9" * 5000, "number of more than", 1, 1),
        ("[" * (MAX_DEPTH + 2), f"nested more than {MAX_DEPTH} deep", 1, MAX_DEPTH + 2),
    ],
)
def test_refuses_and_says_where(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(JsoncError) as caught:
        parse(text)
    assert caught.value.message.startswith(message)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_every_value_has_the_position_of_its_key() -> None:
    document = parse('{\n  "a": [1,\n    {"b": 2}],\n  "c": null\n}')
    assert document.positions == {
        (): (1, 1),
        ("a",): (2, 3),
        ("a", 0): (2, 9),
        ("a", 1): (3, 5),
        ("a", 1, "b"): (3, 6),
        ("c",): (4, 3),
    }


@given(st.text(st.sampled_from('{}[]",:/*\\ \n1a')))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with suppress(JsoncError):
        assert () in parse(text).positions
