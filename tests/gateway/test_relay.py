"""Between links and clients: many clients, lost links, flow control."""

from __future__ import annotations

import pytest

from common.close_reasons import RESTARTED_TEXT
from common.link.records import (
    BODY_STREAM,
    CALL,
    CLOSED,
    PAUSE,
    REQUEST,
    RESUME,
    SETTLED,
    UNSETTLED,
    Record,
)
from tests.gateway.support import (
    close_frame,
    cut_links,
    frame,
    handshake,
    server_close,
    server_text,
    settle,
    world,
)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_one_payload_for_many_clients() -> None:
    async with world() as w:
        clients = [await w.upgraded() for _ in range(20)]
        await w.shard.until(lambda: len(w.shard.sockets) == 20)
        assert w.shard.link is not None
        w.shard.link.session.multicast(999_999, "nobody is there")
        for text in ("hello", "x" * 20_000):
            for number in w.shard.sockets:
                w.shard.link.multicast(number, text)
        for client in clients:
            await client.expect(server_text("hello"))
            assert len(await client.read(20_004)) == 20_004


async def test_what_is_for_one_client_in_one_batch_is_one_write() -> None:
    async with world() as w:
        client = await w.upgraded()
        await settle()
        [connection] = w.gateway.router.relays[0].connections.values()
        writes: list[bytes] = []
        connection.transport.write = writes.append  # type: ignore[method-assign, assignment]
        assert w.shard.link is not None
        for text in ("a", "b", "c"):
            w.shard.link.unicast(connection.id, text)
        await settle()
        assert writes == [server_text("a") + server_text("b") + server_text("c")]
        client.transport.abort()


async def test_the_loss_of_a_link_leaves_nothing_hanging() -> None:
    """Requests 503 with Retry-After, WebSockets 1012; both ends of both kinds are released."""
    async with world() as w:
        client = await w.upgraded()
        kept: list[Record] = []
        w.shard.on_request = kept.append
        plain, upgrade, streaming = w.connect(), w.connect(), w.connect()
        plain.send(GET)
        upgrade.send(handshake())
        streaming.send(GET)
        await w.shard.until(lambda: len(kept) == 3)
        last = next(r for r in kept if r[1] == max(record[1] for record in kept))
        w.shard.respond(last[1], 200, [], mode=BODY_STREAM)
        await streaming.until(lambda: b"200 OK" in streaming.received)
        cut_links(w)
        for waiting in (plain, upgrade):
            response = await waiting.read_response()
            assert (response.status, response.header("Retry-After")) == (503, "1")
        await streaming.until(lambda: streaming.lost)
        await client.expect(server_close(1012, RESTARTED_TEXT))
        client.send(frame("x") + close_frame(1012))
        assert await client.read_all() == b""


async def test_an_orphan_that_does_not_answer_is_dropped() -> None:
    async with world() as w:
        client = await w.upgraded()
        cut_links(w)
        await client.expect(server_close(1012, RESTARTED_TEXT))
        await w.pass_time(6)
        assert client.lost


async def test_an_orphan_is_not_told_of_to_the_shards_successor() -> None:
    async with world(link_reconnect_min_s=0.001, link_reconnect_max_s=0.001) as w:
        client = await w.upgraded()
        first = w.shard.link
        cut_links(w)
        await client.expect(server_close(1012, RESTARTED_TEXT))
        await w.shard.until(lambda: w.shard.link not in (None, first))
        client.send(frame("x") + close_frame(1012))
        assert await client.read_all() == b""
        await settle()
        assert not w.shard.of_kind(CLOSED)
        await w.upgraded()


async def test_a_close_under_way_when_the_link_goes_is_answered() -> None:
    async with world() as w:
        w.shard.answers_close = False
        client = await w.upgraded()
        client.send(close_frame(4000))
        await w.shard.next_of(CLOSED)
        cut_links(w)
        assert await client.read_all() == server_close(4000)


async def test_without_a_shard() -> None:
    async with world() as w:
        w.network._listening.clear()
        cut_links(w)
        await settle()
        client = w.connect()
        for data in (GET, handshake()):
            client.send(data)
            await settle()
            assert len(w.gateway.router.lobby) == 1
            await w.pass_time(31)
            response = await client.read_response()
            assert (response.status, response.header("Retry-After")) == (503, "1")
            assert response.body == b"ERROR: No shard is up just now."
        assert not w.gateway.health().ok


async def test_a_request_waits_for_a_shard() -> None:
    async with world() as w:
        listening = dict(w.network._listening)
        w.network._listening.clear()
        cut_links(w)
        await settle()
        client = w.connect()
        client.send(GET + GET)
        await settle()
        assert not client.received
        w.network._listening.update(listening)
        for _ in range(2):
            assert (await client.read_response()).status == 400
        assert not w.gateway.router.lobby


async def test_a_101_whose_home_is_down() -> None:
    async with world(shards=2) as w:
        for shard in w.shards:
            shard.on_request = lambda record, shard=shard: shard.respond(  # type: ignore[misc]
                record[1], 101, [], socket=[7, 1, 1]
            )
        client = w.connect()
        client.send(handshake())
        assert (await client.read_response()).status == 503


async def test_a_socket_may_be_at_home_on_another_shard() -> None:
    async with world(shards=2) as w:
        one, two = w.shards
        for shard in w.shards:
            shard.on_request = lambda record, shard=shard: shard.respond(  # type: ignore[misc]
                record[1], 101, [], socket=[1, 55, 3]
            )
        for _ in range(2):
            client = await w.upgraded()
            client.send(frame("x"))
            await client.expect(server_text("[Durable Object] currentlyConnectedWebSockets: 0"))
        assert not one.sockets
        assert set(two.sockets.values()) == {55}


async def test_a_flooding_client_is_paused_while_the_link_is_congested() -> None:
    """G6: at most a few MiB wait; everything arrives once the shard goes on."""
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        flood, other = await w.upgraded(), await w.upgraded()
        await w.shard.until(lambda: len(w.shard.sockets) == 2)
        shard_end = w.network.lines["shard-0"][0][1]
        shard_end.stall()
        message = frame(b"x" * 60_000)
        for _ in range(400):
            flood.send(message)
            await settle(3)
        session = w.gateway.router.relays[0].session
        assert session is not None
        assert session.congested
        assert session.queued_bytes < 4 << 20
        assert flood.transport.get_write_buffer_size() > 8 << 20
        other.send(frame("hello"))
        await settle()
        shard_end.resume()
        await w.shard.until(lambda: len(w.shard.messages()) == 401)
        assert "hello" in w.shard.messages()
        assert not session.congested
        flood.send(frame("again"))
        await w.shard.until(lambda: len(w.shard.messages()) == 402)


async def test_a_flood_of_tiny_frames_lets_others_have_their_turn() -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        flood, other = await w.upgraded(), await w.upgraded()
        flood.send(frame("x") * 20_000)
        await settle(2)
        other.send(frame("hello"))
        await w.shard.until(lambda: "hello" in w.shard.messages())
        assert len(w.shard.messages()) < 10_000
        await w.shard.until(lambda: len(w.shard.messages()) == 20_001)
        flood.send(frame("again"))
        await w.shard.until(lambda: w.shard.messages()[-1] == "again")


async def test_a_paused_flood_stops_in_the_middle_of_a_chunk() -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        flood = await w.upgraded()
        [number] = w.shard.sockets
        flood.send(frame("x") * 20_000)
        await w.shard.until(lambda: len(w.shard.messages()) > 0)
        w.shard.urgent([PAUSE, [number]])
        await settle()
        stopped_at = len(w.shard.messages())
        assert stopped_at < 10_000
        await settle()
        assert len(w.shard.messages()) == stopped_at
        w.shard.urgent([RESUME, [number]])
        await w.shard.until(lambda: len(w.shard.messages()) == 20_000)


async def test_congestion_that_is_over_within_a_turn_pauses_nobody_for_good() -> None:
    async with world() as w:
        w.shard.on_message = lambda connection, payload: None
        client = await w.upgraded()
        for round_ in range(1, 4):
            client.send(frame(b"x" * 3_000_000) * 2)
            await w.shard.until(lambda: len(w.shard.messages()) == 2 * round_)  # noqa: B023


async def test_which_connections_have_frames_that_are_not_handled_is_known() -> None:
    """G7: the raw material of the decision whom to hold when a shard dies."""
    async with world() as w:
        one, two = await w.upgraded(), await w.upgraded()
        await w.shard.until(lambda: len(w.shard.sockets) == 2)
        relay = w.gateway.router.relays[0]
        a, b = (relay.connections[number] for number in w.shard.sockets)
        one.send(frame("x"))
        await one.read(10)
        await settle()
        assert relay.session is not None
        assert 0 < a.forwarded_seq <= relay.session.acked_seq + 1
        assert b.forwarded_seq == 0
        w.shard.urgent([UNSETTLED, [a.id, b.id, 999]])
        await settle()
        assert set(relay.unsettled) == {a.id, b.id}
        w.shard.urgent([SETTLED, [a.id]])
        two.transport.abort()
        await settle()
        assert not relay.unsettled


@pytest.mark.parametrize(
    "record",
    [
        [CALL, 1, None, "x", b""],
        [REQUEST, 1, None, []],
        [UNSETTLED, 5],
        [CLOSED, 1, 1000, "", True],
    ],
)
async def test_a_shard_that_talks_nonsense_loses_its_link_and_nothing_else(record: Record) -> None:
    async with world(shards=2, link_reconnect_min_s=0.001, link_reconnect_max_s=0.001) as w:
        client = w.connect()
        w.shard.send(record)
        await w.shard.until(lambda: w.gateway.router.relays[0].links == 2)
        client.send(GET)
        assert (await client.read_response()).status == 400


async def test_records_about_what_is_over_are_ignored() -> None:
    from common.link.records import BODY, BODY_ABORT, BODY_CREDIT, BODY_END, CLOSE, FAILED

    async with world() as w:
        for record in (
            [BODY, 99, b"x"],
            [BODY_END, 99],
            [BODY_ABORT, 99, "x"],
            [FAILED, 99, {}],
            [CLOSE, 99, 1000, ""],
        ):
            w.shard.send(record)
        w.shard.urgent([BODY_CREDIT, 99, 5])
        w.shard.urgent([PAUSE, [99]])
        w.shard.respond(99, 200, [])
        client = await w.upgraded()
        client.send(frame("x"))
        await client.read(10)
