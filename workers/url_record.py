"""A parsed URL and its parser (WHATWG URL §4).

Left out: IPv4 addresses in octal or hexadecimal form, and compression of IPv6 ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import yarl

DEFAULT_PORTS: Final[Mapping[str, int | None]] = {
    "http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "file": None,
}  # fmt: skip
"""The special schemes (WHATWG URL §3.1)."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.ASCII | re.DOTALL)
_BAD_HOST: Final = re.compile(r"[\0-\x20#/:<>?@\[\\\]^|%\x7f]")
_IPV6: Final = re.compile(r"\[[0-9A-Fa-f:.]+\]")

# Python's quote() keeps letters, digits and "_.-~" besides what is named here.
_IN_PATH: Final = "/!$%&'()*+,;=:@|[]\\^"
_IN_QUERY: Final = "/!$%&()*+,;=:@|[]\\^?`{}"
_IN_OPAQUE: Final = _IN_QUERY + "'\"<> "
IN_FRAGMENT: Final = "/!$%&'()*+,;=:@|[]\\^?{}#"
IN_USERINFO: Final = "!$%&'()*+,"


class UrlRecord:
    """The parts of an absolute URL, each in its normal form.

    Args:
        url: the URL; relative ones need ``base``.
        base: what a relative ``url`` is resolved against.

    Raises:
        TypeError: ``Invalid URL: …``.
    """

    __slots__ = (
        "_fragment",
        "_host",
        "_password",
        "_path",
        "_port",
        "_query",
        "_scheme",
        "_username",
    )

    def __init__(self, url: object, base: UrlRecord | None = None) -> None:
        self._scheme = ""
        self._username = ""
        self._password = ""
        self._host: str | None = None
        self._port: int | None = None
        self._path = ""
        self._query: str | None = None
        self._fragment: str | None = None
        text = str(url).strip("".join(map(chr, range(0x21))))
        text = text.replace("\t", "").replace("\n", "").replace("\r", "")
        match = _SCHEME.fullmatch(text)
        if match is not None:
            self._parse_absolute(match[1].lower(), match[2], str(url))
        elif base is None:
            raise TypeError(f"Invalid URL: {url}")
        else:
            self._parse_relative(text, base, str(url))

    def _serialized(self) -> str:
        parts = [self._scheme, ":"]
        if self._host is not None:
            parts.append("//")
            if self._username or self._password:
                parts.append(self._username)
                if self._password:
                    parts += (":", self._password)
                parts.append("@")
            parts.append(self._host if self._port is None else f"{self._host}:{self._port}")
        parts.append(self._path)
        if self._query is not None:
            parts += ("?", self._query)
        if self._fragment is not None:
            parts += ("#", self._fragment)
        return "".join(parts)

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
            self._path = normal_path(rest)
            return
        else:
            self._path = quote(rest, safe=_IN_OPAQUE + "#")
            return
        self._set_authority(authority, given)
        if scheme in DEFAULT_PORTS or slash:
            self._path = normal_path("/" + path)

    def _parse_relative(self, text: str, base: UrlRecord, given: str) -> None:
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
            self._path = normal_path(path)
        elif path:
            self._path = normal_path(base._path.rpartition("/")[0] + "/" + path)
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
            quoted(fragment, IN_FRAGMENT) if hash_mark else None,
        )

    def _quote_query(self, query: str) -> str:
        return quoted(query, _IN_QUERY if self._scheme in DEFAULT_PORTS else _IN_QUERY + "'")

    def _set_authority(self, authority: str, given: str) -> None:
        userinfo, at, host_port = authority.rpartition("@")
        if at:
            username, _, password = userinfo.partition(":")
            self._username = quoted(username, IN_USERINFO)
            self._password = quoted(password, IN_USERINFO)
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


def _cut(text: str) -> tuple[str, str, str]:
    for position, char in enumerate(text):
        if char in "?#":
            return text[:position], char, text[position + 1 :]
    return text, "", ""


def quoted(text: str, safe: str) -> str:
    """Percent-encode ``text`` but for letters, digits, ``_.-~`` and what is in ``safe``."""
    return quote(text, safe=safe, errors="replace")


def normal_path(path: str) -> str:
    """Percent-encode a path that begins with ``/``, and remove its dot segments."""
    segments: list[str] = []
    parts = quoted(path, _IN_PATH).split("/")[1:]
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
