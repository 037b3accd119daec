"""URL and URLSearchParams, by the parts of the WHATWG URL standard that programs use.

https://developers.cloudflare.com/workers/runtime-apis/web-standards/#url-api and
https://url.spec.whatwg.org/. Left out: IPv4 in octal or hexadecimal form, and the host setters'
finer points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus

import yarl

DEFAULT_PORTS: Final[Mapping[str, int | None]] = {
    "http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "file": None,
}  # fmt: skip
"""The special schemes (WHATWG URL §3.1)."""

_PLAIN: Final = re.compile(
    r"https?://[a-z0-9\-]+(?:\.[a-z0-9\-]*[a-z][a-z0-9\-]*)*(?::(?!80(?:/|$)|443(?:/|$))[1-9][0-9]{0,3})?"
    r"/(?!\.)(?:[A-Za-z0-9_~!$&()*+,;=:@\-]|/(?!\.)|(?<!/)\.)*(?:\?[A-Za-z0-9_.~!$&()*+,;=:@/\-%]*)?",
    re.ASCII,
)
"""URLs that are in normal form already: the ones a program builds itself."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.ASCII | re.DOTALL)
_BAD_HOST: Final = re.compile(r"[\0-\x20#/:<>?@\[\\\]^|%\x7f]")
_IPV6: Final = re.compile(r"\[[0-9A-Fa-f:.]+\]")

# Python's quote() keeps letters, digits and "_.-~" besides what is named here.
_IN_PATH: Final = "/!$%&'()*+,;=:@|[]\\^"
_IN_QUERY: Final = "/!$%&()*+,;=:@|[]\\^?`{}"
_IN_OPAQUE: Final = _IN_QUERY + "'\"<> "
_IN_FRAGMENT: Final = "/!$%&'()*+,;=:@|[]\\^?{}#"
_IN_USERINFO: Final = "!$%&'()*+,"


class URLSearchParams:
    """The ``name=value`` pairs of a query.

    Args:
        init: a query string (a leading ``?`` is dropped), a mapping, or pairs.

    Source: https://developer.mozilla.org/docs/Web/API/URLSearchParams
    """

    __slots__ = ("_pairs", "_url")

    def __init__(self, init: str | Mapping[str, Any] | Iterable[tuple[str, Any]] = "") -> None:
        self._url: URL | None = None
        if isinstance(init, str):
            text = init.removeprefix("?")
            self._pairs = parse_qsl(text, keep_blank_values=True, errors="replace")
        elif isinstance(init, URLSearchParams):
            self._pairs = list(init._pairs)
        elif isinstance(init, Mapping):
            self._pairs = [(str(name), _text(value)) for name, value in init.items()]
        else:
            self._pairs = [(str(name), _text(value)) for name, value in init]

    @classmethod
    def new(cls, init: Any = "") -> URLSearchParams:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls(init)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of ``name``, or ``default``."""
        return next((value for each, value in self._pairs if each == name), default)

    def getAll(self, name: str) -> list[str]:
        """All values of ``name``, in order."""
        return [value for each, value in self._pairs if each == name]

    def has(self, name: str, value: str | None = None) -> bool:
        """Whether there is such a name (with that value)."""
        return any(n == name and (value is None or v == value) for n, v in self._pairs)

    def append(self, name: str, value: object) -> None:
        """Add a pair."""
        self._change([*self._pairs, (name, _text(value))])

    def set(self, name: str, value: object) -> None:
        """Replace all pairs of that name with one, at the place of the first."""
        kept: list[tuple[str, str]] = []
        pending: str | None = _text(value)
        for pair in self._pairs:
            if pair[0] != name:
                kept.append(pair)
            elif pending is not None:
                kept.append((name, pending))
                pending = None
        if pending is not None:
            kept.append((name, pending))
        self._change(kept)

    def delete(self, name: str, value: str | None = None) -> None:
        """Remove all pairs of that name (and value)."""
        self._change(
            [(n, v) for n, v in self._pairs if n != name or (value is not None and v != value)]
        )

    def sort(self) -> None:
        """Sort by name; the order of equal names stays."""
        self._change(sorted(self._pairs, key=lambda pair: pair[0]))

    def keys(self) -> list[str]:
        """Return the names, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[str]:
        """Return the values, in order."""
        return [value for _, value in self._pairs]

    def entries(self) -> list[tuple[str, str]]:
        """Return the pairs, in order."""
        return list(self._pairs)

    items = entries

    def toString(self) -> str:
        """Return the pairs as ``application/x-www-form-urlencoded``, without ``?``."""
        return "&".join(f"{_form_quote(name)}={_form_quote(value)}" for name, value in self._pairs)

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    get_all = getAll
    to_string = toString

    def __str__(self) -> str:
        return self.toString()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(each == name for each, _ in self._pairs)

    def __repr__(self) -> str:
        return f"URLSearchParams({self.toString()!r})"

    def _change(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        if self._url is not None:
            self._url._query = self.toString() or None


class URL:
    """An absolute URL in its parts; assigning to a part changes the whole.

    Args:
        url: the URL; relative ones need ``base``.
        base: what a relative ``url`` is resolved against.

    Raises:
        TypeError: ``Invalid URL: …``.

    Source: https://developer.mozilla.org/docs/Web/API/URL
    """

    __slots__ = (
        "_fragment",
        "_host",
        "_params",
        "_password",
        "_path",
        "_port",
        "_query",
        "_scheme",
        "_username",
    )

    def __init__(self, url: object, base: object = None) -> None:
        self._scheme = ""
        self._username = ""
        self._password = ""
        self._host: str | None = None
        self._port: int | None = None
        self._path = ""
        self._query: str | None = None
        self._fragment: str | None = None
        self._params: URLSearchParams | None = None
        text = str(url).strip("".join(map(chr, range(0x21))))
        text = text.replace("\t", "").replace("\n", "").replace("\r", "")
        match = _SCHEME.fullmatch(text)
        if match is not None:
            self._parse_absolute(match[1].lower(), match[2], str(url))
        elif base is None:
            raise TypeError(f"Invalid URL: {url}")
        else:
            self._parse_relative(text, base if isinstance(base, URL) else URL(base), str(url))

    @classmethod
    def new(cls, url: object, base: object = None) -> URL:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls(url, base)

    @staticmethod
    def canParse(url: object, base: object = None) -> bool:
        """Whether ``URL(url, base)`` would succeed."""
        try:
            URL(url, base)
        except TypeError:
            return False
        return True

    @staticmethod
    def parse(url: object, base: object = None) -> URL | None:
        """``URL(url, base)``, or ``None`` if that is invalid."""
        return URL(url, base) if URL.canParse(url, base) else None

    # --- parsing -----------------------------------------------------------------------------

    def _parse_absolute(self, scheme: str, rest: str, given: str) -> None:
        self._scheme = scheme
        rest, self._query, self._fragment = self._split_tail(rest)
        if scheme in DEFAULT_PORTS:
            rest = rest.replace("\\", "/")
            if scheme == "file" and not rest.startswith("//"):
                rest = "//" + ("" if rest.startswith("/") else "/") + rest
            authority, slash, path = (
                rest[2 if scheme == "file" else 0 :]
                .lstrip("" if scheme == "file" else "/")
                .partition("/")
            )
        elif rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
        elif rest.startswith("/"):
            self._path = _normal_path(rest)
            return
        else:
            self._path = quote(rest, safe=_IN_OPAQUE + "#")
            return
        self._set_authority(authority, given)
        if scheme in DEFAULT_PORTS or slash:
            self._path = _normal_path("/" + path)

    def _parse_relative(self, text: str, base: URL, given: str) -> None:
        if base._host is None and not base._path.startswith("/") and not text.startswith("#"):
            raise TypeError(f"Invalid URL: {given}")
        if base._scheme in DEFAULT_PORTS:
            head, mark, tail = _cut(text)
            text = head.replace("\\", "/") + mark + tail
        if text.startswith("//"):
            self._parse_absolute(base._scheme, text, given)
            return
        self._scheme, self._host, self._port = base._scheme, base._host, base._port
        self._username, self._password = base._username, base._password
        path, self._query, self._fragment = self._split_tail(text)
        if path.startswith("/"):
            self._path = _normal_path(path)
        elif path:
            self._path = _normal_path(base._path.rpartition("/")[0] + "/" + path)
        else:
            self._path = base._path
            if self._query is None and not text.startswith("?"):
                self._query = base._query

    def _split_tail(self, text: str) -> tuple[str, str | None, str | None]:
        text, hash_mark, fragment = text.partition("#")
        text, question, query = text.partition("?")
        return (
            text,
            self._quote_query(query) if question else None,
            _quote(fragment, _IN_FRAGMENT) if hash_mark else None,
        )

    def _quote_query(self, query: str) -> str:
        return _quote(query, _IN_QUERY if self._scheme in DEFAULT_PORTS else _IN_QUERY + "'")

    def _set_authority(self, authority: str, given: str) -> None:
        userinfo, at, host_port = authority.rpartition("@")
        if at:
            username, _, password = userinfo.partition(":")
            self._username = _quote(username, _IN_USERINFO)
            self._password = _quote(password, _IN_USERINFO)
        host, port = host_port, ""
        if not host_port.endswith("]"):
            before, colon, after = host_port.rpartition(":")
            if colon:
                host, port = before, after
        self._host = self._normal_host(host, given)
        self._port = self._normal_port(port, given)

    def _normal_host(self, host: str, given: str) -> str:
        if _IPV6.fullmatch(host):
            return host.lower()
        if self._scheme not in DEFAULT_PORTS:
            return quote(host, safe="!$%&'()*+,;=")
        if not host and self._scheme == "file":
            return ""
        if _BAD_HOST.search(host) or not host:
            raise TypeError(f"Invalid URL: {given}")
        if host.isascii():
            return host.lower()
        try:
            encoded = yarl.URL.build(scheme="http", host=host).raw_host
        except ValueError:
            encoded = None
        if not encoded:
            raise TypeError(f"Invalid URL: {given}")
        return encoded

    def _normal_port(self, port: str, given: str) -> int | None:
        if not port:
            return None
        if not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
            raise TypeError(f"Invalid URL: {given}")
        number = int(port)
        return None if number == DEFAULT_PORTS.get(self._scheme) else number

    # --- parts -------------------------------------------------------------------------------

    @property
    def href(self) -> str:
        """The whole URL."""
        parts = [self._scheme, ":"]
        if self._host is not None:
            parts.append("//")
            if self._username or self._password:
                parts.append(self._username)
                if self._password:
                    parts += (":", self._password)
                parts.append("@")
            parts.append(self.host)
        parts.append(self._path)
        if self._query is not None:
            parts += ("?", self._query)
        if self._fragment is not None:
            parts += ("#", self._fragment)
        return "".join(parts)

    @href.setter
    def href(self, value: str) -> None:
        fresh = URL(value)
        for slot in self.__slots__:
            setattr(self, slot, getattr(fresh, slot))

    @property
    def origin(self) -> str:
        """``scheme://host``, ``"null"`` for schemes that have none."""
        if self._scheme not in DEFAULT_PORTS or self._scheme == "file":
            return "null"
        return f"{self._scheme}://{self.host}"

    @property
    def protocol(self) -> str:
        """The scheme with its colon: ``"https:"``."""
        return self._scheme + ":"

    @protocol.setter
    def protocol(self, value: str) -> None:
        scheme = value.partition(":")[0].lower()
        if (scheme in DEFAULT_PORTS) == (self._scheme in DEFAULT_PORTS):
            self._scheme = scheme
            if self._port == DEFAULT_PORTS.get(scheme):
                self._port = None

    @property
    def username(self) -> str:
        """The user name, percent-encoded."""
        return self._username

    @username.setter
    def username(self, value: str) -> None:
        self._username = _quote(value, _IN_USERINFO)

    @property
    def password(self) -> str:
        """The password, percent-encoded."""
        return self._password

    @password.setter
    def password(self, value: str) -> None:
        self._password = _quote(value, _IN_USERINFO)

    @property
    def host(self) -> str:
        """Host name and, unless it is the scheme's own, port."""
        host = self._host or ""
        return host if self._port is None else f"{host}:{self._port}"

    @host.setter
    def host(self, value: str) -> None:
        hostname, colon, port = (value, "", "") if value.endswith("]") else value.rpartition(":")
        self._host = self._normal_host(hostname if colon else value, value)
        if colon:
            self._port = self._normal_port(port, value)

    @property
    def hostname(self) -> str:
        """Host name without port."""
        return self._host or ""

    @hostname.setter
    def hostname(self, value: str) -> None:
        self._host = self._normal_host(value, value)

    @property
    def port(self) -> str:
        """The port, ``""`` if it is the scheme's own."""
        return "" if self._port is None else str(self._port)

    @port.setter
    def port(self, value: str | int) -> None:
        self._port = self._normal_port(str(value), str(value))

    @property
    def pathname(self) -> str:
        """The path."""
        return self._path

    @pathname.setter
    def pathname(self, value: str) -> None:
        path = value.replace("?", "%3F").replace("#", "%23")
        self._path = _normal_path(path if path.startswith("/") else "/" + path)

    @property
    def search(self) -> str:
        """The query with its ``?``; ``""`` if it is empty."""
        return "?" + self._query if self._query else ""

    @search.setter
    def search(self, value: str) -> None:
        query = value.removeprefix("?")
        self._query = self._quote_query(query.replace("#", "%23")) if query else None
        if self._params is not None:
            self._params._pairs = URLSearchParams(query)._pairs

    @property
    def searchParams(self) -> URLSearchParams:
        """The query's pairs; changing them changes the URL."""
        if self._params is None:
            self._params = URLSearchParams(self._query or "")
            self._params._url = self
        return self._params

    @property
    def hash(self) -> str:
        """The fragment with its ``#``; ``""`` if it is empty."""
        return "#" + self._fragment if self._fragment else ""

    @hash.setter  # noqa: A003
    def hash(self, value: str) -> None:
        fragment = value.removeprefix("#")
        self._fragment = _quote(fragment, _IN_FRAGMENT) if fragment else None

    def toString(self) -> str:
        """Return the whole URL."""
        return self.href

    search_params = searchParams
    to_string = toString
    toJSON = toString
    can_parse = canParse

    def __str__(self) -> str:
        return self.href

    def __repr__(self) -> str:
        return f"URL({self.href!r})"

    def __eq__(self, other: object) -> bool:
        return self.href == other.href if isinstance(other, URL) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def normalize_url(url: object) -> str:
    """Return an absolute URL in its normal form; cheap for those that are in it already.

    Raises:
        TypeError: ``Invalid URL: …``.
    """
    if isinstance(url, str) and _PLAIN.fullmatch(url) is not None:
        return url
    return url.href if isinstance(url, URL) else URL(url).href


def _cut(text: str) -> tuple[str, str, str]:
    for position, char in enumerate(text):
        if char in "?#":
            return text[:position], char, text[position + 1 :]
    return text, "", ""


def _quote(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="replace")


def _normal_path(path: str) -> str:
    """Percent-encode a path that begins with ``/``, and remove its dot segments."""
    segments: list[str] = []
    parts = _quote(path, _IN_PATH).split("/")[1:]
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        dots = part.lower().replace("%2e", ".")
        if dots == "..":
            if segments:
                segments.pop()
            if last:
                segments.append("")
        elif dots == ".":
            if last:
                segments.append("")
        else:
            segments.append(part)
    return "/" + "/".join(segments)


def _form_quote(text: str) -> str:
    return quote_plus(text, safe="*", errors="replace").replace("~", "%7E")


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)
