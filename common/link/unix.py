"""Links over Unix sockets: ``RUN_DIR/<name>.sock``.

Two things keep strangers out: the directory is accessible to its owner only (0700), and each side
checks the uid of the other (``SO_PEERCRED``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Final, cast

from common.errors import LinkDown, LinkError
from common.link.driver import Link
from common.link.transport import LinkFactory

BACKLOG: Final = 128
SOCKET_BUFFER_BYTES: Final = 1 << 20
"""Asked of the kernel for each direction, which may grant less. A batch that fits is one write."""
MAX_PATH_BYTES: Final = 107 if sys.platform.startswith("linux") else 103
"""``sizeof(sun_path) - 1``: unix(7); 103 on the BSDs and macOS."""


class UnixTransport:
    """A cluster's Unix sockets in one directory.

    Args:
        run_dir: made with mode 0700 if it is missing.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def path(self, name: str) -> Path:
        """Where the process of that name listens.

        Raises:
            LinkError: longer than a socket's path may be.
        """
        path = self._run_dir / f"{name}.sock"
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise LinkError(
                f"{path} is longer than the {MAX_PATH_BYTES} bytes of a Unix socket's path: "
                "set RUN_DIR to a shorter one"
            )
        return path

    async def listen(self, name: str, factory: LinkFactory) -> UnixListener:
        """Accept links as *name*; a socket file that a dead process left is replaced.

        The caller holds the lock of that name, so no living process can be listening there.

        Raises:
            LinkError: the path is too long, or the system refuses it.
        """
        path = self.path(name)
        loop = asyncio.get_running_loop()
        try:
            self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._run_dir.chmod(0o700)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            server = await loop.create_unix_server(
                lambda: _Checked(factory), path=str(path), backlog=BACKLOG
            )
        except OSError as error:
            raise LinkError(f"cannot listen on {path}: {error.strerror or error}") from None
        return UnixListener(server, path)

    async def dial(self, name: str, factory: LinkFactory) -> Link:
        """Open a link to the process that listens as *name*.

        Raises:
            LinkDown: nobody listens there, or it cannot take more.
            LinkError: the path is too long, or the other process is not one of ours.
        """
        path = self.path(name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _widen(sock)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(path))
            sock.getpeername()  # asyncio takes a full backlog (EAGAIN) for a connection
            _check_peer(sock)
            _, link = await loop.create_unix_connection(factory, sock=sock)
        except OSError as error:
            sock.close()
            raise LinkDown(f"{path}: {error.strerror or error}") from None
        except BaseException:
            sock.close()
            raise
        return link


class UnixListener:
    """A socket file that accepts links."""

    def __init__(self, server: asyncio.AbstractServer, path: Path) -> None:
        self._server = server
        self._path = path

    async def close(self) -> None:
        """Stop accepting and remove the file."""
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class _Checked(asyncio.Protocol):
    """Stands in until the peer's uid is known to be ours, then makes way for the link."""

    def __init__(self, factory: LinkFactory) -> None:
        self._factory = factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        sock = transport.get_extra_info("socket")
        try:
            _check_peer(sock)
        except LinkError:
            transport.abort()
            return
        _widen(sock)
        # uvloop picks the way of reading when reading starts: stop it around the change.
        transport.pause_reading()
        link = self._factory()
        transport.set_protocol(link)
        link.connection_made(transport)
        transport.resume_reading()


def _widen(sock: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)


def _check_peer(sock: socket.socket) -> None:
    if not sys.platform.startswith("linux"):
        return  # the directory's mode is what protects elsewhere
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid != os.geteuid():
        raise LinkError(f"the process at the other end runs as uid {uid}, not {os.geteuid()}")
