"""Which header fields pass between an app and the outside world.

An app may hand on a client's whole request (``fetch(request)``) or a server's whole answer. Fields
that speak of one connection only, or of a coding that was undone here, must not travel with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD

HOP_BY_HOP: Final = frozenset(
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
"""RFC 9110 §7.6.1."""
DECODED: Final = frozenset(
    {"gzip", "deflate"} | ({"br"} if HAS_BROTLI else set()) | ({"zstd"} if HAS_ZSTD else set())
)
"""The content codings that the HTTP client undoes."""
NULL_BODY: Final = frozenset({101, 204, 205, 304})

_NOT_SENT: Final = HOP_BY_HOP | {"content-length", "expect", "host"}
_HANDSHAKE: Final = frozenset(
    {
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
    }
)

Pairs = list[tuple[str, str]]


def fields_to_send(headers: Iterable[tuple[str, str]], *, upgrade: bool) -> Pairs:
    """The app's fields as they leave: the HTTP client adds ``Host`` and the framing itself."""
    dropped = _NOT_SENT | _HANDSHAKE if upgrade else _NOT_SENT
    kept: Pairs = []
    for name, value in headers:
        lower = name.lower()
        if lower == "accept-encoding":
            kept.append((name, _acceptable(value)))
        elif lower not in dropped:
            kept.append((name, value))
    return kept


def fields_received(raw: Iterable[tuple[bytes, bytes]], status: int, *, has_body: bool) -> Pairs:
    """A server's fields as the app sees them.

    ``Content-Encoding`` and ``Content-Length`` are left out where the body has been decoded: they
    would be wrong for whoever the app hands the response on to.
    """
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    dropped = HOP_BY_HOP
    if status == 101:
        dropped = dropped | _HANDSHAKE | {"content-length"}
    elif has_body:
        codings = [value.lower() for name, value in pairs if name.lower() == "content-encoding"]
        if len(codings) == 1 and codings[0] in DECODED:
            dropped = dropped | {"content-encoding", "content-length"}
    return [(name, value) for name, value in pairs if name.lower() not in dropped]


def content_length(headers: Iterable[tuple[str, str]]) -> int | None:
    """The length that the app promises for a streamed body."""
    for name, value in headers:
        if name.lower() == "content-length" and value.isascii() and value.isdigit():
            return int(value)
    return None


def _acceptable(value: str) -> str:
    """Those of the codings asked for that can be undone here."""
    asked = [each.strip() for each in value.split(",")]
    kept = [each for each in asked if each.partition(";")[0].strip().lower() in DECODED]
    return ", ".join(kept) or "identity"
