"""One request of a client and the answer to it, between an HTTP connection and a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from common.link.records import BODY_NONE, BODY_STREAM, BODY_WHOLE
from gateway.bodies import BodyReceiver, BodySender
from gateway.handshake import Accept
from gateway.refusal import Refusal, unavailable
from gateway.request_body import Body, ChunkedBody, LengthBody
from gateway.request_head import RequestHead
from gateway.responses import BadResponseError, Framing, encode_head, encode_refusal, encode_switch

if TYPE_CHECKING:
    from gateway.http import HttpConnection
    from gateway.relay import Relay

log = structlog.get_logger(__name__)

SWITCHING_PROTOCOLS: Final = 101


class Exchange:
    """What an HTTP connection holds while a request is under way. It is a relay's ``Requester``.

    Args:
        http: the client's connection.
        head: of the request.
        accept: the answer to its handshake, if it is one.
        relay: of the shard that is asked.
    """

    __slots__ = (
        "_answered",
        "_body",
        "_framing",
        "_head",
        "_http",
        "_receiver",
        "_relay",
        "_remaining",
        "_request_id",
        "_sender",
        "accept",
    )

    def __init__(
        self, http: HttpConnection, head: RequestHead, accept: Accept | None, relay: Relay
    ) -> None:
        self._http = http
        self._head = head
        self._relay = relay
        self._request_id = 0
        self._body: Body | None = None
        self._sender: BodySender | None = None
        self._receiver: BodyReceiver | None = None
        self._answered = False
        self._framing = Framing.NONE
        self._remaining = 0
        self.accept = accept

    # --- the request, from the client ----------------------------------------------------------

    def start(self, url: str, rest: bytes) -> bytes:
        """Send the request on.

        Args:
            url: absolute.
            rest: what came behind the head.

        Returns:
            What lies behind the request.

        Raises:
            MalformedBodyError: *rest* does not begin with a body.
        """
        head = self._head
        mode, whole = BODY_NONE, b""
        if head.has_body:
            body: Body = ChunkedBody() if head.length is None else LengthBody(head.length)
            whole, rest = body.feed(rest)
            if body.is_complete:
                mode = BODY_WHOLE if whole else BODY_NONE
            else:
                mode = BODY_STREAM
                self._body = body
                self._sender = BodySender(self._http.context.settings.body_window_bytes)
                if head.expects_continue and not whole:
                    self._http.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._request_id = self._relay.request(
            self,
            [
                head.method,
                url,
                head.headers,
                self.accept is not None,
                mode,
                whole if mode == BODY_WHOLE else None,
                self._http.client,
            ],
        )
        if mode == BODY_STREAM and whole:
            self._send(whole)
        return rest

    @property
    def is_receiving(self) -> bool:
        """The request's body has not come completely."""
        return self._body is not None

    @property
    def is_blocked(self) -> bool:
        """The shard has not consumed what it was sent of the request's body."""
        return self._sender is not None and self._sender.is_blocked

    def feed(self, data: bytes) -> bytes:
        """More of the request's body has come; what of it is to be fed again, or lies behind it.

        Raises:
            MalformedBodyError: it has not.
        """
        assert self._body is not None
        part, rest = self._body.feed(data)
        ended = self._body.is_complete
        if ended:
            self._body = None
        if part:
            self._send(part)
        self._end_if_sent()
        return rest

    def _send(self, part: bytes) -> None:
        assert self._sender is not None
        self._relay.send_body(self._request_id, self._sender.push(part))

    def _end_if_sent(self) -> None:
        sender = self._sender
        if sender is not None and self._body is None and not sender.is_blocked:
            self._sender = None
            self._relay.end_body(self._request_id)

    def body_credit(self, count: int) -> None:
        """See :class:`gateway.relay.Requester`."""
        sender = self._sender
        if sender is not None:
            self._relay.send_body(self._request_id, sender.credit(count))
            if not sender.is_blocked:
                self._end_if_sent()
                self._http.body_unblocked(self)

    # --- the answer, from the shard ------------------------------------------------------------

    def answered(
        self,
        status: int,
        reason: str,
        headers: list[list[str]],
        body_mode: int,
        body: bytes | None,
        socket: list[int] | None,
    ) -> None:
        """See :class:`gateway.relay.Requester`."""
        if socket is not None or status == SWITCHING_PROTOCOLS:
            self._relay.forget(self._request_id)
            self._switch(headers, socket)
            return
        http = self._http
        close = self._head.close or http.closes or self._body is not None
        try:
            head = encode_head(
                status,
                reason,
                headers,
                method=self._head.method,
                version=self._head.version,
                body_bytes=None if body_mode == BODY_STREAM else len(body or b""),
                close=close,
                date=http.context.date(),
            )
        except BadResponseError as error:
            self._impossible(str(error))
            return
        self._answered = True
        if body_mode != BODY_STREAM:
            http.write(head.data + body if body and head.framing is Framing.LENGTH else head.data)
            self._finish(close=close)
            return
        http.write(head.data)
        if head.framing is Framing.NONE:
            self._relay.cancel(self._request_id)  # nobody wants the stream
            self._finish(close=close)
            return
        self._framing = head.framing
        self._remaining = head.length
        self._receiver = BodyReceiver(http.context.settings.body_window_bytes)
        http.answering(close or head.framing is Framing.UNTIL_CLOSE)

    def body_arrived(self, data: bytes) -> None:
        """See :class:`gateway.relay.Requester`."""
        receiver = self._receiver
        if receiver is None:
            return
        if self._framing is Framing.CHUNKED:
            if data:
                self._http.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            if self._framing is Framing.LENGTH:
                self._remaining -= len(data)
                if self._remaining < 0:
                    log.error("response.longer_than_its_content_length")
                    self._relay.cancel(self._request_id)
                    self.body_ended(complete=False)
                    return
            self._http.write(data)
        receiver.arrived(len(data))
        if not self._http.is_clogged:
            self.drained()

    def drained(self) -> None:
        """What was written has left: let the shard send more."""
        if self._receiver is not None:
            count = self._receiver.consumed()
            if count:
                self._relay.credit_body(self._request_id, count)

    def body_ended(self, *, complete: bool) -> None:
        """See :class:`gateway.relay.Requester`."""
        if self._receiver is None:
            return
        self._receiver = None
        if not complete or (self._framing is Framing.LENGTH and self._remaining):
            self._http.break_off()
            return
        if self._framing is Framing.CHUNKED:
            self._http.write(b"0\r\n\r\n")
        self._finish(close=False)

    def refused(self, refusal: Refusal) -> None:
        """See :class:`gateway.relay.Requester`."""
        self._relay.cancel(self._request_id)
        if self._answered:
            self._receiver = None
            self._http.break_off()
            return
        close = refusal.close or self._head.close or self._http.closes or self._body is not None
        answer = Refusal(refusal.status, refusal.text, refusal.headers, close, refusal.upgrade)
        self._http.context.counters.refused.value += 1
        self._http.write(
            encode_refusal(
                answer,
                version=self._head.version,
                date=self._http.context.date(),
                head=self._head.method == "HEAD",
            )
        )
        self._finish(close=close)

    def timed_out(self) -> None:
        """The app did not answer an upgrade in time."""
        limit_s = self._http.context.settings.upgrade_timeout_s
        self.refused(Refusal(504, f"ERROR: The app did not answer within {limit_s:g} s."))

    def client_gone(self) -> None:
        """Nobody waits for the answer any more."""
        self._receiver = None
        self._relay.cancel(self._request_id)

    # --- inside --------------------------------------------------------------------------------

    def _switch(self, headers: list[list[str]], socket: list[int] | None) -> None:
        http = self._http
        if socket is None:
            self._impossible("status 101 without a WebSocket")
            return
        if self.accept is None:
            http.router.abandon(socket)
            self._impossible("a WebSocket in answer to a request that is no upgrade")
            return
        if http.context.stopping:
            http.router.abandon(socket)
            self.refused(unavailable("ERROR: This gateway is stopping."))
            return
        relay = http.router.relay(socket[0])
        if relay is None or relay.link is None:
            self.refused(unavailable("ERROR: The shard of this Durable Object is gone."))
            return
        agreed = self.accept.deflate
        if agreed is not None and ["sec-websocket-extensions", ""] in [
            [name.lower(), value] for name, value in headers
        ]:
            agreed = None  # the app's way to say no
        try:
            data = encode_switch(
                self.accept.accept,
                headers,
                self.accept.protocols,
                agreed.response if agreed else "",
            )
        except BadResponseError as error:
            http.router.abandon(socket)
            self._impossible(str(error))
            return
        http.switch(data, relay, socket, agreed)

    def _impossible(self, why: str) -> None:
        log.error("response.impossible", error=why)
        self.refused(Refusal(500, "Internal Server Error", close=False))

    def _finish(self, *, close: bool) -> None:
        if self._body is not None or self._sender is not None:
            self._relay.cancel(self._request_id)  # nobody will send the rest of the request
        self._relay.forget(self._request_id)
        self._http.exchange_over(close=close, unread=self._body is not None)

    def __repr__(self) -> str:
        return f"<Exchange {self._request_id} {self._head.method} {self._head.target!r}>"
