"""Rules of `local.preflight`: what can be known to be wrong is said before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from common.errors import ConfigError
from local.preflight import check_address


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        # As a gateway of another cluster would: willing to share.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def test_a_port_that_another_cluster_would_share_is_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(ConfigError, match="listens there already") as raised:
        check_address("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "--port" in str(raised.value)


def test_a_port_taken_on_one_interface_is_refused_on_all(listener: socket.socket) -> None:
    with pytest.raises(ConfigError, match="listens there already"):
        check_address("0.0.0.0", listener.getsockname()[1])


def test_a_port_whose_last_connections_linger_is_free() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the address in TIME_WAIT
        assert client.recv(1) == b""
    check_address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_address(host, 8787)
    assert "--host" in str(raised.value)
