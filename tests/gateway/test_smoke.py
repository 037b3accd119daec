from __future__ import annotations

from common.link.records import CLOSED
from tests.gateway.support import (
    CLOSE_REASON, close_frame, frame, server_close, server_text, world,
)


async def test_echo_path() -> None:
    async with world() as w:
        client = await w.upgraded()
        client.send(frame("hello"))
        await client.expect(server_text("[Durable Object] currentlyConnectedWebSockets: 1"))
        client.send(close_frame(1000, "bye"))
        await client.expect(server_close(1000, CLOSE_REASON))
        assert await client.read_all() == b""
        assert w.shard.of_kind(CLOSED)[0][2:] == [1000, "bye", True]


async def test_plain_path() -> None:
    async with world() as w:
        client = w.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = await client.read_response()
        assert response.status_line == "HTTP/1.1 400 Bad Request"
        print(response.headers)
        client.send(b"GET /websocket HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = await client.read_response()
        print(response.headers, response.body)
        assert response.status == 426
