"""The opening handshake of a WebSocket, server side (RFC 6455 §4.2), as a pure function.

A request whose ``Upgrade`` header names ``websocket``, in any letter case and possibly in a list,
is a handshake and must be a perfect one; any other request is plain HTTP. All of it is checked
before an app sees the request, so that a bad handshake never wakes an object.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway import deflate
from gateway.refusal import Refusal

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16

Headers = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Accept:
    """A handshake that may be answered with 101.

    Attributes:
        accept: value of ``Sec-WebSocket-Accept``.
        protocols: subprotocols that the client offered, in its order.
        deflate: what compression was agreed, if any.
    """

    accept: str
    protocols: tuple[str, ...]
    deflate: deflate.Deflate | None


def check(
    method: str,
    version: tuple[int, int],
    headers: Headers,
    *,
    has_body: bool,
    compression: bool,
) -> Accept | Refusal | None:
    """Judge one request by its head.

    Args:
        method: as it came.
        version: of HTTP, as in ``(1, 1)``.
        headers: pairs of name and value, in order.
        has_body: a body follows the head.
        compression: permessage-deflate may be agreed.

    Returns:
        ``None`` for a request that is no handshake.
    """
    upgrades: list[str] = []
    connection: list[str] = []
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        lower = name.lower()
        if lower == "upgrade":
            upgrades += _tokens(value)
        elif lower == "connection":
            connection += _tokens(value)
        elif lower.startswith("sec-websocket-"):
            fields.setdefault(lower, []).append(value.strip(" \t"))
    if "websocket" not in upgrades:
        return None
    return (
        _check_http(method, version, connection, has_body)
        or _check_version(fields.get("sec-websocket-version", []))
        or _check_key(fields.get("sec-websocket-key", []))
        or _accept(fields, compression)
    )


def accept_value(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (§4.2.2, 5.4)."""
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _check_http(
    method: str, version: tuple[int, int], connection: list[str], has_body: bool
) -> Refusal | None:
    if method != "GET":  # §4.2.1 (1)
        return Refusal(400, "ERROR: WebSocket must be initiated with a GET request.")
    if version < (1, 1):
        return Refusal(400, "ERROR: WebSocket needs HTTP/1.1 or later.")
    if "upgrade" not in connection:  # §4.2.1 (4)
        return Refusal(400, "ERROR: The Connection header of a WebSocket must contain Upgrade.")
    if "close" in connection:
        return Refusal(400, "ERROR: Connection: close contradicts an upgrade.")
    if has_body:
        return Refusal(400, "ERROR: A WebSocket handshake must not have a body.")
    return None


def _check_version(values: list[str]) -> Refusal | None:
    if values == ["13"]:
        return None
    # §4.2.2 (4): say which versions are understood. RFC 9110 §15.5.22: a 426 names the protocol.
    return Refusal(
        426,
        "ERROR: The requested WebSocket version is not supported.",
        (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")),
        upgrade=True,
    )


def _check_key(values: list[str]) -> Refusal | None:
    if not values or values == [""]:
        return Refusal(400, "ERROR: Missing Sec-WebSocket-Key")
    if len(values) > 1:  # §11.3.1
        return Refusal(400, "ERROR: More than one Sec-WebSocket-Key")
    try:
        decoded = binascii.a2b_base64(values[0].encode("latin-1"), strict_mode=True)
    except ValueError:
        decoded = b""
    if len(decoded) != _KEY_BYTES:  # §4.2.1 (5)
        return Refusal(400, "ERROR: Sec-WebSocket-Key is not base64 of 16 bytes")
    return None


def _accept(fields: dict[str, list[str]], compression: bool) -> Accept:
    protocols: list[str] = []
    for value in fields.get("sec-websocket-protocol", []):
        protocols += [token for item in value.split(",") if (token := item.strip(" \t"))]
    agreed = None
    if compression:
        agreed = deflate.negotiate(", ".join(fields.get("sec-websocket-extensions", [])))
    return Accept(accept_value(fields["sec-websocket-key"][0]), tuple(protocols), agreed)


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")]
