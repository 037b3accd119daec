"""The shard: everything one shard process holds, and what it does with the records of its links."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from contextvars import Context
from typing import Any

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
    FRAMES,
    REQUEST,
    Record,
)
from common.link.session import Hello
from common.link.transport import Listener, Transport
from common.membership import Membership
from common.settings import Settings
from shard.activation import Activation
from shard.app import App
from shard.entry import EntryPoint
from shard.errors import read_error, write_error
from shard.messages import ResponseFields, response_fields
from shard.namespaces import Namespace, fetch_locally
from shard.object_host import EntryHost, ObjectHost, make_env
from shard.peers import Peers
from shard.requests import Answer, Requests
from shard.slot import Slot
from shard.sockets import SocketTable
from shard.turn import task_factory
from workers.durable_object import prepare_instance
from workers.host import enter_host, set_process_host
from workers.request import Request
from workers.response import Response
from workers.websocket import WebSocket

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
        generations: the partitions this shard owns, each with its generation.
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
        generations: Mapping[Partition, int],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.index = index
        self.app = app
        self.settings = settings
        self.max_pending_bytes = settings.max_pending_bytes
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(task_factory)
        self._transport = transport
        self._placement = membership.placement
        self._clock = clock
        self._listener: Listener | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._requests: dict[Link, Requests] = {}
        self._stopping = False
        self.generations = generations
        self.local = Hello(
            role="shard",
            index=index,
            instance=secrets.token_hex(8),
            window_bytes=settings.link_window_bytes,
            max_batch_bytes=settings.link_max_batch_bytes,
            generations={int(each): number for each, number in generations.items()},
        )
        self.sockets = SocketTable(self._loop, settings.socket_buffer_bytes)
        self.peers = Peers(self.local, settings, transport, rng, read_error)
        self._others = [shard for shard in sorted(membership.shards) if shard != index]
        self.namespaces = {
            binding.name: Namespace(binding, app.class_of(binding), self)
            for binding in app.project.bindings
        }
        self._by_key = {each.binding.unique_key: each for each in self.namespaces.values()}
        self.env = make_env(app.project, self.namespaces)
        set_process_host(EntryHost(self))
        self._entry = EntryPoint(self._make_entry, self._enter_entry, self._loop)

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Accept links, and link up with the other shards."""
        self._listener = await self._transport.listen(f"shard-{self.index}", self._accept)
        for other in self._others:
            self.peers.connect(other)
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    async def stop(self) -> None:
        """Accept no more links and end those that are up; every object leaves memory."""
        self._stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            await self._listener.close()
        await self.peers.close()
        for link in list(self._requests):
            link.close(Unavailable("the shard is stopping"))  # type: ignore[arg-type]
        self._entry.close()
        for namespace in self.namespaces.values():
            for slot in list(namespace.slots.values()):
                slot.evict()
        set_process_host(None)

    def status(self) -> dict[str, Any]:
        """Figures for ``limpet status`` and the metrics."""
        slots = [slot for each in self.namespaces.values() for slot in each.slots.values()]
        return {
            "index": self.index,
            "instance": self.local.instance,
            "partitions": len(self.generations),
            "links": len(self._requests),
            "objects": len(slots),
            "active_objects": sum(slot.activation is not None for slot in slots),
            "sockets": len(self.sockets),
        }

    def _accept(self) -> Link:
        return Link(self.local, self, prompt_acks=True)

    def _sweep(self) -> None:
        now = self._clock.monotonic_s()
        for namespace in self.namespaces.values():
            for slot in list(namespace.slots.values()):
                slot.sweep(now, self.settings.idle_timeout_s)
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    # --- where objects are ---------------------------------------------------------------------

    def home_of(self, object_id: ObjectId) -> int:
        """The shard that owns the object's partition."""
        return self._placement.owner(object_id.partition)

    def namespace_of_key(self, unique_key: str) -> Namespace:
        """The namespace of that key.

        Raises:
            Unavailable: this shard runs another version of the app, without it.
        """
        namespace = self._by_key.get(unique_key)
        if namespace is None:
            raise Unavailable(f"shard {self.index} has no class with the key {unique_key!r}")
        return namespace

    # --- LinkHandler ---------------------------------------------------------------------------

    def link_up(self, link: Link, peer: Hello) -> None:
        log.debug("link.up", peer=f"{peer.role}-{peer.index}", instance=peer.instance)
        self._requests[link] = Requests(
            link,
            self._serve,
            self._fields_of,
            write_error,
            self._withdraw,
            self.settings.body_window_bytes,
        )

    def link_records(self, link: Link, records: list[Record]) -> None:
        requests = self._requests[link]
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
            elif kind == ATTACH:
                self.sockets.attach(link, record[1], record[2])
            elif kind == REQUEST:
                requests.start(record)
            elif kind in _ABOUT_REQUESTS:
                requests.record(record)
            else:
                raise ProtocolError(f"a shard is not sent records of kind {kind}")

    def link_writable(self, link: Link) -> None:
        """What the objects sent meanwhile waits in the session: nobody was paused."""

    def link_down(self, link: Link, error: LinkError) -> None:
        if not self._stopping:
            log.debug("link.down", link=repr(link), error=str(error))
        self.sockets.link_down(link)
        requests = self._requests.pop(link, None)
        if requests is not None:
            requests.link_down()

    # --- requests ------------------------------------------------------------------------------

    def _serve(self, target: list[Any] | None, request: Request, answer: Answer) -> None:
        if target is None:
            if self.app.entry is None:
                answer(None, TypeError("the app has no `class Default(WorkerEntrypoint)`"))
            else:
                self._entry.serve(request, answer)
            return
        try:
            unique_key, raw, name, generation = target
            namespace = self.namespace_of_key(unique_key)
            object_id = namespace.ids.from_raw(raw, name)
            if self.generations.get(object_id.partition) != generation:
                raise Unavailable(f"shard {self.index} does not own the object's partition now")
        except (Unavailable, TypeError, ValueError) as error:
            answer(None, error)
            return
        fetch_locally(namespace.slot(object_id), request, answer)

    def _fields_of(self, response: Response, request: Request) -> ResponseFields:
        return response_fields(response, request, self._export)

    def _export(self, client: WebSocket) -> list[Any]:
        """The address of the socket whose client end leaves in a response."""
        port = client.port
        if isinstance(port, RemoteEnd):
            return port.address
        server = client.take()
        return [self.index, self.sockets.export(server), 0]

    def _withdraw(self, fields: ResponseFields) -> None:
        if fields.socket is not None and fields.socket[0] == self.index:
            self.sockets.withdraw(fields.socket[1])

    def remote_socket(self, address: list[Any]) -> WebSocket:
        """The client end of a socket whose object is on another shard, to be passed on."""
        client = WebSocket()
        client.connect(RemoteEnd(address))
        return client

    # --- app code ------------------------------------------------------------------------------

    def enter_context(self, context: Context, activation: Activation) -> None:
        """See :class:`shard.slot.SlotHost`."""
        context.run(enter_host, ObjectHost(self, activation))

    def make_instance(self, activation: Activation) -> Any:
        """See :class:`shard.slot.SlotHost`."""
        namespace: Namespace = activation.slot.namespace
        host = ObjectHost(self, activation)
        return prepare_instance(namespace.app_class, host.state, self.env)

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
    """The port of a client end whose server end is on another shard."""

    def __init__(self, address: list[Any]) -> None:
        self.address = address

    def send(self, message: str | bytes) -> None:
        raise NotImplementedError("pass this socket on in a Response: it cannot be accepted here")

    def close(self, code: int | None, reason: str) -> None:
        raise NotImplementedError("pass this socket on in a Response: it cannot be accepted here")

    def enqueue(self, event: Any) -> None:
        """Nothing arrives here."""


_ABOUT_REQUESTS = frozenset({BODY, BODY_END, BODY_ABORT, BODY_CREDIT, CANCEL})
