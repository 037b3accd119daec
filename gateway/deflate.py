"""permessage-deflate (RFC 7692): negotiation, compression, decompression; no I/O.

Both directions are always negotiated without context takeover (§7.1.1). An idle connection then
costs nothing (zlib's window would be 40 to 300 KB), one compressor serves all connections, and a
broadcast is compressed once. A server may ask for both also when the client did not offer them.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

_TAIL: Final = b"\x00\x00\xff\xff"
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'\s*({_NAME})\s*(?:=\s*("(?:[^"\\]|\\.)*"|{_NAME})\s*)?')
_MIN_BITS: Final = 9
"""zlib cannot keep to a window of 8 bits, so an offer that asks for it is declined."""
_MAX_BITS: Final = 15


@dataclass(frozen=True, slots=True)
class Deflate:
    """What was agreed with one client.

    Attributes:
        server_bits: window of what the server sends, 9..15.
        response: value of ``Sec-WebSocket-Extensions`` in the 101.
    """

    server_bits: int
    response: str


def negotiate(offers: str) -> Deflate | None:
    """The first usable offer in a ``Sec-WebSocket-Extensions`` header; ``None`` if there is none.

    An offer with an unknown, repeated or malformed parameter is passed over (§7.1).
    """
    for offer in _split(offers, ","):
        name, *parameters = _split(offer, ";")
        if name.strip().lower() == "permessage-deflate":
            agreed = _agree(parameters)
            if agreed is not None:
                return agreed
    return None


def _agree(parameters: list[str]) -> Deflate | None:
    bits = _MAX_BITS
    seen: set[str] = set()
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in seen:
            return None
        name, value = match[1], match[2]
        seen.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "client_max_window_bits":
            if value is not None and _bits(value) is None:
                return None
        elif name == "server_max_window_bits":
            asked = _bits(value) if value is not None else None
            if asked is None or asked < _MIN_BITS:
                return None
            bits = asked
        else:
            return None
    response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if "server_max_window_bits" in seen:
        response += f"; server_max_window_bits={bits}"
    return Deflate(bits, response)


def _bits(value: str) -> int | None:
    text = value.strip('"')
    if re.fullmatch("[1-9][0-9]?", text) and 8 <= int(text) <= _MAX_BITS:
        return int(text)
    return None


def _split(text: str, separator: str) -> list[str]:
    """Split at *separator* outside quotes."""
    if '"' not in text:
        return text.split(separator)
    return re.findall(rf'(?:"(?:[^"\\]|\\.)*"|[^{separator}"])+', text)


class Deflater:
    """Compresses messages, each by itself. One serves every connection of its window size."""

    def __init__(self, bits: int = _MAX_BITS) -> None:
        self._compressor = zlib.compressobj(wbits=-bits)

    def __call__(self, payload: bytes | bytearray | memoryview) -> bytes:
        """The compressed message, without the tail that §7.2.1 removes."""
        compressor = self._compressor
        data = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        return data[:-4] if data.endswith(_TAIL) else data


def inflate(payload: bytearray, max_bytes: int) -> bytearray:
    """The message in *payload*, see :class:`gateway.frames.Inflate`."""
    if not payload:
        return payload  # an empty payload counts as an empty message
    inflater = zlib.decompressobj(wbits=-_MAX_BITS)
    try:
        data = inflater.decompress(bytes(payload) + _TAIL, max_bytes + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(data) > max_bytes:
        raise OverflowError
    # A final block may come before the tail, and padding before that (§7.2.3.4).
    if inflater.eof and inflater.unused_data.lstrip(b"\x00") not in (b"", b"\xff\xff"):
        raise ValueError("data behind the final block")
    return bytearray(data)
