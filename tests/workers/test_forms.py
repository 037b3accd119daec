"""FormData and its two encodings."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.blob import Blob, File
from workers.forms import FormData, encode_form, encode_params, parse_form
from workers.search_params import URLSearchParams

SCALARS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n%"), max_size=8)


def test_it_is_a_multi_mapping() -> None:
    form = FormData({"a": "1"})
    form.append("a", "2")
    form["b"] = "3"
    assert form["a"] == "1"
    assert form.get_all("a") == form.getAll("a") == ["1", "2"]
    assert form.keys() == list(form) == ["a", "a", "b"]
    assert len(form) == 3
    form["a"] = "9"
    assert form.items() == form.entries() == [("a", "9"), ("b", "3")]
    del form["a"]
    assert "a" not in form
    assert not form.has("a")
    assert form.get("a") is None
    with pytest.raises(KeyError):
        form["a"]


def test_what_a_value_may_be() -> None:
    with pytest.raises(TypeError, match="Expected single item"):
        FormData()["a"] = ["x"]  # type: ignore[assignment]
    with pytest.raises(TypeError, match="must be str or Blob, not bytes"):
        FormData({"a": b"x"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected form_data to be a dict"):
        FormData("a=1")  # type: ignore[arg-type]


async def test_a_blob_becomes_a_file() -> None:
    form = FormData()
    form.append("f", Blob("x", "a/b"))
    form.append("g", Blob("y"), "name.txt")
    first, second = form["f"], form["g"]
    assert isinstance(first, File)
    assert isinstance(second, File)
    assert (first.name, first.content_type, second.name) == ("blob", "a/b", "name.txt")


fields = st.tuples(
    SCALARS,
    SCALARS | st.builds(File, st.binary(max_size=20), SCALARS, st.just("application/x-test")),
)


@given(st.lists(fields, max_size=5))
def test_multipart_round_trip(pairs: list[tuple[str, str | File]]) -> None:
    body, content_type = encode_form(FormData(pairs))
    back = parse_form(body, content_type)
    assert len(back) == len(pairs)
    for (name, value), (name_back, value_back) in zip(pairs, back.items(), strict=True):
        assert name_back == name
        if isinstance(value, str):
            assert value_back == value
        else:
            assert isinstance(value_back, File)
            assert bytes(value_back) == bytes(value)
            assert (value_back.name, value_back.content_type) == (value.name, value.content_type)


def test_multipart_as_a_browser_sends_it() -> None:
    body = (
        b"ignored preamble\r\n--XX\r\n"
        b'Content-Disposition: form-data; name="a"\r\n\r\n1\r\n--XX  \r\n'
        b'content-disposition: form-data; name="f"; filename="a.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n--X\xff\r\n--XX--\r\nepilogue"
    )
    form = parse_form(body, 'multipart/form-data; boundary="XX"')
    file = form["f"]
    assert form["a"] == "1"
    assert isinstance(file, File)
    assert bytes(file) == b"\x00\r\n--X\xff"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX",
        b"--XX\r\n",
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nunfinished',
        b"--XX\r\n\r\nno name\r\n--XX--",
        b'--XX\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--XX--',
        b"--XXgarbage\r\n\r\n\r\n--XX--",
    ],
)
def test_malformed_multipart_is_refused(body: bytes) -> None:
    with pytest.raises(TypeError, match="FormData: "):
        parse_form(body, "multipart/form-data; boundary=XX")


@given(st.binary(max_size=100))
def test_garbage_never_raises_anything_but_type_error(body: bytes) -> None:
    for kind in ("multipart/form-data; boundary=X", "application/x-www-form-urlencoded"):
        with contextlib.suppress(TypeError):
            parse_form(body.replace(b"0", b"\r\n--X\r\n"), kind)


def test_the_number_of_fields_is_bounded() -> None:
    body = b"--X\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 10_001 + b"--X--\r\n"
    with pytest.raises(TypeError, match="more than 10000 fields"):
        parse_form(body, "multipart/form-data; boundary=X")
    with pytest.raises(TypeError, match="more than 10000 fields"):
        parse_form(b"a=1&" * 10_001, "application/x-www-form-urlencoded")


def test_urlencoded() -> None:
    form = parse_form(b"a=1+2&b=%C3%A9&a=", "application/x-www-form-urlencoded; charset=utf-8")
    assert form.items() == [("a", "1 2"), ("b", "é"), ("a", "")]
    assert encode_params(URLSearchParams(form.items()))[0] == b"a=1+2&b=%C3%A9&a="


@pytest.mark.parametrize("kind", [None, "", "text/plain", "multipart/form-data"])
def test_another_content_type_is_refused(kind: str | None) -> None:
    with pytest.raises(TypeError, match=r"Unrecognized Content-Type|names no boundary"):
        parse_form(b"", kind)
