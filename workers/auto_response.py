"""The pair of texts by which a held WebSocket is answered without waking its object."""

from __future__ import annotations

from typing import Final

from workers.exceptions import RangeError

MAX_TEXT_BYTES: Final = 2048


class WebSocketRequestResponsePair:
    """A message, and the message that answers it. Immutable.

    Args:
        request: the exact text to answer, at most 2,048 bytes of UTF-8.
        response: the answer, at most 2,048 bytes of UTF-8.

    Raises:
        RangeError: one is longer (a ``ValueError``).

    Source: https://developers.cloudflare.com/durable-objects/api/state/#setwebsocketautoresponse
    """

    __slots__ = ("_request", "_response")

    def __init__(self, request: str, response: str) -> None:
        for name, text in (("Request", request), ("Response", response)):
            size = len(text.encode("utf-8", "replace"))
            if size > MAX_TEXT_BYTES:
                raise RangeError(
                    f"{name} cannot be larger than {MAX_TEXT_BYTES} bytes. "
                    f"A {name.lower()} of size {size} was provided."
                )
        self._request = request
        self._response = response

    @classmethod
    def new(cls, request: str, response: str) -> WebSocketRequestResponsePair:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls(request, response)

    @property
    def request(self) -> str:
        """The text that is answered."""
        return self._request

    @property
    def response(self) -> str:
        """The answer."""
        return self._response

    def getRequest(self) -> str:
        """Return the text that is answered."""
        return self._request

    def getResponse(self) -> str:
        """Return the answer."""
        return self._response

    get_request = getRequest
    get_response = getResponse

    def __repr__(self) -> str:
        return f"WebSocketRequestResponsePair({self._request!r}, {self._response!r})"
