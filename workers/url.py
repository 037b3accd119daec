"""URL, by the parts of the WHATWG URL standard that programs use.

https://developers.cloudflare.com/workers/runtime-apis/web-standards/#url-api and
https://url.spec.whatwg.org/.
"""

from __future__ import annotations

import re
from typing import Final

from workers.search_params import URLSearchParams
from workers.url_record import (
    DEFAULT_PORTS,
    IN_FRAGMENT,
    IN_USERINFO,
    UrlRecord,
    normal_path,
    quoted,
)

_PLAIN: Final = re.compile(
    r"https?://[a-z0-9.\-]+(?::(?!80/|443/)[1-9][0-9]{0,3})?"
    r"/(?!\.)(?:[A-Za-z0-9_~!$&()*+,;=:@\-]|/(?!\.)|(?<!/)\.)*(?:\?[A-Za-z0-9_.~!$&()*+,;=:@/\-%]*)?",
    re.ASCII,
)
"""URLs that are in normal form already: the ones a program builds itself."""


class URL(UrlRecord):
    """An absolute URL in its parts; assigning to a part changes the whole.

    Args:
        url: the URL; relative ones need ``base``.
        base: what a relative ``url`` is resolved against.

    Raises:
        TypeError: ``Invalid URL: …``.

    Source: https://developer.mozilla.org/docs/Web/API/URL
    """

    __slots__ = ("_params",)

    def __init__(self, url: object, base: object = None) -> None:
        if base is not None and not isinstance(base, URL):
            base = URL(base)
        super().__init__(url, base)
        self._params: URLSearchParams | None = None

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

    # --- parts -------------------------------------------------------------------------------

    @property
    def href(self) -> str:
        """The whole URL."""
        return self._serialized()

    @href.setter
    def href(self, value: str) -> None:
        fresh = URL(value)
        for slot in (*UrlRecord.__slots__, *URL.__slots__):
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
        self._username = quoted(value, IN_USERINFO)

    @property
    def password(self) -> str:
        """The password, percent-encoded."""
        return self._password

    @password.setter
    def password(self, value: str) -> None:
        self._password = quoted(value, IN_USERINFO)

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
        self._path = normal_path(path if path.startswith("/") else "/" + path)

    @property
    def search(self) -> str:
        """The query with its ``?``; ``""`` if it is empty."""
        return "?" + self._query if self._query else ""

    @search.setter
    def search(self, value: str) -> None:
        query = value.removeprefix("?")
        self._query = self._quote_query(query.replace("#", "%23")) if query else None
        if self._params is not None:
            self._params._reset(query)

    @property
    def searchParams(self) -> URLSearchParams:
        """The query's pairs; changing them changes the URL."""
        if self._params is None:
            self._params = URLSearchParams(self._query or "")
            self._params._bind(self._set_query)
        return self._params

    @property
    def hash(self) -> str:
        """The fragment with its ``#``; ``""`` if it is empty."""
        return "#" + self._fragment if self._fragment else ""

    @hash.setter  # noqa: A003
    def hash(self, value: str) -> None:
        fragment = value.removeprefix("#")
        self._fragment = quoted(fragment, IN_FRAGMENT) if fragment else None

    def _set_query(self, query: str | None) -> None:
        self._query = query

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
