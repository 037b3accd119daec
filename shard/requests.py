"""Requests that come over a link, and the answers they get.

A request without a target runs the app's entry point; one with a target goes to an object. Either
way the answer is written to the link it came from, its body streamed under credit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from common.errors import LimpetError
from common.link.driver import Link
from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    BODY_STREAM,
    CANCEL,
    FAILED,
    RESPONSE,
    Record,
)
from shard.bodies import BodyError, InboundBody, OutboundBody, link_lost
from shard.messages import ResponseFields, request_from_wire
from workers.request import Request
from workers.response import Response

log = structlog.get_logger(__name__)

Answer = Callable[[Response | None, BaseException | None], None]
Serve = Callable[[list[Any] | None, Request, Answer], None]
"""Runs a request: target, request, and whom to tell the response or error, exactly once."""


class _Request:
    __slots__ = ("answered", "cancelled", "inbound", "outbound")

    def __init__(self, inbound: InboundBody | None) -> None:
        self.inbound = inbound
        self.outbound: OutboundBody | None = None
        self.answered = False
        self.cancelled = False


class Requests:
    """The requests under way that came over one link."""

    def __init__(
        self,
        link: Link,
        serve: Serve,
        fields_of: Callable[[Response, Request], ResponseFields],
        write_error: Callable[[BaseException], dict[str, Any]],
        withdraw: Callable[[ResponseFields], None],
        window_bytes: int,
    ) -> None:
        self._link = link
        self._serve = serve
        self._fields_of = fields_of
        self._write_error = write_error
        self._withdraw = withdraw
        self._window_bytes = window_bytes
        self._open: dict[int, _Request] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._open)

    def start(self, record: Record) -> None:
        """Handle a ``REQUEST`` record."""
        _, request_id, target, head = record
        stream: InboundBody | None = None
        if head[4] == BODY_STREAM:
            stream = InboundBody(self._link, request_id)
        entry = _Request(stream)
        try:
            request = request_from_wire(head, stream)
        except (TypeError, ValueError) as refused:
            # The gateway has checked what it can; whatever is left harms this request alone.
            self._link.send([FAILED, request_id, self._write_error(refused)])
            return
        self._open[request_id] = entry

        def answer(response: Response | None, error: BaseException | None) -> None:
            self._answer(request_id, entry, request, response, error)

        self._serve(target, request, answer)

    def record(self, record: Record) -> None:
        """Handle a record about a request under way; one that is over is ignored."""
        kind, request_id = record[0], record[1]
        entry = self._open.get(request_id)
        if entry is None:
            return
        if kind == BODY and entry.inbound is not None:
            entry.inbound.feed(record[2])
        elif kind == BODY_END and entry.inbound is not None:
            entry.inbound.end()
            self._tidy(request_id, entry)
        elif kind == BODY_ABORT and entry.inbound is not None:
            entry.inbound.abort(BodyError(str(record[2])))
            self._tidy(request_id, entry)
        elif kind == BODY_CREDIT and entry.outbound is not None:
            entry.outbound.credit(record[2])
        elif kind == CANCEL:
            # The handler runs to its end (as on Cloudflare); only its answer has no use any more.
            entry.cancelled = True
            if entry.inbound is not None:
                entry.inbound.abort(BodyError("the client went away"))
            if entry.outbound is not None:
                entry.outbound.stop()
            self._tidy(request_id, entry)

    def link_down(self) -> None:
        """The link is gone, and with it whoever asked."""
        requests, self._open = self._open, {}
        for entry in requests.values():
            entry.cancelled = True
            if entry.inbound is not None:
                entry.inbound.abort(link_lost())
            if entry.outbound is not None:
                entry.outbound.stop()

    def _answer(
        self,
        request_id: int,
        entry: _Request,
        request: Request,
        response: Response | None,
        error: BaseException | None,
    ) -> None:
        entry.answered = True
        if response is not None:
            try:
                fields = self._fields_of(response, request)
            except Exception as refused:
                error = refused
        # What is left of the request's body is not discarded: the response may be made of it.
        # Whoever sends it ends it when the response is complete.
        if error is not None:
            if self._link.is_open and not entry.cancelled:
                self._link.send([FAILED, request_id, self._write_error(error)])
            self._tidy(request_id, entry)
            return
        if not self._link.is_open or entry.cancelled:
            self._withdraw(fields)
            if fields.stream is not None:
                unread = OutboundBody(self._link, request_id, fields.stream, 0)
                unread.stop()
                asyncio.get_running_loop().create_task(unread.run()).add_done_callback(_body_done)
            self._tidy(request_id, entry)
            return
        self._link.send(
            [
                RESPONSE,
                request_id,
                fields.status,
                fields.reason,
                fields.headers,
                fields.mode,
                fields.whole,
                fields.socket,
            ],
            len(fields.whole or b""),
        )
        if fields.stream is not None:
            self._stream(request_id, entry, fields.stream)
        else:
            self._tidy(request_id, entry)

    def _stream(self, request_id: int, entry: _Request, source: AsyncIterator[Any]) -> None:
        entry.outbound = OutboundBody(self._link, request_id, source, self._window_bytes)
        task = asyncio.get_running_loop().create_task(entry.outbound.run())

        def ended(task: asyncio.Task[None]) -> None:
            entry.outbound = None
            self._tidy(request_id, entry)
            _body_done(task)

        task.add_done_callback(ended)

    def _tidy(self, request_id: int, entry: _Request) -> None:
        read = entry.inbound is None or entry.inbound.over
        if entry.answered and entry.outbound is None and read:
            self._open.pop(request_id, None)


def _body_done(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("response.body_failed", error=repr(error))


def http_status_of(error: BaseException) -> int:
    """The status that an HTTP client gets for an error that nobody handled."""
    return error.http_status if isinstance(error, LimpetError) else 500
