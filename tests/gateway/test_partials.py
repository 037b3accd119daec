"""Rules of :mod:`gateway.partials`: who gives way when too many messages stay unfinished."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.close_reasons import CROWDED
from common.link.records import CLOSED
from common.settings import Settings
from gateway.partials import SMALL_BYTES, Partials
from tests.gateway.support import frame, server_close, server_text, settle, world

MIB = 1 << 20
LIMITS = {"max_message_bytes": MIB, "partial_total_bytes": 2 * MIB}
REFUSAL = server_close(*CROWDED[:2])


class Somebody:
    def __init__(self, partials: Partials) -> None:
        self.partials = partials
        self.gone = False

    def give_way(self) -> None:
        self.gone = True
        self.partials.keep(self, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20 * SMALL_BYTES)), max_size=60))
def test_what_is_kept_never_exceeds_the_bound_and_only_the_largest_gives_way(
    steps: list[tuple[int, int]],
) -> None:
    partials = Partials(30 * SMALL_BYTES)
    people = [Somebody(partials) for _ in range(6)]
    sizes = [0] * 6
    for who, size in steps:
        if people[who].gone:
            continue
        sizes[who] = size
        before = [one.gone for one in people]
        partials.keep(people[who], size)
        for index, one in enumerate(people):
            if one.gone and not before[index]:
                assert sizes[index] == max(sizes)
                sizes[index] = 0
        counted = [each if each >= SMALL_BYTES else 0 for each in sizes]
        assert partials.kept_bytes == sum(counted) <= 30 * SMALL_BYTES


async def test_clients_that_never_finish_a_message_cannot_fill_the_memory() -> None:
    """Each is within MAX_MESSAGE_BYTES; all together they are bounded, and others go on."""
    async with world(**LIMITS) as w:
        w.shard.on_message = lambda connection, payload: None
        partials = w.gateway.context.partials
        whole = frame(b"x" * MIB)
        small = await w.upgraded()
        begun = frame(b"y" * 5000)
        small.send(begun[:-1])
        stuck = []
        for _ in range(5):
            client = await w.upgraded()
            client.send(whole[:-1])
            await settle()
            assert partials.kept_bytes <= LIMITS["partial_total_bytes"]
            stuck.append(client)
        closed = [each for each in stuck if each.received]
        assert [bytes(each.received) for each in closed] == [REFUSAL] * 4
        assert w.gateway.context.counters.crowded.value == 4
        records = await w.shard.next_of(CLOSED, 4)
        assert {tuple(each[2:]) for each in records} == {(1006, CROWDED.text, False)}
        small.send(begun[-1:])
        [survivor] = [each for each in stuck if not each.received]
        survivor.send(whole[-1:])
        await w.shard.until(lambda: w.shard.messages() == [b"y" * 5000, b"x" * MIB])
        assert partials.kept_bytes == 0


async def test_fragments_count_too() -> None:
    async with world(**LIMITS) as w:
        clients = [await w.upgraded() for _ in range(3)]
        for client in clients:
            client.send(frame(b"x" * 900_000, first=0x02))
            await settle()
        third = frame(b"x" * 100_000, first=0x00)
        clients[1].send(third)
        await settle()
        # 900,000 · 3 is more than 2 MiB: the first to come has given way to the third
        assert sum(bool(each.received) for each in clients) == 1
        assert w.gateway.context.partials.kept_bytes <= 2 * MIB


async def test_what_was_said_before_is_answered_and_nothing_is_counted_afterwards() -> None:
    async with world(**LIMITS) as w:
        whole = frame(b"x" * MIB)
        client = await w.upgraded()
        client.send(frame("hello") + whole[:-1])
        others = [await w.upgraded() for _ in range(2)]
        others[0].send(whole[: MIB - 10])
        others[1].send(whole[: MIB - 10])
        count = server_text("[Durable Object] currentlyConnectedWebSockets: 1")
        await client.expect(count + REFUSAL)
        for other in others:
            other.transport.abort()
        await settle()
        assert w.gateway.context.partials.kept_bytes == 0


def test_a_single_client_may_send_the_largest_message() -> None:
    settings = Settings.load({})
    assert settings.partial_total_bytes >= settings.max_message_bytes
