"""Request bodies as they come off the wire (RFC 9112 §6-7), as machines without I/O."""

from __future__ import annotations

import re
from typing import Final, Protocol

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER_LINE: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*"  # RFC 9110 §5.1, §5.5
)
LINES_PER_FEED: Final = 512
"""Chunks of a chunked body that one call reads at most, some 0.5 ms of work."""
MAX_LINE_BYTES: Final = 4096
"""Longest chunk-size line with its extensions, and longest trailer section."""


class MalformedBodyError(Exception):
    """The framing is broken: nobody knows where the next request begins."""


class Body(Protocol):
    """One body being received."""

    @property
    def is_complete(self) -> bool:
        """The whole body has come."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of the body that is in *data*, and what is to be fed again.

        That is what lies behind the end of a complete body, and of others what was too much for one
        call.

        Raises:
            MalformedBodyError: not a body.
        """


class LengthBody:
    """A body of a known length.

    Args:
        length: bytes, at least 1.
    """

    __slots__ = ("_missing",)

    def __init__(self, length: int) -> None:
        self._missing = length

    @property
    def is_complete(self) -> bool:
        """See :class:`Body`."""
        return not self._missing

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`Body`."""
        if len(data) <= self._missing:
            self._missing -= len(data)
            return data, b""
        taken, rest = data[: self._missing], data[self._missing :]
        self._missing = 0
        return taken, rest


class ChunkedBody:
    """A body in chunks (RFC 9112 §7.1). Extensions and trailers are dropped."""

    __slots__ = ("_line", "_missing", "_state", "_trailer_bytes")

    _SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._missing = 0
        self._line = b""
        self._trailer_bytes = 0

    @property
    def is_complete(self) -> bool:
        """See :class:`Body`."""
        return self._state == self._DONE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`Body`."""
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        lines = LINES_PER_FEED
        while position < end and self._state != self._DONE and lines:
            if self._state == self._DATA:
                piece = data[position : position + self._missing]
                pieces.append(piece)
                position += len(piece)
                self._missing -= len(piece)
                if not self._missing:
                    self._state = self._DATA_END
            else:
                lines -= 1
                position = self._take_line(data, position)
        return b"".join(pieces), data[position:]

    def _take_line(self, data: bytes, position: int) -> int:
        newline = data.find(b"\n", position)
        stop = len(data) if newline < 0 else newline + 1
        if len(self._line) + stop - position > MAX_LINE_BYTES:
            raise MalformedBodyError("a line of the chunked body is too long")
        self._line += data[position:stop]
        if newline >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise MalformedBodyError("a line of the chunked body does not end in CR LF")
            self._read_line(line[:-2])
        elif self._state == self._DATA_END and not b"\r\n".startswith(self._line):
            raise MalformedBodyError("a chunk is longer than its size")
        return stop

    def _read_line(self, line: bytes) -> None:
        if self._state == self._DATA_END:
            if line:
                raise MalformedBodyError("a chunk is longer than its size")
            self._state = self._SIZE
        elif self._state == self._SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise MalformedBodyError("a chunk size is not hexadecimal")
            self._missing = int(match[1], 16)
            self._state = self._DATA if self._missing else self._TRAILER
        elif not line:
            self._state = self._DONE
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_LINE_BYTES:
                raise MalformedBodyError("the trailers of the chunked body are too long")
            if _TRAILER_LINE.fullmatch(line) is None:
                # Who takes it for something else than we do may see a request where we see none.
                raise MalformedBodyError("a trailer of the chunked body is no header field")
