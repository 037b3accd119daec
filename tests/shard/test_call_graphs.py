"""Random graphs of calls between objects on two shards, also while their links are cut.

Whatever calls whatever: each call is answered exactly once, it arrives at most once, those on one
stub arrive in the order they were made, and at the end nothing is held for anybody.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shard.pair import Pair, pair
from workers import DurableObject, Request, Response

NODES = 4
"""Half of them live on each shard."""


@dataclass
class Log:
    """What happened, seen from outside."""

    arrived: dict[int, list[int]] = field(default_factory=dict)
    answers: dict[tuple[int, int], int] = field(default_factory=dict)
    made: dict[int, int] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    stubs: Any = field(default_factory=lambda: itertools.count(1))


LOG = Log()


class Node(DurableObject):
    """Does what its caller's plan says, then answers."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.env = env

    async def fetch(self, request: Request) -> Response:
        stub, number = request.url.rsplit("/", 2)[1:]
        arrived(int(stub), int(number))
        return Response("")

    async def visit(self, stub: int, number: int, plan: Any, call_back: Any) -> None:
        arrived(stub, number)
        if call_back is not None:
            await call_back(number)
        await follow(self.env, plan)

    def touch(self, stub: int, number: int) -> None:
        arrived(stub, number)


def arrived(stub: int, number: int) -> None:
    LOG.arrived.setdefault(stub, []).append(number)


async def follow(env: Any, plan: list[Any]) -> None:
    """Make the calls of *plan* in order, each stub numbering its own; then await them all."""
    stubs: dict[int, tuple[int, Any]] = {}
    promises = []
    for kind, target, further in plan:
        if kind == "pause":
            await asyncio.sleep(0)
            continue
        if target not in stubs:
            stubs[target] = next(LOG.stubs), env.NODE.getByName(LOG.names[target])
        stub, node = stubs[target]
        number = LOG.made[stub] = LOG.made.get(stub, 0) + 1
        promises.append((stub, number, start(node, kind, stub, number, further)))
    for stub, number, promise in promises:
        try:
            await promise
        except Exception as error:
            LOG.errors.append(error)
        key = stub, number
        LOG.answers[key] = LOG.answers.get(key, 0) + 1


def start(node: Any, kind: str, stub: int, number: int, further: Any) -> Any:
    if kind == "fetch":
        return node.fetch(f"http://node/{stub}/{number}")
    if kind == "touch":
        return node.touch(stub, number)
    call_back = (lambda value: value) if kind == "call back" else None
    return node.visit(stub, number, further, call_back)


def plans() -> st.SearchStrategy[list[Any]]:
    targets = st.integers(0, NODES - 1)
    leaf = st.tuples(st.sampled_from(["pause", "fetch", "touch"]), targets, st.none())
    steps = st.recursive(
        st.lists(leaf, min_size=2, max_size=5),
        lambda inner: st.lists(
            st.tuples(st.sampled_from(["visit", "call back"]), targets, inner) | leaf,
            min_size=2,
            max_size=6,
        ),
        max_leaves=60,
    )
    return st.lists(steps, min_size=2, max_size=4)


async def run(roots: list[Any], cuts: list[tuple[int, int]]) -> None:
    async with pair(Node) as shards:
        LOG.__init__()  # type: ignore[misc]
        LOG.names[:] = [shards.name_at(n % 2, "NODE", f"{n}-") for n in range(NODES)]
        work = [
            asyncio.ensure_future(follow(shards.shards[n % 2].env, plan))
            for n, plan in enumerate(roots)
        ]
        for turns, home in cuts:
            for _ in range(turns):
                await asyncio.sleep(0)
            shards.cut(home)
        async with asyncio.timeout(60):
            await asyncio.gather(*work)
        check(lossless=not cuts)
        await released(shards)


async def released(shards: Pair) -> None:
    """Wait until every stub is let go of; those in a cycle only the collector can free."""
    async with asyncio.timeout(20):
        while not nothing_is_held(shards):
            gc.collect()
            await asyncio.sleep(0.001)


def nothing_is_held(shards: Pair) -> bool:
    return not any(shards.references().values()) and not any(
        slot.activation is not None and slot.activation.busy
        for shard in shards.shards
        for slot in shard.namespaces["NODE"].slots.values()
    )


def check(*, lossless: bool) -> None:
    for stub, numbers in LOG.arrived.items():
        assert numbers == sorted(set(numbers)), f"stub {stub}: {numbers}"
    for error in LOG.errors:
        assert getattr(error, "retryable", False), repr(error)
    assert all(count == 1 for count in LOG.answers.values())
    if lossless:
        assert not LOG.errors
        for stub, count in LOG.made.items():
            assert LOG.arrived.get(stub, []) == list(range(1, count + 1))
        assert len(LOG.answers) == sum(LOG.made.values())


@settings(max_examples=60)
@given(plans())
def test_each_call_arrives_once_in_order_and_is_answered_once(roots: list[Any]) -> None:
    asyncio.run(run(roots, []))


@settings(max_examples=60)
@given(plans(), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=4))
def test_cut_links_lose_calls_but_never_repeat_or_reorder_them(
    roots: list[Any], cuts: list[tuple[int, int]]
) -> None:
    asyncio.run(run(roots, cuts))
