"""Requests and responses: between the app's classes and the records of a link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from common.link.records import BODY_NONE, BODY_STREAM, BODY_WHOLE
from shard.bodies import InboundBody
from workers.body import take_body
from workers.request import Request
from workers.response import FetchResponse, Response
from workers.streams import ReadableStream
from workers.websocket import WebSocket

if TYPE_CHECKING:
    from shard.exchanges import Answer

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class ResponseFields:
    """A response as the fields of a ``RESPONSE`` record, and the stream that follows it."""

    status: int
    reason: str
    headers: list[Any]
    mode: int
    whole: bytes | None
    socket: list[Any] | None
    stream: AsyncIterator[Any] | None


def request_from_wire(head: list[Any], stream: InboundBody | None) -> Request:
    """The request that a ``REQUEST`` record's head describes."""
    method, url, headers, _upgrade, mode, whole, _client = head
    source: Any = None
    if stream is not None:
        source = ReadableStream(stream, lambda reason: stream.discard())
    elif mode == BODY_WHOLE:
        source = whole
    return Request.from_wire(method, url, headers, source)


def request_to_wire(request: Request) -> tuple[list[Any], AsyncIterator[Any] | None]:
    """The head of a request, and the source of its streamed body. Uses the body up.

    Raises:
        OSError: the body was read before.
    """
    source = take_body(request)
    head: list[Any] = [
        str(request.method),
        request.url,
        request.headers.raw,
        wants_upgrade(request),
        BODY_NONE,
        None,
        None,
    ]
    if type(source) is bytes:
        head[4:6] = BODY_WHOLE, source
        return head, None
    if source is not None:
        head[4] = BODY_STREAM
        return head, cast("ReadableStream", source).chunks()
    return head, None


def response_fields(
    response: Response, request: Request, export: Callable[[WebSocket], list[Any]]
) -> ResponseFields:
    """A response as it goes over a link. Uses its body up.

    Args:
        response: what the app answered.
        request: what it answers.
        export: gives the address of the socket whose client end the response carries.

    Raises:
        TypeError: a 101 that answers no upgrade, or carries an end that is in use here.
        OSError: its body was read before.
    """
    check_upgrade(response, request)
    socket = None if response.web_socket is None else export(response.web_socket)
    status = response.status
    reason = response.status_text or _REASONS.get(status, "")
    source = take_body(response)
    headers = response.headers.raw
    if source is None:
        return ResponseFields(status, reason, headers, BODY_NONE, None, socket, None)
    if type(source) is bytes:
        return ResponseFields(status, reason, headers, BODY_WHOLE, source, socket, None)
    stream = cast("ReadableStream", source).chunks()
    return ResponseFields(status, reason, headers, BODY_STREAM, None, socket, stream)


def response_from_wire(answer: Answer, remote_socket: Callable[[list[Any]], WebSocket]) -> Response:
    """The response that came from another shard."""
    body: Any = answer.body
    if isinstance(body, InboundBody):
        inbound = body
        body = ReadableStream(inbound, lambda reason: inbound.discard())
    socket = None if answer.socket is None else remote_socket(answer.socket)
    return Response.from_wire(answer.status, answer.reason, answer.headers, body, socket)


def wants_upgrade(request: Request) -> bool:
    """Whether the request may be answered with a WebSocket."""
    upgrade = request.headers.get("upgrade")
    return upgrade is not None and "websocket" in upgrade.lower()


def check_upgrade(response: object, request: Request) -> None:
    """Refuse what cannot be the answer to *request*.

    Raises:
        TypeError: not a response, or a WebSocket for a request that asked for none.
    """
    if not isinstance(response, FetchResponse):
        raise TypeError(
            "Incorrect type for Promise: the Promise did not resolve to 'Response'. "
            f"fetch() {returned_instead(response)}."
        )
    if response.web_socket is not None and not wants_upgrade(request):
        raise TypeError(
            "Worker tried to return a WebSocket in a response to a request which did not contain "
            'the header "Upgrade: websocket".'
        )


def returned_instead(value: object) -> str:
    """What a handler has returned in place of a response, for its author."""
    if value is None:
        return "returned None: a way through it ends without `return`"
    if hasattr(value, "__await__"):
        return f"returned {value!r}: write `return await …`"
    return f"returned {type(value).__name__}"
