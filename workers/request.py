"""Request: what a client asks, or what an app asks of others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPMethod
from typing import TYPE_CHECKING, Any, Final

from workers.body import Message, Source, extract
from workers.exceptions import BodyUsedError
from workers.headers import Headers
from workers.url import URL, normalize_url

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from workers.options import FetchKwargs

_METHODS: Final[dict[str, HTTPMethod]] = {str(method): method for method in HTTPMethod}
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_REDIRECTS: Final = ("follow", "error", "manual")
_BODILESS: Final = ("GET", "HEAD")
_NO_EXTRAS: Final[Mapping[str, Any]] = {}
_SNAKE: Final = {
    "referrer_policy": "referrerPolicy",
    "is_history_navigation": "isHistoryNavigation",
}
_IGNORED: Final = ("fetcher", "signal", "duplex", "window", "priority", "encodeResponseBody")


class Request(Message):
    """An HTTP request.

    Args:
        input: an absolute URL, a :class:`~workers.url.URL`, or a request to start from. Without
            options the new request takes over the old one's body; a body that is left over in the
            old one counts as used.
        options: ``method``, ``headers``, ``body``, ``redirect`` (``"follow"``, ``"manual"``,
            ``"error"``), ``cf`` and the web's others, which have no effect.

    Raises:
        TypeError: an invalid URL, method, header, option or body; a body with GET or HEAD.
        BodyUsedError: the body of ``input`` was read before.

    Source: https://developers.cloudflare.com/workers/runtime-apis/request/
    """

    __slots__ = ("_extras", "_method", "_redirect", "_url", "signal")

    _extras: Mapping[str, Any]
    _method: str
    _redirect: str
    _url: str
    signal: Any

    def __init__(self, input: Request | URL | str, **options: Unpack[FetchKwargs]) -> None:
        self._used = False
        self.signal = options.get("signal")
        given: dict[str, Any] = {
            _SNAKE.get(name, name): value for name, value in options.items() if value is not None
        }
        if isinstance(input, Request):
            self._url = input._url
            self._method = input._method
            self._redirect = input._redirect
            self._extras = input._extras
            self.headers = input.headers.copy()
            self._source = None if "body" in given else _move_body(input)
        else:
            self._url = normalize_url(input)
            self._method = "GET"
            self._redirect = "follow"
            self._extras = _NO_EXTRAS
            self.headers = Headers()
            self._source = None
        if given:
            self._apply(given)
        if self._source is not None and self._method in _BODILESS:
            raise TypeError("Request with a GET or HEAD method cannot have a body.")

    def _apply(self, given: dict[str, Any]) -> None:
        if (method := given.pop("method", None)) is not None:
            self._method = _normal_method(method)
        if (headers := given.pop("headers", None)) is not None:
            self.headers = Headers(headers)
        if (redirect := given.pop("redirect", None)) is not None:
            if redirect not in _REDIRECTS:
                raise TypeError(
                    f'Invalid redirect value, must be one of "follow" or "manual" '
                    f'("{redirect}" won\'t be implemented).'
                )
            self._redirect = redirect
        if (body := given.pop("body", None)) is not None:
            self._source, content_type = extract(body, "Request")
            if content_type is not None and not self.headers.has("content-type"):
                self.headers.append("Content-Type", content_type)
        for name in _IGNORED:
            given.pop(name, None)
        unknown = given.keys() - _DEFAULTS.keys() - {"cf"}
        if unknown:
            raise TypeError(f"Request() got an unexpected option {sorted(unknown)[0]!r}")
        if given:
            self._extras = {**self._extras, **given}

    @classmethod
    def new(cls, input: Any, init: Any = None, **options: Any) -> Request:
        """Make one as JavaScript's ``new Request(input, init)`` does; ``init`` may be a dict."""
        if isinstance(init, Request):
            init = {
                "method": init._method,
                "headers": init.headers,
                "body": _move_body(init),
                "redirect": init._redirect,
            }
        elif init is not None and not isinstance(init, Mapping):
            init = vars(init)
        return cls(input, **{**(init or {}), **options})

    @classmethod
    def from_wire(
        cls,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        source: Source = None,
        redirect: str = "manual",
        cf: Any = None,
    ) -> Request:
        """Make one from parts that a parser has checked, for a host. Costs about a microsecond.

        Args:
            method: upper-case.
            url: absolute and normalised.
            headers: pairs; taken over, not copied.
            source: the body.
            redirect: ``"manual"`` for what comes from a client.
            cf: what ``request.cf`` gives.
        """
        request = cls.__new__(cls)
        request._method = method
        request._url = url
        request.headers = Headers.from_wire(headers)
        request._source = source
        request._used = False
        request._redirect = redirect
        request._extras = _NO_EXTRAS if cf is None else {"cf": cf}
        request.signal = None
        return request

    @property
    def method(self) -> HTTPMethod:
        """The method; equal to its name, as in ``request.method == "GET"``.

        A method that HTTP does not register is given as the plain string.
        """
        return _METHODS.get(self._method, self._method)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """The absolute URL, normalised."""
        return self._url

    @property
    def redirect(self) -> str:
        """What to do about redirects: ``"follow"``, ``"manual"`` or ``"error"``."""
        return self._redirect

    @property
    def cf(self) -> Any:
        """What was given as ``cf``; ``None`` for requests of clients."""
        return self._extras.get("cf")

    def _extra(self, name: str) -> Any:
        return self._extras.get(name, _DEFAULTS[name])

    @property
    def cache(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("cache"))

    @property
    def credentials(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("credentials"))

    @property
    def destination(self) -> str:
        """Always ``""``."""
        return ""

    @property
    def integrity(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("integrity"))

    @property
    def is_history_navigation(self) -> bool:
        """Always false."""
        return False

    @property
    def keepalive(self) -> bool:
        """Accepted for compatibility; no effect."""
        return bool(self._extra("keepalive"))

    @property
    def mode(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("mode"))

    @property
    def referrer(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("referrer"))

    @property
    def referrer_policy(self) -> str:
        """Accepted for compatibility; no effect."""
        return str(self._extra("referrerPolicy"))

    isHistoryNavigation = is_history_navigation
    referrerPolicy = referrer_policy

    @property
    def js_object(self) -> Request:
        """Itself: here there is no JavaScript object behind it."""
        return self

    async def json(self, **options: Any) -> Any:
        """Return the body as JSON; ``options`` go to ``json.loads``.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
            json.JSONDecodeError: it is not JSON.
        """
        return await self._read_json(**options)

    def clone(self) -> Request:
        """Return a copy with a body of its own; both may be read.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
        """
        source = self._split()
        copy = Request.from_wire(
            self._method, self._url, list(self.headers.raw), source, self._redirect
        )
        copy._extras = self._extras
        copy.signal = self.signal
        return copy

    def __repr__(self) -> str:
        return f"Request(method={self._method!r}, url={self._url!r})"


_DEFAULTS: Final[Mapping[str, Any]] = {
    "cache": "default",
    "credentials": "include",
    "integrity": "",
    "keepalive": False,
    "mode": "cors",
    "referrer": "about:client",
    "referrerPolicy": "",
    "isHistoryNavigation": False,
}


def _normal_method(method: object) -> str:
    text = method.value if isinstance(method, HTTPMethod) else method
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        raise TypeError(f"Invalid HTTP method string: {text}")
    # WHATWG Fetch §4.6: only these are normalised; workerd knows no others in lower case.
    return text.upper() if text.upper() in _METHODS else text


def _move_body(request: Request) -> Source:
    if request.body_used:
        raise BodyUsedError
    source = request._source
    if source is not None:
        request._used = True
    return source
