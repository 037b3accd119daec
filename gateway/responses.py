"""Response heads as bytes (RFC 9112 §4-6): which header fields pass, and how the body is framed."""

from __future__ import annotations

import enum
import http
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.refusal import Refusal

Headers = Sequence[Sequence[str]]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DROPPED: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Hop-by-hop fields (RFC 9110 §7.6.1): they speak of a connection the app does not have."""
_DROPPED_101: Final = _DROPPED | {
    "content-length",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}
_REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus}


class Framing(enum.Enum):
    """How a client finds the end of the body."""

    NONE = "there is none"
    LENGTH = "Content-Length"
    CHUNKED = "Transfer-Encoding: chunked"
    UNTIL_CLOSE = "end of the connection"


class BadResponseError(Exception):
    """What the app answered cannot go over HTTP; the text says why."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A head ready to be sent.

    Attributes:
        data: the bytes.
        framing: of the body that must follow.
        length: bytes of that body, with :attr:`Framing.LENGTH`.
    """

    data: bytes
    framing: Framing
    length: int = 0


def encode_head(
    status: int,
    reason: str,
    headers: Headers,
    *,
    method: str,
    version: tuple[int, int],
    body_bytes: int | None,
    close: bool,
    date: str,
) -> ResponseHead:
    """The head of an app's answer that is not 101.

    Args:
        status: 200..599.
        reason: ``""`` for the usual one.
        headers: as the app set them.
        method: of the request; the answer to HEAD has no body.
        version: of the request; HTTP/1.0 has no chunks.
        body_bytes: length of the body, ``None`` if it is a stream.
        close: the connection ends after this answer.
        date: value of ``Date`` where the app set none.

    Raises:
        BadResponseError: a status, name or value that HTTP does not allow.
    """
    if not 200 <= status <= 599:
        raise BadResponseError(f"status {status} is not one of 200 to 599")
    kept, length, has_date = _kept(headers)
    bodiless = status in (204, 304)
    framing = Framing.NONE
    size = 0
    if bodiless or method == "HEAD":
        if status == 204:
            length = None
        elif length is None and body_bytes:
            length = body_bytes
        if length is not None:
            kept.append(f"Content-Length: {length}")
    elif body_bytes is not None:
        framing, size = Framing.LENGTH, body_bytes
        kept.append(f"Content-Length: {body_bytes}")
    elif length is not None:
        framing, size = Framing.LENGTH, length
        kept.append(f"Content-Length: {length}")
    elif version >= (1, 1):
        framing = Framing.CHUNKED
        kept.append("Transfer-Encoding: chunked")
    else:
        framing = Framing.UNTIL_CLOSE
        close = True
    if not has_date and date:
        kept.append(f"Date: {date}")
    upgrade = status == 426
    if upgrade:  # RFC 9110 §15.5.22: a 426 must say to what
        kept.append("Upgrade: websocket")
    connection = _connection(close, version, upgrade)
    if connection:
        kept.append(f"Connection: {connection}")
    return ResponseHead(_assemble(status, reason, kept), framing, size)


def encode_switch(
    accept: str, headers: Headers, protocols: tuple[str, ...], extensions: str
) -> bytes:
    """The 101 that completes a handshake (RFC 6455 §4.2.2, 5).

    Args:
        accept: value of ``Sec-WebSocket-Accept``.
        headers: as the app set them; it may choose one of *protocols*.
        protocols: what the client offered.
        extensions: value of ``Sec-WebSocket-Extensions``, or ``""``.

    Raises:
        BadResponseError: a name or value that HTTP does not allow, or another subprotocol.
    """
    kept = ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Accept: {accept}"]
    chosen = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    if chosen:
        if len(chosen) > 1 or chosen[0] not in protocols:
            raise BadResponseError(
                f"Sec-WebSocket-Protocol {', '.join(chosen)!r} is not one that the client offered"
            )
        kept.append(f"Sec-WebSocket-Protocol: {chosen[0]}")
    if extensions:
        kept.append(f"Sec-WebSocket-Extensions: {extensions}")
    for name, value in headers:
        if name.lower() not in _DROPPED_101:
            kept.append(_field(name, value))
    return _assemble(101, "Switching Protocols", kept)


def encode_refusal(refusal: Refusal, *, version: tuple[int, int], date: str, head: bool) -> bytes:
    """A whole answer of the gateway's own.

    Args:
        refusal: what it says.
        version: of the request.
        date: value of ``Date``.
        head: the request was HEAD, so there is no body.
    """
    body = refusal.text.encode()
    kept = [f"{name}: {value}" for name, value in refusal.headers]
    kept.append("Content-Type: text/plain;charset=UTF-8")
    kept.append(f"Content-Length: {len(body)}")
    if date:
        kept.append(f"Date: {date}")
    connection = _connection(refusal.close, version, refusal.upgrade)
    if connection:
        kept.append(f"Connection: {connection}")
    return _assemble(refusal.status, "", kept) + (b"" if head else body)


def _connection(close: bool, version: tuple[int, int], upgrade: bool) -> str:
    options = ["close"] if close else (["keep-alive"] if version < (1, 1) else [])
    if upgrade:
        options.append("Upgrade")
    return ", ".join(options)


def _kept(headers: Headers) -> tuple[list[str], int | None, bool]:
    """The fields that pass, the Content-Length among them by itself, and whether Date is there."""
    kept: list[str] = []
    length: int | None = None
    has_date = False
    for name, value in headers:
        lower = name.lower()
        if lower in _DROPPED:
            continue
        if lower == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise BadResponseError(f"Content-Length {value!r} is not a number")
            length = int(value)
            continue
        if lower == "date":
            has_date = True
        kept.append(_field(name, value))
    return kept, length, has_date


def _field(name: str, value: str) -> str:
    if _TOKEN.fullmatch(name) is None:
        raise BadResponseError(f"header name {name!r} is not a token")
    if "\r" in value or "\n" in value or "\0" in value:
        raise BadResponseError(f"the value of header {name} holds a line break or NUL")
    return f"{name}: {value}"


def _assemble(status: int, reason: str, fields: list[str]) -> bytes:
    if not reason or "\r" in reason or "\n" in reason:
        reason = _REASONS.get(status, "")
    text = "\r\n".join((f"HTTP/1.1 {status} {reason}", *fields, "", ""))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
