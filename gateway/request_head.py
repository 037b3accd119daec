"""One request head (RFC 9112 §2-5), read by aiohttp's compiled parser.

This is the only module that knows that parser. It is given one head and nothing behind it, so that
what follows (a body, the next request, frames) stays ours; a fresh one is made for each head. The
bodies are read by :mod:`gateway.request_body`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, InvalidURLError, LineTooLong
from aiohttp.http_parser import HttpRequestParser

from gateway.refusal import Refusal

_METHOD_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")
_REASON: Final = re.compile(r"\d+, message:\s*([^\n]*?):?\s*(?:\n|$)")
_BODY_FIELDS: Final = re.compile(rb"\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_NO_HOST: Final = "ERROR: A request needs a Host header."
METHOD_BYTES: Final = 64
"""More than any method that the parser knows."""
_END: Final = b"\r\n\r\n"


@dataclass(slots=True)
class RequestHead:
    """What one head says.

    Attributes:
        method: one of those registered, upper case.
        target: as it came.
        version: of HTTP, ``(1, 0)`` or ``(1, 1)``.
        headers: ``[name, value]`` pairs as they came, in Latin-1.
        host: value of the ``Host`` header, ``""`` if there is none (only in HTTP/1.0).
        close: the client wants the connection to end after the answer.
        length: bytes of the body that follows; ``None`` if it is chunked.
        expects_continue: the client waits for ``100 Continue`` before it sends the body.
    """

    method: str
    target: str
    version: tuple[int, int]
    headers: list[list[str]]
    host: str
    close: bool
    length: int | None
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Something follows the head."""
        return self.length != 0


class BadHeadError(Exception):
    """The head cannot be passed on.

    Args:
        refusal: the answer. It ends the connection unless it is known what follows.
        rest: what follows.
    """

    def __init__(self, refusal: Refusal, rest: bytes = b"") -> None:
        super().__init__(refusal.text)
        self.refusal = refusal
        self.rest = rest


class _NoProtocol:
    """What aiohttp's parser wants to pause; it never reads a body here."""

    connected = True
    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, **_options: object) -> None: ...


_NO_PROTOCOL: Final = _NoProtocol()


class HeadParser:
    """Reads one head, however it is cut up.

    Args:
        max_head_bytes: beyond, 431.
        max_headers: beyond, 431.
        max_url_bytes: of the request target; beyond, 414.
    """

    __slots__ = (
        "_fed_bytes",
        "_last",
        "_max_head_bytes",
        "_max_headers",
        "_max_url_bytes",
        "_parser",
    )

    def __init__(self, max_head_bytes: int, max_headers: int, max_url_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_headers = max_headers
        self._max_url_bytes = max_url_bytes
        self._parser = HttpRequestParser(
            _NO_PROTOCOL,  # type: ignore[arg-type]
            asyncio.get_running_loop(),
            2**16,
            max_line_size=max_url_bytes,
            # One more than the whole head may have, so that LineTooLong tells the two apart.
            max_field_size=max(max_head_bytes, max_url_bytes) + 1,
            max_headers=max_headers,
            auto_decompress=False,
        )
        self._fed_bytes = 0
        self._last = b""  # the last 3 bytes, where a head's end may have begun

    @property
    def has_begun(self) -> bool:
        """Part of a head has come."""
        return self._fed_bytes > 0

    def feed(self, data: bytes) -> tuple[RequestHead | None, bytes]:
        """The head that *data* completes, if it does, and the bytes behind it.

        Raises:
            BadHeadError: the head is malformed or too large.
        """
        while data:
            end = (self._last + data).find(_END) + len(_END) - len(self._last)
            ended = end >= len(_END) - len(self._last) and end > 0
            part, rest = (data[:end], data[end:]) if ended else (data, b"")
            self._fed_bytes += len(part)
            if self._fed_bytes > self._max_head_bytes:
                # Too long as a whole; but a request line that is too long has its own answer.
                self._feed(part[: self._max_url_bytes + METHOD_BYTES])
                raise BadHeadError(
                    Refusal(431, f"ERROR: The request head exceeds {self._max_head_bytes} bytes.")
                )
            try:
                head = self._feed(part)
            except BadHeadError as error:
                if ended and _NO_HOST in str(error) and not _BODY_FIELDS.search(self._seen(part)):
                    raise BadHeadError(Refusal(400, _NO_HOST, close=False), rest) from None
                raise
            if head is not None:
                return head, rest
            # Blank lines may come before a request (RFC 9112 §2.2).
            self._last = b"" if ended else (self._last + part)[-3:]
            data = rest
        return None, b""

    def _seen(self, part: bytes) -> bytes:
        """The whole head, if that is *part*; else something that says that nobody knows."""
        return part if self._fed_bytes == len(part) else b"\ncontent-length:"

    def _feed(self, part: bytes) -> RequestHead | None:
        try:
            messages, _, _ = self._parser.feed_data(part)
        except LineTooLong as error:
            raise BadHeadError(self._too_long(error)) from None
        except BadHttpMethod as error:
            raise BadHeadError(_bad_method(part, error)) from None
        except InvalidURLError:
            raise BadHeadError(Refusal(400, "ERROR: The request target is not valid.")) from None
        except BadHttpMessage as error:
            raise BadHeadError(self._bad_message(error)) from None
        if not messages:
            return None
        message = messages[0][0]
        major, minor = message.version
        if (major, minor) not in ((1, 0), (1, 1)):
            if major < 1:
                raise BadHeadError(Refusal(400, "ERROR: The request line names no HTTP version."))
            raise BadHeadError(Refusal(505, f"ERROR: HTTP/{major}.{minor} is not spoken here."))
        if message.method == "CONNECT":
            raise BadHeadError(Refusal(501, "ERROR: CONNECT is not implemented."))
        return _read(message)

    def _too_long(self, error: LineTooLong) -> Refusal:
        if str(error.args[1]) == str(self._max_url_bytes):
            return Refusal(414, f"ERROR: The URL exceeds {self._max_url_bytes} bytes.")
        return Refusal(431, f"ERROR: The request head exceeds {self._max_head_bytes} bytes.")

    def _bad_message(self, error: BadHttpMessage) -> Refusal:
        match = _REASON.match(str(error))
        reason = match[1] if match else "malformed"
        if reason.startswith("Too many headers"):
            return Refusal(431, f"ERROR: More than {self._max_headers} header fields.")
        if reason.startswith("Missing 'Host'"):
            return Refusal(400, _NO_HOST)
        return Refusal(400, f"ERROR: Bad request: {reason.rstrip('.')}.")


def _bad_method(part: bytes, error: BadHttpMethod) -> Refusal:
    if "HTTPS" in str(error):
        return Refusal(400, "ERROR: This port speaks HTTP, not HTTPS.")
    if _METHOD_LINE.match(part):
        return Refusal(501, "ERROR: Unrecognized request method.")
    return Refusal(400, "ERROR: This is not an HTTP request.")


def _read(message: object) -> RequestHead:
    host = ""
    length: int | None = 0
    expects = False
    headers: list[list[str]] = []
    for raw_name, raw_value in message.raw_headers:  # type: ignore[attr-defined]
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1")
        headers.append([name, value])
        lower = name.lower()
        if lower == "host":
            host = value
        elif lower == "content-length":
            length = int(value)
        elif lower == "expect":
            expects = value.lower() == "100-continue"
    if message.chunked:  # type: ignore[attr-defined]
        length = None
    return RequestHead(
        message.method,  # type: ignore[attr-defined]
        message.path,  # type: ignore[attr-defined]
        tuple(message.version),  # type: ignore[attr-defined]
        headers,
        host,
        message.should_close,  # type: ignore[attr-defined]
        length,
        expects,
    )
