"""The shard: everything one shard process holds, and what it does with the records of its links."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Collection, Iterator
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

import structlog

from common.clock import Clock
from common.errors import LinkError, ProtocolError, Unavailable
from common.ids import ObjectId, Partition
from common.link.driver import Link
from common.link.records import (
    ATTACH,
    BLOB_FRAME,
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    CANCEL,
    CLOSED,
    DRAINED,
    FRAMES,
    HALTED,
    REQUEST,
    Record,
)
from common.link.session import Hello
from common.link.transport import Listener, Transport
from common.membership import Membership
from common.ownership import Ownership
from common.settings import Settings
from shard import stacks
from shard.activation import Activation
from shard.alarms.ringer import Ringer
from shard.app import App
from shard.app_output import name_logs
from shard.bridge import bridge
from shard.calls import Outside, run_disposal
from shard.clients import Clients, SocketLoop, serve_loop
from shard.draining import Drain, work_of
from shard.entry import EntryPoint
from shard.errors import take_broken, write_error
from shard.gateways import KINDS as GATEWAY_KINDS
from shard.gateways import Gateways
from shard.handoff import HandOff
from shard.line import Loopback
from shard.messages import ResponseFields, response_fields
from shard.namespaces import Namespace, ObjectChannel
from shard.object_host import EntryHost, ObjectHost, make_env
from shard.outgoing import OutgoingSocket, SocketLimits
from shard.outside import OutsideWorld
from shard.peers import Peers
from shard.references import Disposals
from shard.requests import Answer, Requests
from shard.residence import Residences, Stage
from shard.rpc import RpcEnd
from shard.slot import Slot
from shard.sockets import SocketTable
from shard.storage.engine import StorageEngine
from shard.storage.epoch import boot_epoch
from shard.storage.object_storage import ObjectStorage
from shard.turn import task_factory
from shard.waiting import Waiting
from shard.waking import Wakes
from workers.durable_object import prepare_instance
from workers.host import enter_host, set_process_host
from workers.namespace import DurableObjectId, DurableObjectStub
from workers.request import Request
from workers.response import Response
from workers.websocket import FRESH, WebSocket

log = structlog.get_logger(__name__)

SWEEP_INTERVAL_S = 1.0


class Shard:
    """One shard process without its process: also runs inside a test's event loop.

    Args:
        index: which shard.
        app: the loaded app.
        settings: see :mod:`common.settings`.
        transport: makes the links.
        membership: which shards exist.
        ownership: by what right it owns partitions; those that it is placed at are taken as soon
            as they are free.
        clock: monotonic and wall time.
        rng: source of jitter.
    """

    def __init__(
        self,
        index: int,
        app: App,
        settings: Settings,
        transport: Transport,
        membership: Membership,
        ownership: Ownership,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.index = index
        self.app = app
        self.settings = settings
        self.max_pending_bytes = settings.max_pending_bytes
        self.base_context = copy_context()
        uses_run_sync = stacks.app_uses_run_sync(app.project.root)
        self.enter_function = stacks.call if uses_run_sync else None
        self.max_rpc_bytes = settings.max_rpc_bytes
        self.body_window_bytes = settings.body_window_bytes
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(task_factory)
        self.wakes = Wakes(settings.wake_slice_s, self._loop)
        self._transport = transport
        self._membership = membership
        self.clock = clock
        self._listener: Listener | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._requests: dict[Link, Requests] = {}
        self._ends: dict[Link, RpcEnd] = {}
        self._stopping = False
        self.residences = Residences(settings.gateways)
        self._generations = self.residences.generations
        self._with_alarms: set[Partition] = set()
        self.local = Hello(
            role="shard",
            index=index,
            instance=secrets.token_hex(8),
            window_bytes=settings.link_window_bytes,
            max_batch_bytes=settings.link_max_batch_bytes,
            generations={},
        )
        self._known: WeakKeyDictionary[Link, dict[Partition, int]] = WeakKeyDictionary()
        self.storage = StorageEngine(
            settings,
            self._generations.get,
            boot_epoch(),
            self._loop,
            now_ms=lambda: int(clock.wall_s() * 1000),
        )
        self.hand_off = HandOff(self, membership, ownership)
        self.sockets = SocketTable(self._loop, settings.socket_buffer_bytes)
        self.gateways = Gateways(self, settings.gateways)
        self._drain: Drain | None = None
        self._leaving = False
        self.waiting = Waiting(settings.hold_timeout_s, settings.max_pending_bytes, self._loop)
        self.outside = Outside(self._loop)
        self.disposals = Disposals(lambda owner, method: run_disposal(owner, method, self.outside))
        loop_line = Loopback()
        self.loopback = RpcEnd(loop_line, self)
        loop_line.receive = self.loopback.record
        limits = SocketLimits.of(settings)
        self.outside_world = OutsideWorld(settings, self._loop)
        self.clients = Clients(limits, self._loop)
        self._to_servers = SocketLoop(self._from_clients, self._loop)
        self._to_clients = SocketLoop(self._from_servers, self._loop)
        self.peers = Peers(
            self.local,
            settings,
            transport,
            rng,
            self,
            self.clients,
            self.waiting.start,
            self.hand_off.wake,
        )
        self.namespaces = {
            binding.name: Namespace(binding, app.class_of(binding), self)
            for binding in app.project.bindings
        }
        self._by_key = {each.binding.unique_key: each for each in self.namespaces.values()}
        self.alarms = Ringer(self, self._by_key, clock, rng.random, self._loop)
        self.env = make_env(app.project, self.namespaces)
        set_process_host(EntryHost(self))
        self._entry = EntryPoint(
            self._make_entry, self._enter_entry, self._loop, self.socket_accepted
        )
        self._entry.enter_function = self.enter_function

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take what is free, accept links, and link up with the other shards.

        Raises:
            ConfigError: the means of owning partitions is out of order.
        """
        self.hand_off.start()
        self._listener = await self._transport.listen(f"shard-{self.index}", self._accept)
        self.gateways.start()
        self._membership.subscribe(self._link_up_with_others)
        self._link_up_with_others()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        self._take_alarms(self._generations)

    async def stop(self) -> None:
        """Finish what is under way within DRAIN_TIMEOUT_S, let every object leave memory, end."""
        self._stopping = True
        self.hand_off.stop()
        self.alarms.stop()
        self.gateways.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            await self._listener.close()
        self._drain = Drain(self._requests, self._unfinished)
        await self._drain.run(self.settings.drain_timeout_s)
        await self._end()

    async def _end(self) -> None:
        self._leaving = True
        await self.storage.drain(self.settings.stop_timeout_s / 2)
        await self.peers.close()
        self.waiting.close()
        for link in list(self._requests):
            link.close(Unavailable("the shard is stopping"))  # type: ignore[arg-type]
        self._entry.close()
        for namespace in self.namespaces.values():
            for slot in list(namespace.slots.values()):
                slot.evict()
        await self.outside_world.close()
        self.storage.shut()
        self.alarms.close()
        set_process_host(None)

    def silence(self) -> None:
        """For tests: from now on react to nothing, as a process that was killed."""
        self._stopping = self._leaving = True
        self.alarms.stop()
        self.wakes.stop()

    async def kill(self) -> None:
        """For tests: release everything, and finish nothing."""
        self.silence()
        self.hand_off.stop()
        self.gateways.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            await self._listener.close()
        await self._end()

    def _unfinished(self) -> str:
        """What is under way, in words."""
        if asked := sum(len(requests) for requests in self._requests.values()):
            return f"{asked} requests"
        if self.sockets.unattached:
            return f"{self.sockets.unattached} sockets without their client"
        if len(self.wakes):
            return f"{len(self.wakes)} objects that wait for their turn to wake"
        for namespace in self.namespaces.values():
            for slot in namespace.slots.values():
                if work := work_of(slot):
                    return work
        return ""

    def status(self) -> dict[str, Any]:
        """Figures for ``limpet status`` and the metrics."""
        slots = [slot for each in self.namespaces.values() for slot in each.slots.values()]
        return {
            "index": self.index,
            "instance": self.local.instance,
            "partitions": len(self._generations),
            "membership": self._membership.version,
            "settled": self.hand_off.settled,
            "links": len(self._requests),
            "objects": len(slots),
            "active_objects": sum(slot.activation is not None for slot in slots),
            "sockets": len(self.sockets),
            "outgoing_sockets": len(self.outside_world),
            **self.alarms.status(),
        }

    def _accept(self) -> Link:
        known = dict(self._generations)
        hello = replace(self.local, generations={int(each): known[each] for each in known})
        link = Link(hello, self, prompt_acks=True)
        self._known[link] = known
        return link

    def _link_up_with_others(self) -> None:
        if not self._stopping:
            self.peers.follow(each for each in self._membership.shards if each != self.index)

    def _sweep(self) -> None:
        now = self.clock.monotonic_s()
        for namespace in self.namespaces.values():
            for slot in list(namespace.slots.values()):
                slot.sweep(now, self.settings.idle_timeout_s)
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    # --- where objects are ---------------------------------------------------------------------

    def home_of(self, object_id: ObjectId, caller: object = None) -> int | None:
        """The shard that serves the object now; ``None`` if its home is away, or moves.

        While a partition is on its way out, its objects are at home only to *objects* of this
        shard, whose handlers it must let finish.
        """
        partition = object_id.partition
        if partition in self.residences.served:
            return self.index
        if partition in self._generations and (
            not self.gateways.serving  # there is nobody yet whose events could come too early
            or (type(caller) is Activation and self.residences.stage(partition) is Stage.HALTING)
        ):
            return self.index
        return self.peers.home_of(partition)

    def wait_for_home(
        self,
        object_id: ObjectId,
        size: int,
        start: Callable[[], None],
        refuse: Callable[[BaseException], None],
    ) -> None:
        """Have *start* called when the object's home takes events again, see :class:`Waiting`."""
        self.waiting.put(object_id.partition, size, start, refuse)

    def slots_in(self, partitions: Collection[Partition]) -> Iterator[Slot]:
        """The slots of the objects of these partitions."""
        for namespace in self.namespaces.values():
            for slot in list(namespace.slots.values()):
                if slot.id.partition in partitions:
                    yield slot

    # --- partitions come and go ----------------------------------------------------------------

    def took(self, generations: dict[Partition, int]) -> None:
        """These are owned from now on."""
        self.residences.took(generations)
        self.gateways.took(generations)

    def served(self, partitions: Collection[Partition]) -> None:
        """The events of these may run from now on."""
        self._take_alarms(partitions)
        self.waiting.start(partitions)
        self.hand_off.wake()

    def halt(self, partitions: Collection[Partition]) -> None:
        """These are to go: no new events for them."""
        self.residences.halt(partitions)
        self.gateways.halted(partitions)

    def let_go(self, partitions: Collection[Partition]) -> None:
        """Nothing of these remains in memory: close their files."""
        self.storage.let_go(partitions)
        self.alarms.leave(partitions)
        self._with_alarms.difference_update(partitions)
        self.residences.gave(partitions)

    def _take_alarms(self, partitions: Collection[Partition]) -> None:
        """See that the alarms of these ring, once each: not before their objects may wake."""
        fresh = [each for each in partitions if each not in self._with_alarms]
        if fresh:
            self._with_alarms.update(fresh)
            self.alarms.take(fresh)

    def find_namespace(self, unique_key: str) -> Namespace | None:
        """The namespace of that key, if the app has one."""
        return self._by_key.get(unique_key)

    def namespace_of_key(self, unique_key: str) -> Namespace:
        """The namespace of that key.

        Raises:
            Unavailable: this shard runs another version of the app, without it.
        """
        namespace = self.find_namespace(unique_key)
        if namespace is None:
            raise Unavailable(f"shard {self.index} has no class with the key {unique_key!r}")
        return namespace

    def slot_at(self, target: list[Any]) -> Slot:
        """The slot of the object that a record names; see :class:`shard.rpc.RpcContext`."""
        unique_key, raw, name, generation = target[:4]
        namespace = self.namespace_of_key(unique_key)
        slot = namespace.slots.get(raw)
        # The bytes of an object that is here have been checked already.
        known = slot is not None and (name is None or slot.id.name is not None)
        object_id = slot.id if slot is not None and known else namespace.ids.from_raw(raw, name)
        if self._generations.get(object_id.partition) != generation:
            raise Unavailable(f"shard {self.index} does not own the object's partition now")
        return slot if slot is not None and known else namespace.slot(object_id)

    def object_address(self, stub: DurableObjectStub) -> list[Any]:
        """See :class:`shard.references.Addresses`."""
        channel = stub._channel
        assert isinstance(channel, ObjectChannel)
        return channel.address

    def object_stub(self, address: list[Any]) -> DurableObjectStub:
        """See :class:`shard.references.Addresses`."""
        unique_key, raw, name = address
        namespace = self.namespace_of_key(unique_key)
        object_id = namespace.ids.from_raw(raw, name)
        return DurableObjectStub(
            namespace.channel(object_id), DurableObjectId(object_id, namespace.ids)
        )

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        log.debug("link.up", peer=f"{peer.role}-{peer.index}", instance=peer.instance)
        end = RpcEnd(link, self)
        self._requests[link] = Requests(
            link,
            lambda target, request, answer: self._serve(end, target, request, answer),
            self._fields_of,
            lambda error: write_error(
                error,
                remote=getattr(error, "remote", False) is True,
                broken=take_broken(error),
                for_shard=peer.role == "shard",
            ),
            self._withdraw,
            self.settings.body_window_bytes,
        )
        if peer.role == "shard":
            self._ends[link] = end
        self.gateways.link_up(link, self._known.get(link, {}))

    def link_records(self, link: Link, records: list[Record]) -> None:
        sockets = self.sockets.of(link)
        for record in records:
            kind = record[0]
            if kind == FRAMES:
                for connection, payload in zip(record[1], record[2], strict=True):
                    socket = sockets.get(connection)
                    if socket is not None:
                        socket.arrived(payload)
            elif kind == BLOB_FRAME:
                socket = sockets.get(record[1])
                if socket is not None:
                    view = record[2]
                    socket.arrived(str(view, "utf-8") if record[3] else bytes(view))
            elif kind == CLOSED:
                _, connection, code, reason, was_clean = record
                socket = sockets.get(connection)
                if socket is not None:
                    socket.closed(code, reason, was_clean)
            else:
                self._other_record(link, record)

    def _other_record(self, link: Link, record: Record) -> None:
        kind = record[0]
        if kind == ATTACH:
            self.sockets.attach(link, record[1], record[2])
        elif kind == REQUEST:
            self._requests[link].start(record)
        elif kind in _ABOUT_REQUESTS and record[1] >= 0:
            self._requests[link].record(record)
        elif kind in GATEWAY_KINDS:
            self.gateways.record(link, record)
        elif kind == HALTED:
            self.hand_off.halted(link, record[1])
        elif kind == DRAINED and self._drain is not None:
            self._drain.answered(link)
        elif link in self._ends:
            self._ends[link].record(record)
        else:
            raise ProtocolError(f"a shard is not sent records of kind {kind}")

    def link_writable(self, link: Link) -> None:
        """What the objects sent meanwhile waits in the session: nobody was paused."""

    def link_down(self, link: Link, error: LinkError) -> None:
        if not self._stopping:
            log.debug("link.down", link=repr(link), error=str(error))
        self.gateways.link_down(link)
        self.hand_off.link_down(link)
        if self._drain is not None:
            self._drain.gone(link)
        if not self._leaving:  # else the gateways keep the clients for our successor
            self.sockets.link_down(link)
        requests = self._requests.pop(link, None)
        if requests is not None:
            requests.link_down()
        end = self._ends.pop(link, None)
        if end is not None:
            end.line_down(error)

    # --- requests ------------------------------------------------------------------------------

    def _serve(
        self, end: RpcEnd, target: list[Any] | None, request: Request, answer: Answer
    ) -> None:
        if target is None:
            if self.app.entry is None:
                answer(None, TypeError("the app has no `class Default(WorkerEntrypoint)`"))
            else:
                self._entry.serve(request, answer)
            return
        try:
            slot = self.slot_at(target)
        except (Unavailable, TypeError, ValueError) as error:
            answer(None, error)
            return
        end.fetch(target[4], slot, request, answer)

    def _fields_of(self, response: Response, request: Request) -> ResponseFields:
        return response_fields(response, request, self._export)

    def _export(self, client: WebSocket) -> list[Any]:
        """The address of the socket whose client end leaves in a response."""
        port = client.port
        if isinstance(port, RemoteEnd):
            return port.address
        if isinstance(port, OutgoingSocket):
            server = bridge(client, port, self._loop)
        else:
            server = client.take()
        return [self.index, self.sockets.export(server), partition_of_owner(server.host)]

    def socket_accepted(self, owner: Any, socket: WebSocket) -> None:
        """An app has called ``accept()``: its messages must find the way to it.

        Args:
            owner: see :class:`shard.inbox.SocketOwner`.
            socket: what it accepted.
        """
        port, other = socket.port, socket.other
        if isinstance(port, OutgoingSocket):
            port.owned_by(owner)
        elif isinstance(port, RemoteEnd):
            wire = self.peers.link(port.address[0])
            if wire is None:
                raise self.peers.unreachable(port.address[0])
            self.clients.attach(socket, wire, port.address, owner)
        elif other is not None and not socket.taken and not other.taken and other.mode != FRESH:
            # Both ends are used here. The one that was accepted first plays the server's part.
            address = [self.index, self.sockets.export(other), NO_PARTITION]
            self.clients.attach(socket, self._to_servers, address, owner)

    def _from_clients(self, records: list[Record]) -> None:
        serve_loop(self.sockets, self._to_clients, records)

    def _from_servers(self, records: list[Record]) -> None:
        for record in records:
            self.clients.record(self._to_servers, record)

    def _withdraw(self, fields: ResponseFields) -> None:
        """An answer has no use any more: a socket in it has lost its client."""
        if fields.socket is None:
            return
        home = fields.socket[0]
        if home == self.index:
            self.sockets.withdraw(fields.socket[1])
        elif (wire := self.peers.link(home)) is not None:
            self.clients.abandon(wire, fields.socket)

    def remote_socket(self, address: list[Any]) -> WebSocket:
        """The client end of a socket whose object is on another shard, to be passed on."""
        client = WebSocket()
        client.connect(RemoteEnd(address))
        return client

    # --- app code ------------------------------------------------------------------------------

    def enter_context(self, context: Context, activation: Activation) -> None:
        """See :class:`shard.slot.SlotHost`."""
        context.run(enter_host, ObjectHost(self, activation))
        name_logs(context, str(activation.slot))

    def make_instance(self, activation: Activation) -> Any:
        """See :class:`shard.slot.SlotHost`."""
        namespace: Namespace = activation.slot.namespace
        host = ObjectHost(self, activation)
        return prepare_instance(namespace.app_class, host.state, self.env)

    def make_storage(self, activation: Activation) -> ObjectStorage:
        """Make the storage of an activation; its file is opened when it is first used."""
        namespace: Namespace = activation.slot.namespace
        app_class = namespace.app_class
        durability = getattr(app_class, "durability", self.storage.durability)
        if durability not in ("full", "normal"):
            raise TypeError(
                f'{app_class.__name__}.durability must be "full" or "normal", not {durability!r}'
            )
        storage = activation.storage = ObjectStorage(
            activation,
            self.storage,
            namespace.binding.unique_key,
            durability,
            hasattr(app_class, "alarm"),
            self._loop,
        )
        return storage

    def storage_is_away(self, slot: Slot) -> bool:
        """See :class:`shard.slot.SlotHost`."""
        key = slot.namespace.binding.unique_key
        return self.storage.when_back(key, slot.id, lambda: self.wakes.queue(slot))

    def slot_idle(self, slot: Slot) -> None:
        """See :class:`shard.slot.SlotHost`."""
        namespace: Namespace = slot.namespace
        if namespace.slots.get(slot.id.raw) is slot:
            del namespace.slots[slot.id.raw]

    def _enter_entry(self, context: Context, entry: EntryPoint) -> None:
        context.run(enter_host, EntryHost(self, entry))

    def _make_entry(self) -> Any:
        assert self.app.entry is not None
        return prepare_instance(self.app.entry, EntryHost(self).execution_context, self.env)


class RemoteEnd:
    """The port of a client end whose server end is on another shard, and that nobody has accepted.

    Until that happens nothing can be sent; then :meth:`Shard.socket_accepted` replaces it.
    """

    def __init__(self, address: list[Any]) -> None:
        self.address = address

    def send(self, message: str | bytes) -> None:
        """Not before ``accept()``."""

    def close(self, code: int | None, reason: str) -> None:
        """Not before ``accept()``."""

    def enqueue(self, event: Any) -> None:
        """Nothing arrives here."""


NO_PARTITION: Final = -1
"""Of a socket that is no object's."""


def partition_of_owner(owner: object) -> int:
    """The partition of the object that has accepted a socket."""
    return owner.slot.id.partition if type(owner) is Activation else NO_PARTITION


_ABOUT_REQUESTS = frozenset({BODY, BODY_END, BODY_ABORT, BODY_CREDIT, CANCEL})
