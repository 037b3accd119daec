"""A link that is kept: dialled again whenever it ends, with back-off, and never in a busy loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from common.errors import LinkDown, LinkError
from common.link.dialer import LinkDialer
from common.link.driver import HELLO_TIMEOUT_S, Link
from common.link.memory import MemoryNetwork, connect
from common.link.transport import LinkFactory
from local.virtual_time import on_virtual_time
from tests.common.link.support import Recorder, hello

MINIMUM_S, MAXIMUM_S = 0.1, 3.0


class Counting(MemoryNetwork):
    """Writes down when it was dialled, and lets a test decide what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled_at: list[float] = []
        self.before_dial: Callable[[], object] = lambda: None
        self.hangs = False

    async def dial(self, name: str, factory: LinkFactory) -> Link:
        self.dialled_at.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        self.before_dial()
        return await super().dial(name, factory)


class Shard:
    """A peer that can be up and down."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.recorders: list[Recorder] = []
        self.links: list[Link] = []

    async def up(self) -> None:
        self.listener = await self.network.listen("shard-0", self.accept)

    def accept(self) -> Link:
        self.recorders.append(Recorder())
        self.links.append(Link(hello("shard"), self.recorders[-1], prompt_acks=True))
        return self.links[-1]

    async def die(self) -> None:
        await self.listener.close()
        self.cut()

    def cut(self) -> None:
        self.network.lines["shard-0"][-1][1].cut()


def dialer(network: MemoryNetwork, recorder: Recorder) -> LinkDialer:
    return LinkDialer.with_backoff(
        "shard-0",
        network,
        hello("gateway"),
        recorder,
        minimum_s=MINIMUM_S,
        maximum_s=MAXIMUM_S,
        rng=random.Random(1),
        prompt_acks=False,
    )


class Flapping(Recorder):
    """May be told of several links, one after the other."""

    def link_records(self, link: Link, records: object) -> None: ...


@on_virtual_time
async def test_a_link_that_ends_is_dialled_again() -> None:
    network, recorder = Counting(), Flapping()
    shard = Shard(network)
    await shard.up()
    kept = dialer(network, recorder)
    kept.start()
    await asyncio.sleep(1)
    assert recorder.events == ["up"]
    await shard.die()
    await asyncio.sleep(60)
    assert recorder.events == ["up", "down"]
    await shard.up()
    await asyncio.sleep(MAXIMUM_S)
    assert recorder.events == ["up", "down", "up"]
    await kept.close(LinkDown("stop"))
    await asyncio.sleep(1)
    assert str(shard.recorders[-1].error) == "stop"
    assert recorder.events == ["up", "down", "up", "down"]


@on_virtual_time
async def test_tries_back_off_to_the_longest_delay_and_stay_there() -> None:
    network = Counting()
    kept = dialer(network, Recorder())
    kept.start()
    await asyncio.sleep(600)
    delays = [b - a for a, b in zip(network.dialled_at, network.dialled_at[1:], strict=False)]
    for number, delay_s in enumerate(delays):
        bound_s = min(MINIMUM_S * 2**number, MAXIMUM_S)
        assert bound_s / 2 - 1e-6 <= delay_s <= bound_s + 1e-6
    assert 600 / MAXIMUM_S <= len(network.dialled_at) <= 600 / (MAXIMUM_S / 2) + 10
    await kept.close(LinkDown("stop"))


@on_virtual_time
async def test_a_link_that_came_up_starts_the_back_off_anew() -> None:
    network, recorder = Counting(), Flapping()
    shard = Shard(network)
    kept = dialer(network, recorder)
    kept.start()
    await asyncio.sleep(60)
    await shard.up()
    await asyncio.sleep(MAXIMUM_S)
    lost_at = asyncio.get_running_loop().time()
    shard.cut()
    await asyncio.sleep(MINIMUM_S + 0.01)
    assert network.dialled_at[-1] - lost_at <= MINIMUM_S + 1e-6
    assert recorder.events == ["up", "down", "up"]
    await kept.close(LinkDown("stop"))
    await asyncio.sleep(1)


@on_virtual_time
async def test_a_peer_that_hangs_up_at_once_is_not_dialled_in_a_busy_loop() -> None:
    network, recorder = Counting(), Flapping()

    class Refusing(Recorder):
        def link_up(self, link: Link, peer: object) -> None:
            link.close(LinkDown("not you"))

    await network.listen("shard-0", lambda: Link(hello("shard"), Refusing(), prompt_acks=True))
    kept = dialer(network, recorder)
    kept.start()
    await asyncio.sleep(10)
    assert len(network.dialled_at) <= 10 / (MINIMUM_S / 2) + 1
    assert recorder.events.count("up") == recorder.events.count("down")
    await kept.close(LinkDown("stop"))
    await asyncio.sleep(1)


@on_virtual_time
async def test_a_peer_that_does_not_greet_counts_as_a_failure() -> None:
    network = Counting()

    class Mute(MemoryNetwork):
        async def dial(self, name: str, factory: LinkFactory) -> Link:
            network.dialled_at.append(asyncio.get_running_loop().time())
            link = factory()
            connect(link, asyncio.Protocol())
            return link

    kept = dialer(Mute(), Recorder())
    kept.start()
    await asyncio.sleep(10 * (HELLO_TIMEOUT_S + MAXIMUM_S))
    delays = [b - a for a, b in zip(network.dialled_at, network.dialled_at[1:], strict=False)]
    assert delays[0] < HELLO_TIMEOUT_S + MINIMUM_S + 0.01
    assert all(delay_s > HELLO_TIMEOUT_S + MAXIMUM_S / 2 - 0.01 for delay_s in delays[6:])
    await kept.close(LinkDown("stop"))
    await asyncio.sleep(1)


@pytest.mark.parametrize("error", [LinkError("path too long"), OSError(5, "I/O"), KeyError("bug")])
def test_no_error_of_the_transport_ends_the_dialling(error: Exception) -> None:
    @on_virtual_time
    async def scenario() -> None:
        network, recorder = Counting(), Recorder()
        await Shard(network).up()
        failures = iter([error] * 3)

        def fail() -> None:
            for failure in failures:
                raise failure

        network.before_dial = fail
        kept = dialer(network, recorder)
        kept.start()
        await asyncio.sleep(10)
        assert len(network.dialled_at) == 4
        assert recorder.events == ["up"]
        await kept.close(LinkDown("stop"))
        await asyncio.sleep(1)

    scenario()


@on_virtual_time
async def test_close_while_dialling_ends_it() -> None:
    network, recorder = Counting(), Recorder()
    network.hangs = True
    kept = dialer(network, recorder)
    kept.start()
    await asyncio.sleep(1)
    await kept.close(LinkDown("stop"))
    assert len(network.dialled_at) == 1
    await asyncio.sleep(60)
    assert len(network.dialled_at) == 1


@on_virtual_time
async def test_close_between_two_tries_ends_it() -> None:
    network = Counting()
    kept = dialer(network, Recorder())
    kept.start()
    await asyncio.sleep(1)
    await kept.close(LinkDown("stop"))
    tries = len(network.dialled_at)
    await asyncio.sleep(60)
    assert len(network.dialled_at) == tries


@on_virtual_time
async def test_close_twice_or_before_the_start_does_nothing() -> None:
    kept = dialer(Counting(), Recorder())
    await kept.close(LinkDown("stop"))
    kept.start()
    await kept.close(LinkDown("stop"))
    await kept.close(LinkDown("stop"))


@pytest.mark.parametrize("steps", range(12))
def test_close_at_any_moment_leaves_no_link(steps: int) -> None:
    @on_virtual_time
    async def scenario() -> None:
        network, recorder = Counting(), Recorder()
        shard = Shard(network)
        await shard.up()
        kept = dialer(network, recorder)
        kept.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        await kept.close(LinkDown("stop"))
        await asyncio.sleep(60)
        assert recorder.events in ([], ["up", "down"])
        assert not any(link.is_open for link in shard.links)

    scenario()
