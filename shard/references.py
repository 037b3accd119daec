"""What objects pass to each other by reference: functions, ``RpcTarget``s, streams.

Each line has a table at both of its ends. Whoever passes a value *exports* it under a handle, a
number of its own; the other end *imports* it as a stub that sends ``INVOKE`` with the handle. The
export keeps its owner in memory until the last duplicate of the stub is disposed of (or collected),
which sends ``RELEASE``; or until the line is down.

::

    passed          comes out as            is gone when
    function        RpcStub                 released, owner reset, line down
    RpcTarget       RpcStub                 the same
    RpcStub         RpcStub, by way of us   the same
    object's stub   object's stub           (an address: nothing is exported)
    ReadableStream  ReadableStream          at its end, or when the reader gives up

A stream is sent under the *negative* of its handle with the ``BODY`` records of requests, whose ids
are positive. Nothing is sent before the reader has granted credit, so a stream that nobody takes
costs nothing.

https://developers.cloudflare.com/workers/runtime-apis/rpc/lifecycle/
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, Protocol

import structlog

from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    CANCEL,
    INVOKE,
    RELEASE,
    Record,
)
from shard.activation import Activation
from shard.bodies import BodyError, InboundBody, OutboundBody, link_lost
from shard.errors import connection_lost
from shard.exchanges import Exchanges
from shard.leaving import GatedChunks, gate_before
from shard.line import Line
from shard.promise import Promise
from shard.turn import Owner, current_owner
from workers.exceptions import JsException
from workers.namespace import DurableObjectStub
from workers.rpc import RpcStub, RpcTarget
from workers.serialization import deserialize, serialize
from workers.streams import ReadableStream

log = structlog.get_logger(__name__)

DISPOSED: Final = "RPC stub used after being disposed."

_OBJECT: Final = 0
_CALLABLE: Final = 1
_STREAM: Final = 2

Written = bytes | list[bytes]
"""Serialised values: in a list if handles are among them, so that most need no table to be read."""


class Addresses(Protocol):
    """Turns addresses into stubs of objects and back."""

    def object_address(self, stub: DurableObjectStub) -> list[Any]:
        """``[unique_key, raw id, name]``."""

    def object_stub(self, address: list[Any]) -> DurableObjectStub:
        """A new stub of the object at that address."""


class Export:
    """What the other end may use under one handle.

    Attributes:
        target: a function, an ``RpcTarget``, or an ``RpcStub`` of a third party.
        owner: whose it is: calls run as its events.
        count: how often it may still be released.
    """

    __slots__ = ("count", "owner", "target")

    def __init__(self, target: Any, owner: Owner | None) -> None:
        self.target = target
        self.owner = owner
        self.count = 1


class Disposals:
    """Counts the exports of each ``RpcTarget``; the last one to go runs its ``dispose``.

    Args:
        run: runs a method as an event of its owner.
    """

    def __init__(self, run: Callable[[Owner | None, Callable[[], Any]], None]) -> None:
        self._run = run
        self._exported: dict[int, int] = {}

    def exported(self, target: RpcTarget) -> None:
        """One more stub of *target* was given away."""
        self._exported[id(target)] = self._exported.get(id(target), 0) + 1

    def dropped(self, target: RpcTarget, owner: Owner | None, *, dispose: bool) -> None:
        """One is gone; it counts for *dispose* unless it never left."""
        left = self._exported[id(target)] - 1
        if left:
            self._exported[id(target)] = left
            return
        del self._exported[id(target)]
        method = getattr(target, "__dispose__", None) or getattr(target, "dispose", None)
        if dispose and callable(method) and (owner is None or not owner.dead):
            self._run(owner, method)


class References:
    """Both tables of one end of a line: what it has exported, and what it has imported.

    Args:
        line: where the other end is.
        exchanges: the calls that this end makes over it.
        addresses: of objects.
        disposals: shared by all lines of the process.
        window_bytes: credit of each stream.
        max_bytes: limit of serialised arguments, and of a result.
    """

    def __init__(
        self,
        line: Line,
        exchanges: Exchanges,
        addresses: Addresses,
        disposals: Disposals,
        window_bytes: int,
        max_bytes: int,
    ) -> None:
        self.line = line
        self.exchanges = exchanges
        self.addresses = addresses
        self.loop = asyncio.get_running_loop()
        self.thread_id = threading.get_ident()
        self._disposals = disposals
        self._window_bytes = window_bytes
        self._max_bytes = max_bytes
        self._next_handle = 1
        self._exports: dict[int, Export] = {}
        self._sources: dict[int, _Source] = {}
        self._inbound: dict[int, InboundBody] = {}

    # --- values --------------------------------------------------------------------------------

    def write(self, value: Any, owner: Owner | None) -> Written:
        """Serialise *value*; what it holds by reference belongs to *owner*.

        Raises:
            DataCloneError, TypeError, JsException: see :func:`workers.serialization.serialize`.
        """
        handles = _Handles(self, owner)
        try:
            data = serialize(value, handles, self._max_bytes)
        except BaseException:
            for handle in handles.exported:
                self._withdraw(handle)
            raise
        return [data] if handles.used else data

    def read(self, written: Written, stubs: list[RpcStub] | None = None) -> Any:
        """The value that the other end wrote.

        Args:
            written: what came.
            stubs: gets the stubs that were in it, for their disposal.
        """
        if type(written) is not list:
            return deserialize(written)  # type: ignore[arg-type]
        handles = _Handles(self, None)
        try:
            return deserialize(written[0], handles)
        finally:
            if stubs is not None:
                stubs.extend(handles.taken)

    # --- exports -------------------------------------------------------------------------------

    def export(self, target: Any, owner: Owner | None) -> int:
        """Let the other end call *target*; its handle."""
        handle = self._new_handle()
        self._exports[handle] = Export(target, owner)
        if isinstance(owner, Activation):
            owner.held_up += 1
        if isinstance(target, RpcTarget):
            self._disposals.exported(target)
        return handle

    def exported(self, handle: int) -> Export:
        """What was exported under *handle*.

        Raises:
            JsException: it was released.
        """
        export = self._exports.get(handle)
        if export is None:
            raise JsException(DISPOSED, "Error")
        return export

    def export_stream(self, stream: ReadableStream, owner: Owner | None) -> int:
        """Send *stream* as soon as the other end grants credit; its handle."""
        handle = self._new_handle()
        self._sources[handle] = _Source(stream.chunks(), owner)
        if isinstance(owner, Activation):
            owner.held_up += 1
        return handle

    def _new_handle(self) -> int:
        handle = self._next_handle
        self._next_handle += 1
        return handle

    def _withdraw(self, handle: int) -> None:
        self._end_source(handle)
        export = self._exports.pop(handle, None)
        if export is not None:
            self._dropped(export, was_sent=False)

    def _end_source(self, handle: int) -> bool:
        """Forget a source and stop it; false if that was done before."""
        source = self._sources.pop(handle, None)
        if source is None:
            return False
        if isinstance(source.owner, Activation):
            source.owner.held_up -= 1
            source.owner.stirred = True
        if source.outbound is not None:
            source.outbound.stop()
        return True

    def _dropped(self, export: Export, *, was_sent: bool = True) -> None:
        owner, target = export.owner, export.target
        if isinstance(owner, Activation):
            owner.held_up -= 1
            owner.stirred = True
        if isinstance(target, RpcTarget):
            self._disposals.dropped(target, owner, dispose=was_sent)
        elif isinstance(target, RpcStub):
            target.dispose()

    # --- imports -------------------------------------------------------------------------------

    def import_stub(self, handle: int) -> RpcStub:
        """A stub of what the other end has exported."""
        return RpcStub(ImportedChannel(_Import(self, handle)))

    def import_stream(self, handle: int) -> ReadableStream:
        """The stream that the other end has exported; asks for its first bytes."""
        body = InboundBody(self.line, -handle)
        self._inbound[handle] = body
        if self.line.is_open:
            self.line.urgent([BODY_CREDIT, -handle, self._window_bytes])
        else:
            body.abort(link_lost())
        return ReadableStream(_ImportedStream(self, handle, body))

    def invoke(
        self, handle: int, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        """Call what the other end exported under *handle*."""
        promise: Promise[Any] = Promise()
        if not self.line.is_open:
            promise.settle(None, connection_lost(link_lost()))
            return promise
        owner = current_owner.get()
        written = self.write([list(args), kwargs] if kwargs else [list(args)], owner)

        def send() -> None:
            fields = [handle, method, written]
            if self.line.is_open:
                self.exchanges.send(INVOKE, fields, self.settles(promise), size=size_of(written))
            else:
                promise.settle(None, connection_lost(link_lost()))

        gate = gate_before(owner)
        if gate is None:
            send()
        else:
            gate.push(send, lambda error: promise.settle(None, error), size_of(written))
        return promise

    def settles(self, promise: Promise[Any]) -> Callable[[Any, BaseException | None], None]:
        """What gives a written result to *promise*."""

        def answered(written: Any, error: BaseException | None) -> None:
            value = None
            if error is None:
                try:
                    value = self.read(written)
                except Exception as unreadable:
                    error = unreadable
            promise.settle(value, error)

        return answered

    def release(self, handle: int) -> None:
        """The last stub of *handle* is gone at this end."""
        if self.line.is_open:
            self.line.send([RELEASE, handle, 1])

    def cancel_stream(self, handle: int) -> None:
        """Nobody reads that stream any more."""
        if self._inbound.pop(handle, None) is not None and self.line.is_open:
            self.line.send([CANCEL, -handle])

    # --- records -------------------------------------------------------------------------------

    def released(self, record: Record) -> None:
        """Handle a ``RELEASE``."""
        _, handle, count = record
        export = self._exports.get(handle)
        if export is not None:
            export.count -= count
            if export.count <= 0:
                del self._exports[handle]
                self._dropped(export)

    def stream_record(self, record: Record) -> None:
        """Handle a ``BODY`` record, or one about it, with a negative id."""
        kind, handle = record[0], -record[1]
        if kind == BODY_CREDIT:
            self._credit(handle, record[2])
        elif kind == CANCEL:
            self._end_source(handle)
        else:
            self._stream_piece(kind, handle, record)

    def _stream_piece(self, kind: int, handle: int, record: Record) -> None:
        body = self._inbound.get(handle)
        if body is None:
            return
        if kind == BODY:
            body.feed(record[2])
            return
        del self._inbound[handle]
        if kind == BODY_END:
            body.end()
        elif kind == BODY_ABORT:
            body.abort(BodyError(str(record[2])))

    def _credit(self, handle: int, count: int) -> None:
        source = self._sources.get(handle)
        if source is None:
            return
        if source.outbound is not None:
            source.outbound.credit(count)
            return
        chunks = GatedChunks(source.owner, source.stream)
        outbound = source.outbound = OutboundBody(self.line, -handle, chunks, count)
        context = copy_context() if source.owner is None else source.owner.context.copy()
        # A task of the owner: its generator's steps obey the owner's gate, and end with its life.
        task = self.loop.create_task(outbound.run(), context=context)
        task.add_done_callback(lambda task: self._sent(handle, task))

    def _sent(self, handle: int, task: asyncio.Task[None]) -> None:
        wanted = self._end_source(handle)
        if task.cancelled():
            if wanted and self.line.is_open:
                self.line.send([BODY_ABORT, -handle, "the object that sent it is gone"])
        elif (error := task.exception()) is not None:
            log.warning("stream.failed", error=repr(error))

    def line_down(self) -> None:
        """The other end is gone: so is all that it had, and what it held here."""
        exports, self._exports = self._exports, {}
        for export in exports.values():
            self._dropped(export)
        for handle in list(self._sources):
            self._end_source(handle)
        inbound, self._inbound = self._inbound, {}
        for body in inbound.values():
            body.abort(link_lost())

    def statistics(self) -> dict[str, int]:
        """How many entries the tables have."""
        return {
            "exports": len(self._exports),
            "sources": len(self._sources),
            "inbound": len(self._inbound),
        }


class _Source:
    """An exported stream, and what sends it once the other end has granted credit."""

    __slots__ = ("outbound", "owner", "stream")

    def __init__(self, stream: AsyncIterator[Any], owner: Owner | None) -> None:
        self.stream = stream
        self.owner = owner
        self.outbound: OutboundBody | None = None


class _Handles:
    """The :class:`~workers.serialization.HandleTable` of one value."""

    __slots__ = ("_owner", "_references", "exported", "taken", "used")

    def __init__(self, references: References, owner: Owner | None) -> None:
        self._references = references
        self._owner = owner
        self.used = False
        self.exported: list[int] = []
        self.taken: list[RpcStub] = []

    def put(self, value: Any) -> list[Any]:
        self.used = True
        references = self._references
        if isinstance(value, DurableObjectStub):
            return [_OBJECT, references.addresses.object_address(value)]
        if isinstance(value, ReadableStream):
            handle = references.export_stream(value, self._owner)
            self.exported.append(handle)
            return [_STREAM, handle]
        target = value.dup() if isinstance(value, RpcStub) else value
        handle = references.export(target, self._owner)
        self.exported.append(handle)
        return [_CALLABLE, handle]

    def take(self, data: Any) -> Any:
        kind, what = data
        references = self._references
        if kind == _OBJECT:
            return references.addresses.object_stub(what)
        if kind == _STREAM:
            return references.import_stream(what)
        if kind != _CALLABLE:
            raise ValueError(f"a reference of an unknown kind {kind!r}")
        stub = references.import_stub(what)
        self.taken.append(stub)
        return stub


class _Import:
    """One imported handle, shared by the duplicates of its stub."""

    __slots__ = ("count", "handle", "references")

    def __init__(self, references: References, handle: int) -> None:
        self.references = references
        self.handle = handle
        self.count = 0

    def let_go(self) -> None:
        self.count -= 1
        if not self.count:
            self.references.release(self.handle)


class ImportedChannel:
    """Calls to what the other end has exported; see :class:`workers.host.TargetChannel`."""

    __slots__ = ("__weakref__", "_disposed", "_import")

    def __init__(self, shared: _Import) -> None:
        shared.count += 1
        self._import = shared
        self._disposed = False

    def call(
        self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        self._check()
        shared = self._import
        return shared.references.invoke(shared.handle, method, args, kwargs)

    def dup(self) -> ImportedChannel:
        self._check()
        return ImportedChannel(self._import)

    def dispose(self) -> None:
        if not self._disposed:
            self._disposed = True
            self._import.let_go()

    def __del__(self) -> None:
        # The collector may run on any thread, and in the middle of anything on this one.
        if not self._disposed:
            self._disposed = True
            _soon(self._import.references, self._import.let_go)

    def _check(self) -> None:
        if self._disposed:
            raise JsException(DISPOSED, "Error")


class _ImportedStream:
    """Reads an imported stream; gives it up when nobody can read it any more."""

    __slots__ = ("_body", "_handle", "_references")

    def __init__(self, references: References, handle: int, body: InboundBody) -> None:
        self._references = references
        self._handle = handle
        self._body = body

    def __aiter__(self) -> _ImportedStream:
        return self

    async def __anext__(self) -> bytes:
        return await self._body.__anext__()

    async def aclose(self) -> None:
        """Read no further."""
        self._references.cancel_stream(self._handle)

    def __del__(self) -> None:
        handle = self._handle
        references = self._references
        _soon(references, lambda: references.cancel_stream(handle))


def size_of(written: Written) -> int:
    """Bytes of a written value."""
    return len(written[0]) if type(written) is list else len(written)


def _soon(references: References, callback: Callable[[], None]) -> None:
    loop = references.loop
    if loop.is_closed():
        return
    if threading.get_ident() == references.thread_id:
        loop.call_soon(callback)
    else:
        loop.call_soon_threadsafe(callback)
