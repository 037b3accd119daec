"""How commands reach the supervisor that runs here: ``RUN_DIR/supervisor.sock``.

One command a connection, one JSON object a line. The command: ``{"command": "reload"}``. The
answer: any number of ``{"say": "text for people"}``, then ``{"done": true}`` or ``{"error": "why
not"}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from common.errors import LimpetError

SOCKET_NAME: Final = "supervisor.sock"

Say = Callable[[str], None]
Command = Callable[[dict[str, Any], Say], Awaitable[None]]
"""Carries out a command; raises :class:`LimpetError` if it cannot."""


class Control:
    """The supervisor's side.

    Args:
        commands: what there is, by name.
    """

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands
        self._server: asyncio.AbstractServer | None = None
        self._busy = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """A command is under way."""
        return self._busy.locked()

    async def start(self, run_dir: Path) -> None:
        """Listen; the socket is for this user only, as its folder is."""
        path = run_dir / SOCKET_NAME
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def write(**answer: object) -> None:
            writer.write(json.dumps(answer).encode() + b"\n")

        try:
            asked = json.loads(await reader.readline())
            command = self._commands.get(asked.get("command"))
            if command is None:
                write(error=f"unknown command: {asked!r}")
            elif self._busy.locked():
                write(error="another command is under way")
            else:
                async with self._busy:
                    await command(asked, lambda text: write(say=text))
                write(done=True)
        except LimpetError as error:
            write(error=str(error))
        except (ValueError, AttributeError) as error:
            write(error=f"malformed command: {error}")
        finally:
            with suppress(OSError):
                await writer.drain()
            writer.close()


def ask(run_dir: Path, command: dict[str, Any], say: Say) -> None:
    """Have the supervisor of *run_dir* carry out a command; returns when it is done.

    Raises:
        LimpetError: nobody is there, or it says why not.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(run_dir / SOCKET_NAME))
        except OSError as error:
            raise LimpetError(f"no cluster runs in {run_dir} ({error.strerror})") from None
        sock.sendall(json.dumps(command).encode() + b"\n")
        for line in sock.makefile():
            answer = json.loads(line)
            if "say" in answer:
                say(answer["say"])
            elif "error" in answer:
                raise LimpetError(answer["error"])
            else:
                return
    raise LimpetError("the supervisor ended before it had answered")
