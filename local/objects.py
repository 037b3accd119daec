"""What a test may do with the objects of a cluster behind their backs.

The functions that Cloudflare's test tools have, for a :class:`local.cluster.Cluster`:
https://developers.cloudflare.com/workers/testing/vitest-integration/test-apis/#durable-objects
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shard.draining import work_of
from shard.namespaces import ObjectChannel
from shard.object_host import ObjectHost
from shard.storage.layout import SUFFIX, folder_name
from workers.alarm_info import AlarmInvocationInfo
from workers.context import DurableObjectState
from workers.env import Env
from workers.handlers import bound_handler
from workers.namespace import DurableObjectId, DurableObjectNamespace, DurableObjectStub

if TYPE_CHECKING:
    from common.settings import Settings
    from shard.activation import Activation
    from shard.host import Shard
    from shard.slot import Slot

EVICT_TIMEOUT_S: Final = 30.0
LOOK_INTERVAL_S: Final = 0.01


class ClusterObjects:
    """The part of a cluster that gives access to its objects."""

    settings: Settings
    shards: dict[int, Shard]

    @property
    def env(self) -> Env:
        """The bindings of the app, as its entry point has them.

        Raises:
            RuntimeError: no shard runs.
        """
        return self._any_shard().env

    async def run_in_durable_object(
        self, stub: DurableObjectStub, callback: Callable[[Any, DurableObjectState], Any]
    ) -> Any:
        """Call ``callback(instance, state)`` inside the object, as an event of it; its value.

        The object is woken if it sleeps. What the callback writes is committed, what it raises is
        raised here.
        """
        shard, slot = self._home(stub)

        async def run() -> Any:
            activation = _activation(slot)
            result = callback(activation.instance, ObjectHost(shard, activation).state)
            return await result if hasattr(result, "__await__") else result

        return await _event(slot, run)

    async def run_durable_object_alarm(self, stub: DurableObjectStub) -> bool:
        """Remove the object's alarm and run ``alarm()`` now, whatever its time; whether it had one.

        It is not tried again if it fails: what it raises is raised here.
        """
        shard, slot = self._home(stub)

        async def run() -> bool:
            activation = _activation(slot)
            storage = shard.alarms.storage_of(activation)
            due_ms = storage.due_alarm()
            handler = bound_handler(activation.instance, "alarm", 1)
            if due_ms is None or handler is None:
                return False
            storage.set_alarm(None, unconfirmed=False)
            result = handler(AlarmInvocationInfo(due_ms))
            if hasattr(result, "__await__"):
                await result
            return True

        rang: bool = await _event(slot, run)
        return rang

    def list_durable_object_ids(self, namespace: DurableObjectNamespace) -> list[DurableObjectId]:
        """The ids of all objects of a binding that have stored something, in their order."""
        host = namespace._host
        folder = folder_name(host.ids.unique_key)
        found = Path(self.settings.data_dir).glob(f"*/{folder}/*{SUFFIX}")
        return [namespace.idFromString(text) for text in sorted(path.stem for path in found)]

    async def evict_durable_object(
        self, stub: DurableObjectStub, options: Mapping[str, Any] | None = None
    ) -> None:
        """Let the object leave memory once what it does has ended; the next event wakes it.

        Its storage stays, and so do its held sockets, unless *options* say
        ``{"webSockets": "close"}``.

        Raises:
            RuntimeError: it is not in memory.
            TimeoutError: it is still at work after 30 s.
        """
        _, slot = self._home(stub)
        activation = slot.activation
        if activation is None:
            raise RuntimeError("Cannot evict Durable Object: it is not currently running.")
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + EVICT_TIMEOUT_S
        while slot.activation is activation and (activation.busy or work_of(slot)):
            if loop.time() >= give_up_at:
                raise TimeoutError(
                    "Timed out waiting to evict Durable Object: it still has active references."
                )
            await asyncio.sleep(LOOK_INTERVAL_S)
        if slot.activation is activation:
            slot.evict()
        if options is not None and options.get("webSockets") == "close":
            for socket in list(slot.sockets):
                socket.reset()

    async def evict_all_durable_objects(self) -> None:
        """Evict all objects that are in memory."""
        for shard in list(self.shards.values()):
            for namespace in shard.namespaces.values():
                for slot in [each for each in namespace.slots.values() if each.activation]:
                    stub = DurableObjectStub(
                        namespace.channel(slot.id), DurableObjectId(slot.id, namespace.ids)
                    )
                    await self.evict_durable_object(stub)

    def _any_shard(self) -> Shard:
        for shard in self.shards.values():
            return shard
        raise RuntimeError("no shard of the cluster runs")

    def _home(self, stub: DurableObjectStub) -> tuple[Shard, Slot]:
        channel = stub._channel
        assert isinstance(channel, ObjectChannel)
        home = self._any_shard().home_of(channel.object_id)
        shard = None if home is None else self.shards.get(home)
        if shard is None:
            raise RuntimeError("the object's shard does not run")
        namespace = shard.namespace_of_key(channel.namespace.binding.unique_key)
        return shard, namespace.slot(channel.object_id)


def _activation(slot: Slot) -> Activation:
    activation = slot.activation
    assert activation is not None
    return activation


async def _event(slot: Slot, run: Callable[[], Awaitable[Any]]) -> Any:
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(value: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)

    slot.call(lambda instance: (run, ()), done)
    return await outcome
