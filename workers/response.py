"""Response: what an app answers, and what its own fetches are answered."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, overload

from workers.body import BodyInit, Message, Source, extract
from workers.exceptions import BodyUsedError, RangeError
from workers.headers import Headers
from workers.url import normalize_url
from workers.websocket import WebSocket

if TYPE_CHECKING:
    from workers.headers import HeadersInit

_NULL_BODY: Final = frozenset((101, 204, 205, 304))
_REDIRECT: Final = frozenset((301, 302, 303, 307, 308))

_BAD_STATUS: Final = (
    "Responses may only be constructed with status codes in the range 200 to 599, inclusive."
)
_BODY_FORBIDDEN: Final = (
    "Response with null body status (101, 204, 205, or 304) cannot have a body."
)
_SOCKET_NEEDS_101: Final = "Responses with a WebSocket must have status code 101."
_NOT_A_SOCKET: Final = (
    "Incorrect type for the 'webSocket' field on 'InitializerDict': the provided value is not of "
    "type 'WebSocket'."
)


class _Json:
    """``Response.json(data)`` builds a response, ``await response.json()`` reads one."""

    @overload
    def __get__(self, response: None, owner: type) -> Callable[..., Response]: ...
    @overload
    def __get__(self, response: FetchResponse, owner: type) -> Callable[..., Awaitable[Any]]: ...
    def __get__(self, response: FetchResponse | None, owner: type) -> Callable[..., Any]:
        return Response.from_json if response is None else response._read_json


class FetchResponse(Message):
    """What ``fetch`` and ``stub.fetch`` give; the base of :class:`Response`.

    Attributes:
        status: the status code.
        status_text: the reason phrase, ``""`` for the usual one.
        headers: the header fields.
        web_socket: the client's end of a WebSocket, with status 101.

    Source: https://developers.cloudflare.com/workers/runtime-apis/response/
    """

    __slots__ = ("_redirected", "_type", "_url", "status", "status_text", "web_socket")

    status: int
    status_text: str
    web_socket: WebSocket | None
    _url: str
    _type: str
    _redirected: bool

    json = _Json()
    """``Response.json(data, status, status_text, headers)`` makes a JSON response (see
    :meth:`from_json`); ``await response.json()`` reads the body as JSON."""

    @property
    def statusText(self) -> str:
        """The same as :attr:`status_text`."""
        return self.status_text

    @property
    def webSocket(self) -> WebSocket | None:
        """The same as :attr:`web_socket`."""
        return self.web_socket

    @property
    def ok(self) -> bool:
        """Whether the status is 200..299."""
        return 200 <= self.status <= 299

    @property
    def url(self) -> str:
        """The URL it came from; ``""`` if the app made it."""
        return self._url

    @property
    def redirected(self) -> bool:
        """Whether a redirect was followed to get it."""
        return self._redirected

    @property
    def type(self) -> str:
        """``"default"``, or ``"error"`` for :meth:`Response.error`."""
        return self._type

    @property
    def js_object(self) -> FetchResponse:
        """Itself: here there is no JavaScript object behind it."""
        return self

    js_response = js_object

    async def string(self) -> str:
        """Return the body as text, as :meth:`text` does."""
        return await self.text()

    async def memoryview(self) -> memoryview:
        """Return the body, as a ``memoryview``."""
        return memoryview(await self._read())

    def raise_for_status(self) -> None:
        """Do nothing if the status is below 400.

        Raises:
            OSError: it is 400 or more.
        """
        if self.status >= 400:
            side = "Client" if self.status < 500 else "Server"
            reason = self.status_text or _phrase(self.status)
            raise OSError(f"{self.status} {side} Error: {reason} for url: {self._url}")

    def clone(self) -> Response:
        """Return a copy with a body of its own; both may be read.

        Raises:
            TypeError: it holds a WebSocket.
            BodyUsedError: the body was read before (an ``OSError``).
        """
        if self.web_socket is not None:
            raise TypeError("Cannot clone a response to a WebSocket handshake.")
        return self._like(self._split())

    def replace_body(self, body: BodyInit | None) -> Response:
        """Return a response like this one (status, headers, …) with another body."""
        source, content_type = extract(body, "Response")
        response = self._like(source)
        if content_type is not None and not response.headers.has("content-type"):
            response.headers.append("Content-Type", content_type)
        if source is not None and response.status in _NULL_BODY:
            raise TypeError(_BODY_FORBIDDEN)
        return response

    def _like(self, source: Source) -> Response:
        response = Response.from_wire(
            self.status, self.status_text, list(self.headers.raw), source, url=self._url
        )
        response._redirected = self._redirected
        response._type = self._type
        return response

    def __repr__(self) -> str:
        parts = [f"status={self.status}"]
        if self.status_text:
            parts.append(f"status_text={self.status_text!r}")
        if (content_type := self.headers.get("content-type")) is not None:
            parts.append(f"content_type={content_type!r}")
        if self._url:
            parts.append(f"url={self._url!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class Response(FetchResponse):
    """An HTTP response.

    Args:
        body: text, bytes, a form, a blob, a stream or async iterator of bytes, or ``None``. Another
            response, without further arguments, gives a response like that one.
        status: 200..599 (an int or ``HTTPStatus``), 101 with ``web_socket``; 200 unless given.
        status_text: the reason phrase.
        headers: a mapping, pairs or ``Headers``.
        web_socket: the client's end of a WebSocketPair, for a status of 101.

    Raises:
        TypeError: ``Unsupported type in Response: X``, a body with a status that has none,
            something else than a WebSocket, an invalid header.
        RangeError: a status that is not allowed (a ``ValueError``).

    Source: https://developers.cloudflare.com/workers/runtime-apis/response/
    """

    __slots__ = ()

    def __init__(
        self,
        body: BodyInit | FetchResponse | None = None,
        status: HTTPStatus | int | None = None,
        status_text: str = "",
        headers: HeadersInit | None = None,
        web_socket: WebSocket | None = None,
    ) -> None:
        self._used = False
        self._url = ""
        self._type = "default"
        self._redirected = False
        if isinstance(body, FetchResponse):
            if status is not None or status_text or headers is not None:
                raise ValueError("Expected no options when constructing Response from a Response")
            self._take_over(body)
            return
        self.status = code = 200 if status is None else int(status)
        if web_socket is not None:
            _check_socket(web_socket, code)
        elif not 200 <= code <= 599:
            raise RangeError(_BAD_STATUS)
        self.status_text = status_text
        self.headers = Headers(headers)
        self.web_socket = web_socket
        source, content_type = extract(body, "Response")
        if code in _NULL_BODY and source is not None:
            if source:
                raise TypeError(_BODY_FORBIDDEN)
            source, content_type = None, None
        self._source = source
        if content_type is not None and not self.headers.has("content-type"):
            self.headers.append("Content-Type", content_type)

    def _take_over(self, other: FetchResponse) -> None:
        if other.body_used:
            raise BodyUsedError
        self.status = other.status
        self.status_text = other.status_text
        self.headers = other.headers.copy()
        self.web_socket = other.web_socket
        self._url = other._url
        self._type = other._type
        self._redirected = other._redirected
        self._source = other._source
        other._used = other._source is not None

    @classmethod
    def new(cls, body: Any = None, init: Any = None, **options: Any) -> Response:
        """Make one as JavaScript's ``new Response(body, init)`` does.

        Args:
            body: see the class.
            init: a dict with ``status``, ``statusText``, ``headers``, ``webSocket``, or a response
                to take these from.
            options: the same, in either spelling.
        """
        given: dict[str, Any] = {}
        if isinstance(init, FetchResponse):
            given = {
                "status": init.status,
                "statusText": init.status_text,
                "headers": init.headers,
                "webSocket": init.web_socket,
            }
        elif init is not None:
            given = dict(init) if isinstance(init, Mapping) else dict(vars(init))
        given.update(options)
        status_text = given.get("status_text", given.get("statusText"))
        return cls(
            body,
            given.get("status"),
            "" if status_text is None else str(status_text),
            given.get("headers"),
            given.get("web_socket", given.get("webSocket")),
        )

    @classmethod
    def from_wire(
        cls,
        status: int,
        status_text: str,
        headers: list[tuple[str, str]],
        source: Source = None,
        web_socket: WebSocket | None = None,
        url: str = "",
    ) -> Response:
        """Make one from parts that are known to be right, for a host. Costs about a microsecond."""
        response = cls.__new__(cls)
        response.status = status
        response.status_text = status_text
        response.headers = Headers.from_wire(headers)
        response.web_socket = web_socket
        response._source = source
        response._used = False
        response._url = url
        response._type = "default"
        response._redirected = False
        return response

    @staticmethod
    def from_json(
        data: Any,
        status: HTTPStatus | int | Mapping[str, Any] = HTTPStatus.OK,
        status_text: str = "",
        headers: HeadersInit | None = None,
    ) -> Response:
        """Return a response with ``data`` as JSON.

        Args:
            data: what ``json.dumps`` takes.
            status: 200..599; or an options dict, as in JavaScript.
            status_text: the reason phrase.
            headers: further headers; a Content-Type among them is kept.

        Raises:
            TypeError: ``data`` has no JSON form.
            RangeError: a status that is not allowed (a ``ValueError``).
        """
        text = json.dumps(data)
        if isinstance(status, Mapping):
            response = Response.new(text.encode(), status)
        else:
            response = Response(text.encode(), status, status_text, headers)
        if not response.headers.has("content-type"):
            response.headers.append("Content-Type", "application/json")
        return response

    @staticmethod
    def redirect(url: object, status: HTTPStatus | int = HTTPStatus.FOUND) -> Response:
        """Return a redirect to ``url``.

        Raises:
            TypeError: ``url`` is not absolute.
            RangeError: ``status`` is not 301, 302, 303, 307 or 308 (a ``ValueError``).
        """
        location = normalize_url(url)
        if int(status) not in _REDIRECT:
            raise RangeError(f"{int(status)} is not a redirect status code.")
        return Response(None, status, headers={"Location": location})

    @staticmethod
    def error() -> Response:
        """Return a response that stands for a network error: type ``"error"``, status 0."""
        response = Response.from_wire(0, "", [])
        response._type = "error"
        return response


def _check_socket(web_socket: object, status: int) -> None:
    if not isinstance(web_socket, WebSocket):
        raise TypeError(_NOT_A_SOCKET)
    if status != 101:
        raise RangeError(_SOCKET_NEEDS_101)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
