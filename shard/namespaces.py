"""Durable Object bindings: from a name to an id, to the object's home, to a call that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from common.ids import IdFactory, ObjectId
from common.wrangler import Binding
from shard.messages import check_upgrade, request_to_wire, response_from_wire
from shard.promise import Promise
from shard.slot import Slot
from workers.request import Request
from workers.response import Response

if TYPE_CHECKING:
    from shard.host import Shard

__all__ = ["Namespace", "ObjectChannel"]


class Namespace:
    """One binding: the class, the key its ids are derived from, and the slots that live here.

    Attributes:
        binding: as the project file declares it.
        app_class: the app's class.
        ids: makes and checks its ids.
        slots: the objects of this namespace that have a slot in this process, by raw id.
    """

    def __init__(self, binding: Binding, app_class: type[Any], shard: Shard) -> None:
        self.binding = binding
        self.app_class = app_class
        self.ids = IdFactory(binding.unique_key)
        self.slots: dict[bytes, Slot] = {}
        self._shard = shard

    def __str__(self) -> str:
        return self.binding.class_name

    def slot(self, object_id: ObjectId) -> Slot:
        """The slot of an object whose home is this process; made if there is none."""
        slot = self.slots.get(object_id.raw)
        if slot is None:
            slot = Slot(object_id, self, self._shard, asyncio.get_running_loop())
            self.slots[object_id.raw] = slot
        elif slot.id.name is None and object_id.name is not None:
            slot.id = object_id
        return slot

    def channel(self, object_id: ObjectId) -> ObjectChannel:
        """See :class:`workers.host.NamespaceHost`."""
        return ObjectChannel(self, object_id, self._shard)


class ObjectChannel:
    """What a stub sends its calls through: in order, and broken for ever by a reset."""

    __slots__ = ("_broken", "_id", "_namespace", "_shard")

    def __init__(self, namespace: Namespace, object_id: ObjectId, shard: Shard) -> None:
        self._namespace = namespace
        self._id = object_id
        self._shard = shard
        self._broken: BaseException | None = None

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Send *request* to the object's ``fetch``."""
        promise: Promise[Response] = Promise()
        if self._broken is not None:
            promise.settle(None, self._broken)
            return promise

        def answered(response: Any, error: BaseException | None) -> None:
            if error is not None:
                self._check_broken(error)
            promise.settle(response, error)

        home = self._shard.home_of(self._id)
        if home == self._shard.index:
            fetch_locally(self._namespace.slot(self._id), request, answered)
        else:
            self._fetch_remotely(home, request, answered)
        return promise

    def _fetch_remotely(self, home: int, request: Request, answered: Any) -> None:
        shard = self._shard

        def arrived(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                answered(None, error)
            else:
                answered(response_from_wire(answer, shard.remote_socket), None)

        head, body = request_to_wire(request)
        name = self._id.name
        target = [self._namespace.binding.unique_key, self._id.raw, name]
        shard.peers.request(home, target, self._id.partition, head, body, arrived)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Call *method* of the object."""
        raise NotImplementedError("RPC methods are not available yet: use fetch()")

    def _check_broken(self, error: BaseException) -> None:
        if getattr(error, "durableObjectReset", False):
            self._broken = error


def fetch_locally(slot: Slot, request: Request, answered: Any) -> None:
    """Run an object's ``fetch`` in this process; *answered* gets its response or error."""

    def method(instance: Any) -> tuple[Any, tuple[Any, ...]]:
        fetch = getattr(instance, "fetch", None)
        if fetch is None:
            raise TypeError("Handler does not export a fetch() function.")
        return fetch, (request,)

    def done(value: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                check_upgrade(value, request)
            except Exception as refused:
                value, error = None, refused
        if error is not None:
            mark_remote(error)
        answered(value, error)

    slot.call(method, done)


def mark_remote(error: BaseException) -> None:
    """Tell the caller that the other side raised it."""
    try:
        error.remote = True  # type: ignore[attr-defined]
    except AttributeError:
        pass
