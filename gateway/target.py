"""The URL a request is for: target and Host as they came, made the one absolute URL the app sees.

Normalised as the WHATWG URL Standard does on parsing, because that is what ``request.url`` is on
Cloudflare: dot segments are resolved, back slashes are slashes, the fragment is dropped, and
percent-encoding is left as it is. What no URL may hold has been refused by the HTTP parser.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.refusal import Refusal

_HOST: Final = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::(?P<port>\d{0,5}))?"
)
_ABSOLUTE: Final = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#\\]*)", re.IGNORECASE)
_PLAIN: Final = re.compile(r"(?:/(?!\.|%2[eE])[A-Za-z0-9._~!$&'()*+,;=:@%|-]*)+")
"""Paths that normalisation would leave as they are."""
_ENCODED: Final = {code: f"%{code:02X}" for code in [*range(0x21), 0x22, 0x3C, 0x3E, 0x7F]}
_PATH_ENCODED: Final = {**_ENCODED, 0x5E: "%5E", 0x60: "%60", 0x7B: "%7B", 0x7D: "%7D"}
_QUERY_ENCODED: Final = {**_ENCODED, 0x27: "%27"}
_DOT: Final = frozenset({".", "%2e"})
_DOT_DOT: Final = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def absolute_url(target: str, host: str) -> str | Refusal:
    """The URL for a request target (RFC 9112 §3.2) and the value of its ``Host`` header.

    Both are strings of Latin-1 characters. A target in absolute form wins over the header (§3.2.2).
    """
    scheme = "http"
    authority = _authority(host, scheme)
    if authority is None:
        return Refusal(400, "ERROR: The Host header is empty or not a host.", close=False)
    if target[:1] != "/":
        if target == "*":  # §3.2.4: of the server as a whole
            return f"http://{authority}/"
        match = _ABSOLUTE.match(target)
        if match is None:
            return Refusal(400, "ERROR: The request target is neither a path nor an http URL.")
        scheme = match["scheme"].lower()
        authority = _authority(match["host"], scheme)
        if authority is None:
            return Refusal(400, "ERROR: The request target names no host.")
        target = target[match.end() :]
    path, question, query = target.partition("#")[0].partition("?")
    if _PLAIN.fullmatch(path) is None:
        path = _normal_path(path)
    if question:
        return f"{scheme}://{authority}{path}?{query.translate(_QUERY_ENCODED)}"
    return f"{scheme}://{authority}{path}"


def _authority(host: str, scheme: str) -> str | None:
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    port = match["port"]
    if not port or port == _DEFAULT_PORTS[scheme]:
        return match["name"].lower()
    number = int(port)
    return f"{match['name'].lower()}:{number}" if number < 65536 else None


def _normal_path(path: str) -> str:
    segments = path.replace("\\", "/").split("/")[1:] or [""]
    output: list[str] = []
    last = len(segments) - 1
    for index, segment in enumerate(segments):
        lower = segment.lower()
        if lower in _DOT_DOT:
            if output:
                output.pop()
            if index == last:
                output.append("")
        elif lower in _DOT:
            if index == last:
                output.append("")
        else:
            output.append(segment.translate(_PATH_ENCODED))
    return "/" + "/".join(output)
