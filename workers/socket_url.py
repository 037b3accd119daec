"""The arguments of ``WebSocket.new(url, protocols)``, checked (WHATWG WebSockets §3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from workers.url import URL

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def socket_url(url: object) -> str:
    """Return the ``ws:`` or ``wss:`` URL that *url* names.

    Raises:
        SyntaxError: it is no URL, of another scheme, or has a fragment.
    """
    text = str(url)
    try:
        parsed = URL(text)
    except TypeError:
        raise SyntaxError(f"WebSocket Constructor: The url is invalid: {text}") from None
    scheme, _, rest = parsed.href.partition(":")
    if scheme not in _SCHEMES:
        raise SyntaxError(
            f"WebSocket Constructor: The url scheme must be either ws or wss, not {scheme}."
        )
    if "#" in rest:
        raise SyntaxError("WebSocket Constructor: The url fragment must be empty.")
    return f"{_SCHEMES[scheme]}:{rest}"


def subprotocols(protocols: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the subprotocols to offer.

    Raises:
        SyntaxError: one of them is no token, or is there twice (RFC 6455 §4.1).
    """
    if protocols is None:
        return ()
    offered = (protocols,) if isinstance(protocols, str) else tuple(map(str, protocols))
    for index, protocol in enumerate(offered):
        if _TOKEN.fullmatch(protocol) is None:
            raise SyntaxError(f"WebSocket Constructor: The protocol {protocol!r} is invalid.")
        if protocol in offered[:index]:
            raise SyntaxError(f"WebSocket Constructor: The protocol {protocol!r} is there twice.")
    return offered
