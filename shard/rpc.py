"""One end of a line as calls use it: what is asked of the other end, and what it asks of us.

A shard has such an end for each link it has dialled, for each link that another shard has dialled,
and one for the loopback. Calls to objects go from the dialler to the other side only; calls to what
was passed by reference go both ways, and each side numbers its own.

**Broken stubs.** An object that is reset breaks the stubs whose calls it had: no later call on the
same stub may reach its next life. Such calls may be under way when the caller learns of the reset.
So each call carries its stub's number; this end keeps the numbers of broken ones, and refuses what
still comes on them, until the caller says (``RELEASE`` of the negated number) that this was all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from common.errors import LinkError, Overloaded, ProtocolError
from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    CALL,
    CANCEL,
    FAILED,
    INVOKE,
    RELEASE,
    RESULT,
    Record,
)
from shard.bodies import link_lost
from shard.calls import FetchCall, LineCall, Outside, deliver, invoke_export
from shard.errors import connection_lost, copy_error, is_broken, read_error
from shard.exchanges import Exchanges
from shard.line import Line
from shard.references import Addresses, Disposals, References, Written, size_of
from shard.slot import Slot
from workers.request import Request

RPC_KINDS: Final = frozenset({CALL, RESULT, FAILED, INVOKE, RELEASE})
"""Records that are always an :class:`RpcEnd`'s."""
STREAM_KINDS: Final = frozenset({BODY, BODY_END, BODY_ABORT, BODY_CREDIT, CANCEL})
"""Records that are an :class:`RpcEnd`'s if their id is negative, and a request's otherwise."""

Answered = Callable[[Any, BaseException | None], None]


class RpcContext(Addresses, Protocol):
    """What all ends of a process share.

    Attributes:
        disposals: counts what was passed.
        outside: runs what belongs to no object.
        body_window_bytes, max_rpc_bytes, max_pending_bytes: the settings of these names.
    """

    disposals: Disposals
    outside: Outside
    body_window_bytes: int
    max_rpc_bytes: int
    max_pending_bytes: int

    def slot_at(self, target: list[Any]) -> Slot:
        """The slot of the object that a ``CALL`` or ``REQUEST`` names.

        Raises:
            Unavailable: it is not at home here.
            TypeError: it is no object's address.
        """


class RpcEnd:
    """See the module.

    Args:
        line: an open link, or the loopback.
        context: shared by all ends.
        exchanges: what this end asks over the line, requests included; made here if not given.
    """

    def __init__(self, line: Line, context: RpcContext, exchanges: Exchanges | None = None) -> None:
        self.line = line
        self.exchanges = exchanges or Exchanges(line, context.body_window_bytes, read_error)
        self.references = References(
            line,
            self.exchanges,
            context,
            context.disposals,
            context.body_window_bytes,
            context.max_rpc_bytes,
        )
        self._context = context
        self._broken: dict[int, BaseException] = {}

    def call(self, target: list[Any], method: str, written: Written, answered: Answered) -> None:
        """Call a method of an object whose home is at the other end.

        Args:
            target: ``[unique_key, raw id, name, generation, the stub's number]``.
            method: its name.
            written: the arguments, from :attr:`references`.
            answered: gets the written result, or an error, exactly once.
        """
        waiting = self.line.queued_bytes
        if waiting > self._context.max_pending_bytes:
            text = f"Durable Object is overloaded. {waiting} bytes of calls wait for its shard."
            answered(None, Overloaded(text))
            return
        if not self.line.is_open:  # it waited for the caller's writes, and the link did not
            answered(None, connection_lost(link_lost()))
            return
        self.exchanges.send(CALL, [target, method, written], answered, size=size_of(written))

    def stub_ended(self, number: int) -> None:
        """Tell the other end that its news of a broken stub has come: no more calls will."""
        if self.line.is_open:
            self.line.send([RELEASE, -number, 1])

    def fetch(self, number: int, slot: Slot, request: Request, answered: Answered) -> None:
        """Run a request that the other end has sent to an object here.

        Args:
            number: the stub's.
            slot: the object's.
            request: what it is asked.
            answered: gets the response or the caller's copy of the error, exactly once.
        """

        def settled(response: Any, error: BaseException | None) -> None:
            if error is not None and is_broken(error):
                self._broken[number] = error
            answered(response, error)

        broken = self._broken.get(number)
        if broken is not None:
            settled(None, copy_error(broken, remote=True, broken=True))
        else:
            deliver(slot, FetchCall(request, settled))

    def record(self, record: Record) -> None:
        """Handle a record of :data:`RPC_KINDS`, or one of a stream.

        Raises:
            ProtocolError: it has no place here.
        """
        kind = record[0]
        if kind == RESULT:
            self.exchanges.result(record)
        elif kind == CALL:
            self._called(record)
        elif kind == INVOKE:
            self._invoked(record)
        elif kind == FAILED:
            self.exchanges.record(record)
        elif kind == RELEASE:
            if record[1] < 0:
                self._broken.pop(-record[1], None)
            else:
                self.references.released(record)
        elif kind in STREAM_KINDS:
            self.references.stream_record(record)
        else:
            raise ProtocolError(f"a record of kind {kind} is no part of a call")

    def line_down(self, error: LinkError) -> None:
        """The other end is gone: what it was asked fails, what it held is dropped."""
        self.exchanges.link_down(error)
        self.references.line_down()

    def _called(self, record: Record) -> None:
        _, request_id, target, method, written = record
        number = target[4]

        def broke(error: BaseException) -> None:
            self._broken[number] = error

        call = LineCall(self.references, request_id, method, written, broke=broke)
        try:
            slot = self._context.slot_at(target)
        except Exception as error:
            call.failed(error, remote=False, broken=False)
            return
        broken = self._broken.get(number) if self._broken else None
        if broken is not None:
            call.failed(broken, remote=False, broken=True)
        else:
            deliver(slot, call)

    def _invoked(self, record: Record) -> None:
        _, request_id, handle, method, written = record
        try:
            export = self.references.exported(handle)
        except Exception as error:
            LineCall(self.references, request_id, method, written).failed(
                error, remote=False, broken=False
            )
            return
        call = LineCall(self.references, request_id, method, written, export)
        invoke_export(export, call, self._context.outside)
