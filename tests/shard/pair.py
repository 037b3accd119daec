"""Shards in one event loop, joined by memory links, with an app that is written in the test."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from common.link.memory import MemoryNetwork
from common.membership import FixedMembership
from common.ownership import MemoryOwnership, OwnershipTable
from common.settings import Settings
from common.wrangler import Binding, Project
from shard.app import App
from shard.host import Shard
from workers import DurableObjectStub


def make_app(*classes: type[Any], entry: type[Any] | None = None) -> App:
    """An app with a binding for each class, under the class's name in capitals."""
    here = Path(__file__).resolve()
    bindings = tuple(
        Binding(
            name=each.__name__.upper(),
            class_name=each.__name__,
            unique_key=f"test-{each.__name__}",
            sqlite=True,
            where=str(here),
        )
        for each in classes
    )
    project = Project(
        file=here,
        root=here.parent,
        name="test",
        main=here,
        bindings=bindings,
        vars={},
        compatibility_date=None,
        compatibility_flags=(),
    )
    exported = {each.__name__: each for each in classes}
    return App(project, sys.modules[__name__], entry, exported)


class Pair:
    """Two shards that are linked both ways."""

    def __init__(self, shards: list[Shard], network: MemoryNetwork) -> None:
        self.shards = shards
        self.network = network

    def name_at(self, home: int, binding: str, prefix: str = "") -> str:
        """A name whose object lives on that shard."""
        ids = self.shards[0].namespaces[binding].ids
        for number in range(10_000):
            name = f"{prefix}{number}"
            if self.shards[0].home_of(ids.from_name(name)) == home:
                return name
        raise AssertionError("no such name")

    def stub(
        self, binding: str, *, home: int, seen_from: int = 0, prefix: str = ""
    ) -> DurableObjectStub:
        """A stub in the hands of shard *seen_from*, of an object that lives on shard *home*."""
        namespace = getattr(self.shards[seen_from].env, binding)
        stub: DurableObjectStub = namespace.getByName(self.name_at(home, binding, prefix))
        return stub

    def instance(self, stub: DurableObjectStub) -> Any:
        """The object itself, if it is in memory."""
        object_id = stub.id.raw
        for shard in self.shards:
            for namespace in shard.namespaces.values():
                slot = namespace.slots.get(object_id.raw)
                if slot is not None and slot.activation is not None:
                    return slot.activation.instance
        return None

    def activation(self, stub: DurableObjectStub) -> Any:
        """Its activation, if it is in memory."""
        for shard in self.shards:
            for namespace in shard.namespaces.values():
                slot = namespace.slots.get(stub.id.raw.raw)
                if slot is not None:
                    return slot.activation
        return None

    def cut(self, home: int) -> None:
        """Drop every link that was dialled to that shard."""
        for ends in self.network.lines.pop(f"shard-{home}", []):
            ends[0].cut()

    def references(self) -> dict[str, int]:
        """Entries in all tables of what was passed by reference."""
        total: dict[str, int] = {}
        for shard in self.shards:
            ends = [shard.loopback, *shard._ends.values(), *shard.peers._ends.values()]
            for end in ends:
                for name, count in end.references.statistics().items():
                    total[name] = total.get(name, 0) + count
        return total

    async def linked(self) -> None:
        """Wait until both links are up."""
        await until(lambda: all(shard.peers.end(1 - shard.index) for shard in self.shards))


async def until(condition: Callable[[], bool], turns: int = 100_000) -> None:
    """Let the event loop turn until something is so."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"still not: {condition}")


async def settle(turns: int = 50) -> None:
    """Let what is under way between the shards arrive."""
    for _ in range(turns):
        await asyncio.sleep(0)


@asynccontextmanager
async def pair(
    *classes: type[Any], entry: type[Any] | None = None, **options: Any
) -> AsyncIterator[Pair]:
    """Run two shards with an app of these classes; *options* are settings by name."""
    # There is no gateway to wait for at the start, and nobody to be kind to at the end.
    defaults = {"adopt_timeout_s": 0.0, "drain_timeout_s": 0.0}
    settings = replace(Settings.load({}), **{**defaults, **options})
    network = MemoryNetwork()
    membership = FixedMembership(2)
    table = OwnershipTable()
    app = make_app(*classes, entry=entry)
    loop = asyncio.get_running_loop()
    shards = []
    for index in range(2):
        rng = random.Random(index)
        owner = MemoryOwnership(table, f"shard {index}")
        shards.append(Shard(index, app, settings, network, membership, owner, SystemClock(), rng))
    try:
        for shard in shards:
            await shard.start()
        both = Pair(shards, network)
        await both.linked()
        yield both
    finally:
        for shard in shards:
            await shard.stop()
        await settle(10)
        loop.set_task_factory(None)
