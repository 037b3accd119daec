"""How a process tells the one that started it that it serves, or why it cannot.

It writes one line of JSON to the descriptor that READY_FD names: ``{"ready": {...}}`` or
``{"error": "message for people"}``. A process that was started to take another one's place says
``{"standby": {}}`` first, when it could. Without READY_FD (a container, a shell) nobody waits for
it and saying so has no effect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import MutableMapping

READY_FD: Final = "READY_FD"
"""The environment variable that names the descriptor."""

# Escaped as JSON this is below 49,000 bytes: it fits a pipe (64 KiB) without blocking the writer,
# and asyncio.StreamReader's limit on a line.
_MESSAGE_MAX_CHARS: Final = 8_000


@dataclass(frozen=True, slots=True)
class Ready:
    """The process serves.

    Attributes:
        info: what it tells about itself, such as the index it has claimed.
    """

    info: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The process cannot serve and is about to end.

    Attributes:
        message: for people; may have several lines.
    """

    message: str


@dataclass(frozen=True, slots=True)
class Standby:
    """The process could serve, and waits for another one to make room."""


Report: TypeAlias = Ready | Failed | Standby


@final
class Readiness:
    """The child's side: says one thing, once, and may say before that it stands by."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Readiness:
        """Take the descriptor that READY_FD names.

        The variable is removed and the descriptor made close-on-exec, so that programs which this
        process starts inherit neither.

        Raises:
            ValueError: READY_FD is not a number.
            OSError: READY_FD names no open descriptor.
        """
        text = environ.pop(READY_FD, None)
        if text is None:
            return cls(None)
        fd = int(text)
        os.set_inheritable(fd, False)
        return cls(fd)

    def ready(self, info: Mapping[str, object] | None = None) -> None:
        """Say that this process serves. No effect once something has been said.

        Args:
            info: what JSON can carry, a few hundred bytes.
        """
        self._say({"ready": dict(info or {})})

    def failed(self, message: str) -> None:
        """Say why this process cannot serve. No effect once something has been said."""
        self._say({"error": message[:_MESSAGE_MAX_CHARS]})

    def standby(self) -> None:
        """Say that this process could serve and waits to take over."""
        if self._fd is not None:
            with suppress(OSError):
                os.write(self._fd, json.dumps({"standby": {}}).encode() + b"\n")

    def _say(self, report: Mapping[str, object]) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        # A parent that is gone cannot be told: that it is gone is noticed elsewhere.
        with suppress(OSError), os.fdopen(fd, "wb") as pipe:
            pipe.write(json.dumps(report).encode() + b"\n")


async def read_report(reader: asyncio.StreamReader) -> Report | None:
    """Wait for what a child says; the parent's side.

    Cancelling leaves the reader as it was.

    Returns:
        The report, or ``None`` if the child closed its end, or ended, without one. What cannot be
        understood counts as a failure.
    """
    try:
        line = await reader.readline()
    except ValueError:
        return Failed("reported something longer than a report")
    return parse_report(line) if line else None


def parse_report(line: bytes) -> Report:
    """Return what one line says; a line that says nothing sensible is a failure."""
    with suppress(ValueError, RecursionError):
        said = json.loads(line)
        if isinstance(said, dict) and isinstance(said.get("ready"), dict):
            return Ready(said["ready"])
        if isinstance(said, dict) and isinstance(said.get("standby"), dict):
            return Standby()
        if isinstance(said, dict) and isinstance(said.get("error"), str):
            return Failed(said["error"])
    return Failed(f"reported what is no report: {line[:100]!r}")
