"""URL and URLSearchParams, against rows of the WHATWG standard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.search_params import URLSearchParams
from workers.url import URL, normalize_url


@pytest.mark.parametrize(
    ("given", "href"),
    [
        ("http://h", "http://h/"),
        ("HTTP://EXAMPLE.com:80/", "http://example.com/"),
        ("https://h:443/a", "https://h/a"),
        ("https://h:8443/a", "https://h:8443/a"),
        ("ws://h:80/", "ws://h/"),
        ("wss://h/x#f", "wss://h/x#f"),
        ("http://h/a/./b/../c", "http://h/a/c"),
        ("http://h/a/%2e%2E/b", "http://h/b"),
        ("http://h/..", "http://h/"),
        ("http://h/a/.", "http://h/a/"),
        ("http://h//a", "http://h//a"),
        ("http:\\\\h\\a", "http://h/a"),
        ("http:h/a", "http://h/a"),
        ("  http://h/a b ", "http://h/a%20b"),
        ("http://h/\ta\n", "http://h/a"),
        ("http://h/é?é#é", "http://h/%C3%A9?%C3%A9#%C3%A9"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://u:p@h/", "http://u:p@h/"),
        ("http://u@h/", "http://u@h/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://h?a=b", "http://h/?a=b"),
        ("http://h/?", "http://h/?"),
        ("http://h/?q=\"<>'", "http://h/?q=%22%3C%3E%27"),
        ("http://h/%7Eok%zz", "http://h/%7Eok%zz"),
        ("file:///a/b", "file:///a/b"),
        ("mailto:a@b", "mailto:a@b"),
        ("custom://Host/P/../q", "custom://Host/q"),
    ],
)
def test_parsing(given: str, href: str) -> None:
    url = URL(given)
    assert url.href == str(url) == url.toString() == url.toJSON() == href
    assert URL(href).href == href


@pytest.mark.parametrize(
    "text",
    ["", "/a", "a", "//h", "http://", "http:///", "http://h:x/", "http://h:65536/", "http://a b/",
     "http://a<b/", "http://[::1/", "http://%41/", "://x"],
)  # fmt: skip
def test_invalid(text: str) -> None:
    assert not URL.canParse(text)
    assert URL.parse(text) is None
    with pytest.raises(TypeError) as caught:
        URL(text)
    assert str(caught.value) == f"Invalid URL: {text}"


@pytest.mark.parametrize(
    ("relative", "href"),
    [
        ("x", "http://h/a/b/x"),
        ("./x", "http://h/a/b/x"),
        ("../x", "http://h/a/x"),
        ("/x", "http://h/x"),
        ("//other/x", "http://other/x"),
        ("?x=1", "http://h/a/b/c?x=1"),
        ("#f", "http://h/a/b/c?q#f"),
        ("", "http://h/a/b/c?q"),
        ("https://o/", "https://o/"),
        ("x?y#z", "http://h/a/b/x?y#z"),
    ],
)
def test_relative(relative: str, href: str) -> None:
    assert URL(relative, "http://h/a/b/c?q").href == href
    assert URL.new(relative, URL("http://h/a/b/c?q")).href == href


def test_parts() -> None:
    url = URL("https://u:p@example.com:8443/a/b?x=1&y=2#frag")
    assert url.protocol == "https:"
    assert (url.username, url.password) == ("u", "p")
    assert (url.host, url.hostname, url.port) == ("example.com:8443", "example.com", "8443")
    assert (url.pathname, url.search, url.hash) == ("/a/b", "?x=1&y=2", "#frag")
    assert url.origin == "https://example.com:8443"
    assert url.searchParams.get("y") == url.search_params.get("y") == "2"
    assert URL("mailto:x").origin == "null"


def test_setters() -> None:
    url = URL("http://h/a?x=1#f")
    url.protocol = "https:"
    url.host = "other:99"
    url.pathname = "b c"
    url.search = "q=1#2"
    url.hash = "g"
    url.username = "me"
    assert url.href == "https://me@other:99/b%20c?q=1%232#g"
    url.port = 443
    url.hostname = "UP"
    url.search = ""
    url.hash = ""
    assert url.href == "https://me@up/b%20c"
    url.href = "http://fresh/"
    assert url.host == "fresh"


def test_changing_the_parameters_changes_the_url() -> None:
    url = URL("http://h/?a=1")
    url.searchParams.append("b", "x y")
    assert url.href == "http://h/?a=1&b=x+y"
    url.searchParams.delete("a")
    url.searchParams.delete("b")
    assert url.href == "http://h/"
    url.search = "?z=9"
    assert url.searchParams.get("z") == "9"


def test_search_params() -> None:
    params = URLSearchParams("?a=1&b=2&a=3&empty=&bare")
    assert params.getAll("a") == params.get_all("a") == ["1", "3"]
    assert params.get("bare") == params.get("empty") == ""
    assert params.get("none") is None
    assert params.has("b", "2")
    assert not params.has("b", "3")
    params.set("a", 9)
    assert str(params) == "a=9&b=2&empty=&bare="
    params.sort()
    assert params.keys() == ["a", "b", "bare", "empty"]
    assert params.size == len(params) == 4
    assert "b" in params
    assert dict(URLSearchParams({"k": "v"})) == {"k": "v"}
    assert URLSearchParams([("k", "é~*")]).toString() == "k=%C3%A9%7E*"


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_search_params_round_trip(pairs: list[tuple[str, str]]) -> None:
    text = URLSearchParams(pairs).toString()
    assert text.isascii()
    scalar = [tuple(part.encode("utf-8", "replace").decode() for part in pair) for pair in pairs]
    assert URLSearchParams(text).entries() == scalar


@given(st.text(max_size=12), st.text(max_size=8), st.text(max_size=8))
def test_the_normal_form_is_stable(path: str, query: str, fragment: str) -> None:
    """Also checks that the fast path of normalize_url agrees with the parser."""
    href = URL(f"http://h/{path}?{query}#{fragment}").href
    assert href.isascii()
    assert URL(href).href == normalize_url(href) == href


@given(
    st.from_regex(r"\Ahttps?://[a-z0-9.\-]{1,9}(:[0-9]{1,5})?/[a-z./%~]{0,9}(\?[a-z&='%]{0,5})?\Z")
)
def test_the_fast_path_agrees_with_the_parser(text: str) -> None:
    try:
        expected = URL(text).href
    except TypeError:
        with pytest.raises(TypeError):
            normalize_url(text)
    else:
        assert normalize_url(text) == expected
