from __future__ import annotations

import asyncio

from common.link.records import REQUEST
from tests.gateway.support import cut_links, settle, world

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
QUICK = {"link_reconnect_min_s": 0.001, "link_reconnect_max_s": 0.002}


async def test_shards_take_turns() -> None:
    async with world(shards=3) as w:
        client = w.connect()
        for _ in range(9):
            client.send(GET)
            await client.read_response()
        assert [len(shard.of_kind(REQUEST)) for shard in w.shards] == [3, 3, 3]


async def test_a_shard_that_is_down_is_passed_over_and_comes_back() -> None:
    async with world(shards=2, **QUICK) as w:
        listening = dict(w.network._listening)
        del w.network._listening["shard-0"]
        cut_links(w, 0)
        await settle()
        client = w.connect()
        for _ in range(4):
            client.send(GET)
            assert (await client.read_response()).status == 400
        assert len(w.shards[1].of_kind(REQUEST)) == 4
        w.network._listening.update(listening)
        await w.shards[0].until(lambda: w.shards[0].link is not None)
        await settle()
        for _ in range(2):
            client.send(GET)
            await client.read_response()
        assert len(w.shards[0].of_kind(REQUEST)) == 1


async def test_a_stranger_at_a_shards_name_is_refused() -> None:
    async with world(shards=2, **QUICK) as w:
        w.network._listening["shard-0"] = w.network._listening["shard-1"]
        cut_links(w, 0)
        await asyncio.sleep(0.05)
        assert not w.gateway.router.relays[0].is_up
        assert w.gateway.router.shards_up == 1
