"""Requests that this process makes over a link, and the answers that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from common.errors import LinkDown, LinkError
from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    BODY_STREAM,
    CANCEL,
    FAILED,
    REQUEST,
    RESPONSE,
    Record,
)
from shard.bodies import BodyError, InboundBody, OutboundBody, link_lost
from shard.errors import connection_lost
from shard.line import Line

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a response, as it came over the link.

    Attributes:
        body: the whole body, a stream of it, or ``None``.
        socket: ``[shard, socket id, generation]`` of a 101, or ``None``.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes | InboundBody | None
    socket: list[Any] | None


Answered = Callable[[Answer | None, BaseException | None], None]


class _Exchange:
    __slots__ = ("answered", "inbound", "outbound")

    def __init__(self, answered: Answered) -> None:
        self.answered: Answered | None = answered
        self.inbound: InboundBody | None = None
        self.outbound: OutboundBody | None = None

    @property
    def over(self) -> bool:
        return self.answered is None and self.inbound is None


class Exchanges:
    """All requests under way on one dialled link.

    Args:
        link: an open link, or the loopback.
        window_bytes: credit of each streamed body.
        read_error: turns the map of a ``FAILED`` record into an exception.
    """

    def __init__(
        self,
        link: Line,
        window_bytes: int,
        read_error: Callable[[dict[str, Any]], BaseException],
    ) -> None:
        self.link = link
        self._window_bytes = window_bytes
        self._read_error = read_error
        self._next_id = 1
        self._open: dict[int, _Exchange] = {}

    def request(
        self,
        target: list[Any] | None,
        head: list[Any],
        body: AsyncIterator[Any] | None,
        answered: Answered,
    ) -> int:
        """Send a request; *answered* is called exactly once with the answer or an error.

        For *target* and *head* see ``REQUEST`` in :mod:`common.link.records`; *body* is the source
        of a streamed body (``head`` says :data:`BODY_STREAM`), or ``None``.

        Returns:
            The request's id, for :meth:`cancel`.
        """
        return self.send(REQUEST, [target, head], answered, body, len(head[5] or b""))

    def send(
        self,
        kind: int,
        fields: list[Any],
        answered: Callable[[Any, BaseException | None], None],
        body: AsyncIterator[Any] | None = None,
        size: int = 0,
    ) -> int:
        """Send a record of *kind* that asks for an answer; its fields follow the request id."""
        request_id = self._next_id
        self._next_id += 1
        exchange = _Exchange(answered)
        self._open[request_id] = exchange
        self.link.send([kind, request_id, *fields], size)
        if body is not None:
            exchange.outbound = OutboundBody(self.link, request_id, body, self._window_bytes)
            task = asyncio.get_running_loop().create_task(exchange.outbound.run())
            task.add_done_callback(_body_done)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Nobody waits for that answer any more."""
        exchange = self._open.pop(request_id, None)
        if exchange is not None:
            exchange.answered = None
            if exchange.outbound is not None:
                exchange.outbound.stop()
            if self.link.is_open:
                self.link.send([CANCEL, request_id])

    def record(self, record: Record) -> None:
        """Handle an answering record; one of a request that is over is ignored."""
        kind, request_id = record[0], record[1]
        exchange = self._open.get(request_id)
        if exchange is None:
            return
        match kind:
            case _ if kind == RESPONSE:
                self._response(request_id, exchange, record)
            case _ if kind == FAILED:
                self._settle(request_id, exchange, None, self._read_error(record[2]))
            case _ if kind == BODY and exchange.inbound is not None:
                exchange.inbound.feed(record[2])
            case _ if kind == BODY_END and exchange.inbound is not None:
                exchange.inbound.end()
                exchange.inbound = None
                self._tidy(request_id, exchange)
            case _ if kind == BODY_ABORT and exchange.inbound is not None:
                exchange.inbound.abort(BodyError(str(record[2])))
                exchange.inbound = None
                self._tidy(request_id, exchange)
            case _ if kind == BODY_CREDIT and exchange.outbound is not None:
                exchange.outbound.credit(record[2])
            case _:
                pass

    def result(self, record: Record) -> None:
        """Handle a ``RESULT``: the value of a call."""
        exchange = self._open.get(record[1])
        if exchange is not None:
            self._settle(record[1], exchange, record[2], None)

    def link_down(self, error: LinkError) -> None:
        """Answer everything that is under way: the peer is gone."""
        lost = error if isinstance(error, LinkDown) else LinkDown(str(error))
        exchanges, self._open = self._open, {}
        for exchange in exchanges.values():
            if exchange.outbound is not None:
                exchange.outbound.stop()
            if exchange.inbound is not None:
                exchange.inbound.abort(link_lost(lost))
            answered, exchange.answered = exchange.answered, None
            if answered is not None:
                answered(None, connection_lost(error))

    def _response(self, request_id: int, exchange: _Exchange, record: Record) -> None:
        _, _, status, reason, headers, mode, whole, socket = record
        body: bytes | InboundBody | None = whole
        if mode == BODY_STREAM:
            body = exchange.inbound = InboundBody(self.link, request_id)
        pairs = [(name, value) for name, value in headers]
        self._settle(request_id, exchange, Answer(status, reason, pairs, body, socket), None)

    def _settle(
        self, request_id: int, exchange: _Exchange, value: Any, error: BaseException | None
    ) -> None:
        answered, exchange.answered = exchange.answered, None
        self._tidy(request_id, exchange)
        if answered is not None:
            answered(value, error)

    def _tidy(self, request_id: int, exchange: _Exchange) -> None:
        if exchange.over:
            self._open.pop(request_id, None)
            if exchange.outbound is not None:
                exchange.outbound.stop()


def _body_done(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("request.body_failed", error=repr(error))
