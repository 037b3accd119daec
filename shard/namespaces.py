"""Durable Object bindings: from a name to an id, to its home, to a call that is under way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from common.ids import IdFactory, ObjectId
from common.wrangler import Binding
from shard.calls import FetchCall, LocalCall, deliver, need_no_copy
from shard.errors import copy_error, take_broken
from shard.leaving import gate_before
from shard.messages import request_to_wire, response_from_wire
from shard.owned_stream import keep_body_with
from shard.promise import Promise
from shard.references import size_of
from shard.slot import Slot
from shard.turn import Owner, current_owner
from workers.request import Request
from workers.response import Response

if TYPE_CHECKING:
    from shard.host import Shard

__all__ = ["Namespace", "ObjectChannel"]

_numbers = itertools.count(1)
"""Of the stubs of this process: see :class:`shard.rpc.RpcEnd`."""


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
    """What a stub sends its calls through: in order, and broken for ever by a reset.

    Attributes:
        object_id: whose stub it is.
        namespace: of which class.
    """

    __slots__ = ("_broken", "_number", "_shard", "namespace", "object_id")

    def __init__(self, namespace: Namespace, object_id: ObjectId, shard: Shard) -> None:
        self.namespace = namespace
        self.object_id = object_id
        self._shard = shard
        self._broken: BaseException | None = None
        self._number = next(_numbers)

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Send *request* to the object's ``fetch``."""
        promise: Promise[Response] = Promise()
        if self._broken is not None:
            return self._refuse(promise)

        def answered(response: Any, error: BaseException | None) -> None:
            if error is not None:
                self._check_broken(error)
            promise.settle(response, error)

        owner = current_owner.get()
        keep_body_with(owner, request)
        gate = gate_before(owner)
        if gate is None:
            self._send_request(request, answered, owner)
        else:
            context = copy_context()
            gate.push(
                lambda: context.run(self._send_request, request, answered, owner),
                lambda error: promise.settle(None, error),
            )
        return promise

    def _send_request(self, request: Request, answered: Any, owner: Owner | None) -> None:
        """Send it to where the object is at home now, or as soon as it is at home anywhere."""
        shard = self._shard
        home = shard.home_of(self.object_id, owner)
        if home is None:
            context = copy_context()
            shard.wait_for_home(
                self.object_id,
                0,
                lambda: context.run(self._send_request, request, answered, owner),
                lambda error: answered(None, error),
            )
        elif home == shard.index:
            fetch_locally(self._slot(), request, answered)
        else:
            self._fetch_remotely(home, request, answered)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Call *method* of the object."""
        promise: Promise[Any] = Promise()
        if self._broken is not None:
            return self._refuse(promise)
        owner = current_owner.get()
        gate = gate_before(owner)
        if gate is None:
            self._send_call(method, args, kwargs, promise, owner)
        else:
            size, send, drop = self._keep(method, args, kwargs, promise, owner)
            gate.push(send, drop, size)
        return promise

    def _send_call(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        promise: Promise[Any],
        owner: Owner | None,
    ) -> None:
        """Send it to where the object is at home now, or as soon as it is at home anywhere."""
        shard = self._shard
        home = shard.home_of(self.object_id, owner)
        if home == shard.index:
            self._call_locally(method, args, kwargs, promise, owner)
        elif home is not None:
            self._call_remotely(home, method, args, kwargs, promise, owner)
        else:
            size, send, drop = self._keep(method, args, kwargs, promise, owner)
            shard.wait_for_home(self.object_id, size, send, drop)

    def _keep(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        promise: Promise[Any],
        owner: Owner | None,
    ) -> tuple[int, Callable[[], None], Callable[[BaseException], None]]:
        """A call that leaves later, with the arguments as they are now: size, send, drop."""
        size = 0
        if kwargs or not need_no_copy(args):
            # By way of the loopback: what goes by reference waits as a stub, and is passed on.
            references = self._shard.loopback.references
            written = references.write(_arguments(args, kwargs), owner)
            size = size_of(written)
            parts = references.read(written)
            args, kwargs = tuple(parts[0]), parts[1] if kwargs else {}
        context = copy_context()

        def send() -> None:
            try:
                context.run(self._send_call, method, args, kwargs, promise, owner)
            except Exception as error:
                promise.settle(None, error)

        return size, send, lambda error: promise.settle(None, error)

    def _call_locally(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        promise: Promise[Any],
        owner: Owner | None,
    ) -> None:
        def answered(value: Any, error: BaseException | None) -> None:
            if error is not None:
                self._check_broken(error)
            promise.settle(value, error)

        references = self._shard.loopback.references
        given: Any = args
        if kwargs or not need_no_copy(args):
            given = references.write(_arguments(args, kwargs), owner)
        deliver(self._slot(), LocalCall(references, method, given, answered))

    def _slot(self) -> Slot:
        return self.namespace.slot(self.object_id)

    def _call_remotely(
        self,
        home: int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        promise: Promise[Any],
        owner: Owner | None,
    ) -> None:
        peers = self._shard.peers
        end = peers.end(home)
        assert end is not None, "a shard that serves an object takes calls"
        written = end.references.write(_arguments(args, kwargs), owner)
        settle = end.references.settles(promise)

        def answered(value: Any, error: BaseException | None) -> None:
            if error is not None:
                self._check_broken(error)
            settle(value, error)

        generation = peers.generation(home, self.object_id.partition)
        end.call([*self.address, generation, self._number], method, written, answered)

    def _fetch_remotely(self, home: int, request: Request, answered: Any) -> None:
        shard = self._shard

        def arrived(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                answered(None, error)
            else:
                answered(response_from_wire(answer, shard.remote_socket), None)

        head, body = request_to_wire(request)
        partition = self.object_id.partition
        shard.peers.request(home, self.address, self._number, partition, head, body, arrived)

    @property
    def address(self) -> list[Any]:
        """``[unique_key, raw id, name]``."""
        object_id = self.object_id
        return [self.namespace.binding.unique_key, object_id.raw, object_id.name]

    def _check_broken(self, error: BaseException) -> None:
        if take_broken(error):
            home = self._shard.home_of(self.object_id)
            end = None if home is None else self._shard.peers.end(home)
            if end is not None:
                end.stub_ended(self._number)
            # A copy that is never raised: raising would hang the caller's frames on it.
            self._broken = copy_error(error, remote=False)

    def _refuse(self, promise: Promise[Any]) -> Promise[Any]:
        assert self._broken is not None
        promise.settle(None, copy_error(self._broken, remote=False))
        return promise


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [list(args), kwargs] if kwargs else [list(args)]


def fetch_locally(slot: Slot, request: Request, answered: Any) -> None:
    """Run an object's ``fetch`` in this process; *answered* gets its response or error."""
    deliver(slot, FetchCall(request, answered))
