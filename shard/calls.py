"""Calls to objects, and to what objects have passed by reference: run as events, then answered.

A call whose caller is in the same process is a :class:`LocalCall`, one that came over a line a
:class:`LineCall`; they differ only in where arguments come from and where the answer goes. In both
cases everything crosses as bytes, so that caller and callee never share a mutable value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import structlog

from common.link.records import FAILED, RESULT
from shard.activation import Activation
from shard.entry import EntryPoint
from shard.errors import copy_error, write_error
from shard.leaving import gate_before
from shard.line import Line
from shard.messages import check_upgrade
from shard.owned_stream import keep_body_with
from shard.references import Export, References, Written, size_of
from shard.slot import EVENT_OVERHEAD_BYTES, Pending, Slot
from shard.turn import Done, Owner
from workers.request import Request
from workers.rpc import RpcStub, RpcTarget, resolve_method

if TYPE_CHECKING:
    from shard.storage.output_gate import OutputGate

log = structlog.get_logger(__name__)

Answered = Callable[[Any, BaseException | None], None]

IMMUTABLE: Final = frozenset({str, int, float, bool, type(None), bytes})
"""Values of these types need no copy."""
_SMALL_BYTES: Final = 64 * 1024
"""Strings up to here are within every limit, in any encoding."""


class Call(Pending):
    """A call as an event of its object.

    Attributes:
        activation: which life of the object it runs in, or waits for.
    """

    __slots__ = ("activation", "method", "references", "stubs")

    def __init__(self, references: References | None, method: str | None) -> None:
        self.size = EVENT_OVERHEAD_BYTES
        self.activation: Activation | None = None
        self.references = references
        self.method = method
        self.stubs: list[RpcStub] | None = None

    def start(self, activation: Activation) -> None:
        """Run it: its object is free."""
        self.activation = activation
        try:
            function, args = self.prepare(activation)
        except Exception as error:
            self.done(None, error)
            return
        activation.invoke(function, args, self.done)

    def fail(self, error: BaseException) -> None:
        """It never ran: the object is overloaded, was reset, or cannot be constructed."""
        life = self.activation
        self.failed(error, remote=False, broken=life is not None and life.was_reset)

    def done(self, value: Any, error: BaseException | None) -> None:
        """It has ended."""
        life = self.activation
        if life is not None and life.dead:
            self.failed(life.death, remote=False, broken=life.was_reset)
        else:
            answer = None
            if error is None:
                try:
                    answer = self.write(value)
                except Exception as refused:
                    error = refused
            if error is not None and life is not None:
                life.failed(error, self.method or "function")
            gate = gate_before(life)
            if gate is not None:
                self._answer_through(gate, answer, error)
            elif error is not None:
                self.failed(error, remote=True, broken=False)
            else:
                self.give(answer)
        if self.stubs:
            for stub in self.stubs:
                stub.dispose()

    def prepare(self, activation: Activation) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What to run. Its exceptions are the call's."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """The answer that stands for a value. What this raises, the caller gets instead."""
        raise NotImplementedError

    def give(self, answer: Any) -> None:
        """Give the caller what :meth:`write` has made."""
        raise NotImplementedError

    def failed(self, error: BaseException, *, remote: bool, broken: bool) -> None:
        """Give the caller an error."""
        raise NotImplementedError

    def _answer_through(self, gate: OutputGate, answer: Any, error: BaseException | None) -> None:
        # It may reveal what is not durable yet. If that is lost, so is the answer.
        def release() -> None:
            if error is not None:
                self.failed(error, remote=True, broken=False)
            else:
                self.give(answer)

        def drop(reason: BaseException) -> None:
            self.failed(reason, remote=False, broken=True)

        gate.push(release, drop, size_of(answer) if type(answer) is bytes else 0)

    def _read_arguments(self, written: Written) -> tuple[list[Any], dict[str, Any]]:
        if type(written) is list:
            self.stubs = []
        assert self.references is not None
        parts = self.references.read(written, self.stubs)
        return parts[0], parts[1] if len(parts) == 2 else _NO_KEYWORDS

    def _object_id(self) -> str | None:
        return None if self.activation is None else str(self.activation.slot.id)


class LocalCall(Call):
    """A call of an object by another one of the same process.

    Args:
        references: of the loopback.
        args: the arguments: written, or the immutable things themselves.
        answered: gets the caller's copy of the value, or of the error.
    """

    __slots__ = ("_answered", "_args")

    def __init__(
        self,
        references: References,
        method: str,
        args: Written | tuple[Any, ...],
        answered: Answered,
    ) -> None:
        super().__init__(references, method)
        self._args = args
        self._answered = answered
        if type(args) is not tuple:
            self.size += size_of(args)  # type: ignore[arg-type]

    def prepare(self, activation: Activation) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        assert self.method is not None
        function = resolve_method(activation.instance, self.method)
        args = self._args
        if type(args) is tuple:
            return function, args
        positional, keywords = self._read_arguments(args)  # type: ignore[arg-type]
        return _bound(function, keywords), tuple(positional)

    def write(self, value: Any) -> Any:
        if type(value) in IMMUTABLE and is_small(value):
            return value
        references = self.references
        assert references is not None
        return references.read(references.write(value, self.activation))

    def give(self, answer: Any) -> None:
        self._answered(answer, None)

    def failed(self, error: BaseException, *, remote: bool, broken: bool) -> None:
        object_id = self._object_id() if remote else None
        self._answered(None, copy_error(error, remote=remote, broken=broken, object_id=object_id))


class FetchCall(Call):
    """A request as an event of its object.

    Args:
        request: handed over, not copied: its body is read once.
        answered: gets the response, or the caller's copy of the error.
    """

    __slots__ = ("_answered", "_request")

    def __init__(self, request: Request, answered: Answered) -> None:
        super().__init__(None, "fetch")
        self._request = request
        self._answered = answered

    def prepare(self, activation: Activation) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        fetch = getattr(activation.instance, "fetch", None)
        if fetch is None:
            raise TypeError("Handler does not export a fetch() function.")
        return fetch, (self._request,)

    def write(self, value: Any) -> Any:
        check_upgrade(value, self._request)
        keep_body_with(self.activation, value)
        return value

    def give(self, answer: Any) -> None:
        self._answered(answer, None)

    def failed(self, error: BaseException, *, remote: bool, broken: bool) -> None:
        # Unlike a method's, a reset is the remote side's too.
        remote = remote or getattr(error, "durableObjectReset", False) is True
        self._answered(None, copy_error(error, remote=remote, broken=broken))


class LineCall(Call):
    """A call that came over a line, of an object or of something that was exported.

    Args:
        line: where the answer goes.
        request_id: whose answer it is.
        export: what is called, or ``None`` for a method of the object itself.
        broke: told the error if the object is reset.
    """

    __slots__ = ("_broke", "_export", "_line", "_request_id", "_written")

    def __init__(
        self,
        references: References,
        request_id: int,
        method: str | None,
        written: Written,
        export: Export | None = None,
        broke: Callable[[BaseException], None] | None = None,
    ) -> None:
        super().__init__(references, method)
        self.size += size_of(written)
        self._line: Line = references.line
        self._request_id = request_id
        self._written = written
        self._export = export
        self._broke = broke

    def prepare(
        self, activation: Activation | EntryPoint | Outside
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        export = self._export
        if export is not None:
            positional, keywords = self._read_arguments(self._written)
            return _bound(_resolve(export.target, self.method), keywords), tuple(positional)
        assert isinstance(activation, Activation)
        assert self.method is not None
        function = resolve_method(activation.instance, self.method)
        positional, keywords = self._read_arguments(self._written)
        return _bound(function, keywords), tuple(positional)

    def run_in(self, owner: EntryPoint | Outside) -> None:
        """Run it as code of an owner that has no slot."""
        try:
            function, args = self.prepare(owner)
        except Exception as error:
            self.done(None, error)
            return
        owner.invoke(function, args, self.done)

    def write(self, value: Any) -> Any:
        if not self._line.is_open:
            return b""
        owner = self.activation if self._export is None else self._export.owner
        assert self.references is not None
        return self.references.write(value, owner)

    def give(self, answer: Any) -> None:
        if self._line.is_open:
            self._line.send([RESULT, self._request_id, answer], size_of(answer))

    def failed(self, error: BaseException, *, remote: bool, broken: bool) -> None:
        if broken and self._broke is not None:
            self._broke(error)
        if self._line.is_open:
            object_id = self._object_id() if remote else None
            fields = write_error(error, remote=remote, broken=broken, object_id=object_id)
            self._line.send([FAILED, self._request_id, fields])


class Outside:
    """Runs code that belongs to no object and no request, as that of a test."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context: Context = copy_context()

    def invoke(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """See :meth:`shard.activation.Activation.invoke`."""
        try:
            result = self._context.run(function, *args)
        except Exception as error:
            done(None, error)
            return
        if not hasattr(result, "__await__"):
            done(result, None)
            return
        coroutine = result if type(result) is CoroutineType else _await(result)
        task = self._loop.create_task(coroutine, context=self._context.copy())
        task.add_done_callback(lambda task: _tell(task, done))


def deliver(slot: Slot, call: Call) -> None:
    """Start a call as an event of *slot*, now or in its turn."""
    slot.deliver(call)
    if call.activation is None:
        call.activation = slot.activation


def invoke_export(export: Export, call: LineCall, outside: Outside) -> None:
    """Start a call of something that was exported, as an event of its owner."""
    owner = export.owner
    if isinstance(owner, Activation):
        if owner.dead:
            call.activation = owner
            call.done(None, None)
        else:
            deliver(owner.slot, call)
        return
    # Never at once: the owner's code may be on the stack, and has no slot to wait in.
    runner = owner if isinstance(owner, EntryPoint) else outside
    asyncio.get_running_loop().call_soon(call.run_in, runner)


def run_disposal(owner: Owner | None, method: Callable[[], Any], outside: Outside) -> None:
    """Run the ``dispose`` of an ``RpcTarget`` as an event of its owner; failures are logged."""
    if isinstance(owner, Activation):
        if not owner.dead:
            owner.slot.call(lambda instance: (method, ()), _log_disposal)
        return
    runner = owner if isinstance(owner, EntryPoint) else outside
    asyncio.get_running_loop().call_soon(runner.invoke, method, (), _log_disposal)


def is_small(value: Any) -> bool:
    """Whether an immutable value is within every limit."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _SMALL_BYTES
    return kind is not int or value.bit_length() <= _SMALL_BYTES


def need_no_copy(args: tuple[Any, ...]) -> bool:
    """Whether these arguments may be handed over as they are."""
    if len(args) > 8:
        return False
    # A loop: all() of a generator costs more than the copy it saves.
    for arg in args:  # noqa: SIM110
        if type(arg) not in IMMUTABLE or not is_small(arg):
            return False
    return True


def _resolve(target: Any, method: str | None) -> Callable[..., Any]:
    if isinstance(target, RpcStub):
        # Somebody else's: pass the call on.
        channel = target._channel
        return lambda *args, **kwargs: channel.call(method, args, kwargs)
    if method is not None:
        if not isinstance(target, RpcTarget):
            raise TypeError(f"Method {method} does not exist")
        return resolve_method(target, method)
    if not callable(target):
        raise TypeError("The RPC receiver is not a function.")
    return target  # type: ignore[no-any-return]


def _bound(function: Callable[..., Any], keywords: dict[str, Any]) -> Callable[..., Any]:
    if not keywords:
        return function
    return lambda *args: function(*args, **keywords)


def _tell(task: asyncio.Task[Any], done: Done) -> None:
    if task.cancelled():
        done(None, asyncio.CancelledError())
    else:
        error = task.exception()
        done(None if error is not None else task.result(), error)


def _log_disposal(value: Any, error: BaseException | None) -> None:
    if error is not None:
        log.error("rpc.dispose_failed", exc_info=error)


async def _await(awaitable: Any) -> Any:
    return await awaitable


_NO_KEYWORDS: Final[dict[str, Any]] = {}
