"""The body of a request or response: what it may be made of, and how it is read once.

A body is nothing, bytes, or a :class:`~workers.streams.ReadableStream`. Everything else an app may
pass (text, a form, a blob, an async iterator) is turned into one of these when the message is made.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from workers.blob import Blob
from workers.events import Bytes
from workers.exceptions import BodyUsedError
from workers.forms import FormData, encode_form, encode_params, parse_form
from workers.headers import Headers
from workers.search_params import URLSearchParams
from workers.streams import ReadableStream

_Bytes: TypeAlias = bytes
Source: TypeAlias = bytes | ReadableStream | None
"""What a body is in the end."""

if TYPE_CHECKING:
    BodyInit: TypeAlias = (
        str
        | bytes
        | bytearray
        | memoryview
        | FormData
        | Blob
        | URLSearchParams
        | ReadableStream
        | AsyncIterable[bytes]
    )
else:
    BodyInit = object
"""What an app may pass as a body."""

M = TypeVar("M", bound="Message")

_TEXT_TYPE: Final = "text/plain;charset=UTF-8"


def extract(body: object, kind: str) -> tuple[Source, str | None]:
    """Return the source of ``body`` and the Content-Type it implies, if any.

    Args:
        body: what the app passed.
        kind: ``"Request"`` or ``"Response"``, for the error.

    Raises:
        TypeError: ``Unsupported type in Response: X``.
    """
    if body is None:
        return None, None
    if isinstance(body, str):
        return body.encode("utf-8", "replace"), _TEXT_TYPE
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), None
    if isinstance(body, ReadableStream):
        if body.locked or body.disturbed:
            raise BodyUsedError("This ReadableStream is disturbed (has already been read from).")
        return body, None
    if isinstance(body, FormData):
        return encode_form(body)
    if isinstance(body, Blob):
        return bytes(body), body.content_type or None
    if isinstance(body, URLSearchParams):
        return encode_params(body)
    if isinstance(body, AsyncIterable):
        return ReadableStream(cast("AsyncIterable[bytes]", body)), None
    what = type(body).__name__
    if hasattr(body, "__await__"):
        what += f": it was not awaited: {body!r}"
    raise TypeError(f"Unsupported type in {kind}: {what}")


class Message:
    """What requests and responses have in common: headers, and a body that is read once."""

    __slots__ = ("_source", "_used", "headers")

    headers: Headers
    _source: Source
    _used: bool

    @property
    def body(self) -> ReadableStream | None:
        """The body as a stream, ``None`` if there is none. Always the same stream.

        Source: https://developers.cloudflare.com/workers/runtime-apis/streams/
        """
        source = self._source
        if type(source) is bytes:
            if self._used:
                # It was read whole: what is left is a stream at its end.
                source = b""
            source = self._source = ReadableStream.of(source)
        return cast("ReadableStream | None", source)

    @property
    def body_used(self) -> bool:
        """Whether the body was read. A message without a body is never used."""
        source = self._source
        if source is None:
            return False
        return self._used or (type(source) is not bytes and cast("Any", source).disturbed)

    bodyUsed = body_used

    async def text(self) -> str:
        """Return the body as UTF-8; what is invalid becomes U+FFFD.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
        """
        return _decode(await self._read())

    async def bytes(self) -> _Bytes:
        """Return the body.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
        """
        return await self._read()

    async def buffer(self) -> Bytes:
        """Return the body, as :meth:`bytes` does; it also answers as an ArrayBuffer of Pyodide."""
        return Bytes(await self._read())

    async def arrayBuffer(self) -> Bytes:
        """Return the body, as :meth:`buffer` does."""
        return Bytes(await self._read())

    async def blob(self) -> Blob:
        """Return the body with its Content-Type.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
        """
        return Blob(await self._read(), self.headers.get("content-type"))

    async def form_data(self) -> FormData:
        """Return the form in the body.

        Raises:
            BodyUsedError: the body was read before (an ``OSError``).
            TypeError: the Content-Type is that of no form, or the body is malformed.
        """
        return parse_form(await self._read(), self.headers.get("content-type"))

    async def formData(self) -> FormData:
        """Return the form in the body, as :meth:`form_data` does."""
        return await self.form_data()

    array_buffer = arrayBuffer

    async def _read_json(self, **options: Any) -> Any:
        return json.loads(_decode(await self._read()), **options)

    async def _read(self) -> _Bytes:
        source = take_body(self)
        if source is None:
            return b""
        return source if isinstance(source, bytes) else await source.read()

    def _split(self) -> Source:
        """Return a second body with the same content; the first stays as it was."""
        if self.body_used:
            raise BodyUsedError
        source = self._source
        if isinstance(source, ReadableStream):
            self._source, other = source.tee()
            return other
        return source


def take_body(message: Message) -> Source:
    """Use the body up and return its source, for whoever reads it or sends it away.

    Raises:
        BodyUsedError: it was read before, or a reader holds it.
    """
    source = message._source
    if source is None:
        return None
    if message._used:
        raise BodyUsedError
    if type(source) is not bytes:
        stream = cast("ReadableStream", source)
        if stream.disturbed or stream.locked:
            raise BodyUsedError
    message._used = True
    return source


def _decode(data: bytes) -> str:
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
