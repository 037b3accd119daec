"""What can be known to be wrong before any process starts, so that it is said once and at once."""

from __future__ import annotations

import errno
import socket

from common.errors import ConfigError
from common.settings import Settings
from local.rundir import make_writable


def preflight(settings: Settings) -> None:
    """Check the address and the data directory.

    Raises:
        ConfigError: the port is taken, the address is not ours, or the directory takes no files.
    """
    make_writable(settings.data_dir)
    check_address(settings.host, settings.port)


def check_address(host: str, port: int) -> None:
    """Check that nobody listens on `port`.

    The gateways share their port (SO_REUSEPORT), so a second cluster on the same port would not
    fail: it would silently take half of the first one's clients. A bind without that option does
    fail.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ConfigError(
            f"the address is unknown: {error.strerror}",
            where=f"HOST={host}",
            remedy="Use an address of this machine, such as 127.0.0.1 or 0.0.0.0, with --host.",
        ) from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            # Without this, connections of a cluster that has just stopped (TIME_WAIT) would count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise _refusal(error, where) from error


def _refusal(error: OSError, where: str) -> ConfigError:
    match error.errno:
        case errno.EADDRINUSE:
            return ConfigError(
                "another program listens there already",
                where=where,
                remedy="Stop it, or choose another port with --port.",
            )
        case errno.EACCES:
            return ConfigError(
                "this user may not listen on that port",
                where=where,
                remedy="Choose a port from 1024 up with --port.",
            )
        case errno.EADDRNOTAVAIL:
            return ConfigError(
                "this machine does not have that address",
                where=where,
                remedy="Use one that it has, such as 127.0.0.1 or 0.0.0.0, with --host.",
            )
        case _:
            return ConfigError(
                f"cannot listen there: {error.strerror}",
                where=where,
                remedy="Choose another address with --host and --port.",
            )
