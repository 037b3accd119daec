"""Redirects as the Fetch standard follows them, decided without I/O (WHATWG Fetch §4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.url import URL

MAX_REDIRECTS: Final = 20
"""WHATWG Fetch §4.4, step 7."""
STATUSES: Final = frozenset({301, 302, 303, 307, 308})

_BODY_FIELDS: Final = frozenset(
    {
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-type",
    }
)
_SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""What one origin was told in confidence is not told to another."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One request of a chain.

    Attributes:
        method: upper-case.
        url: absolute.
        headers: as they go on the wire.
        body: bytes that can be sent again, or ``None``.
        streams: the body is a stream instead, which can be sent only once.
    """

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None = None
    streams: bool = False


def next_hop(hop: Hop, status: int, location: str) -> Hop:
    """The request that a redirect of *hop* asks for.

    Args:
        hop: what was sent.
        status: one of :data:`STATUSES`.
        location: the ``Location`` of the answer, possibly relative.

    Raises:
        TypeError: it leads nowhere, or would need a streamed body a second time.
    """
    try:
        url = URL(location, hop.url).href.partition("#")[0]
    except (TypeError, ValueError):
        raise TypeError(f"{hop.url} redirects to an invalid URL: {location}") from None
    method, body, streams = hop.method, hop.body, hop.streams
    dropped: frozenset[str] = frozenset()
    if (status in (301, 302) and method == "POST") or (
        status == 303 and method not in ("GET", "HEAD")
    ):
        method, body, streams = "GET", None, False
        dropped |= _BODY_FIELDS
    elif streams:
        raise TypeError(
            f"{hop.url} redirects with status {status}, but the request's body is a stream, "
            "which cannot be sent again: pass it as bytes, or handle redirects yourself "
            '(redirect="manual")'
        )
    if URL(url).origin != URL(hop.url).origin:
        dropped |= _SECRET_FIELDS
    headers = [(name, value) for name, value in hop.headers if name.lower() not in dropped]
    return Hop(method, url, headers, body, streams)
