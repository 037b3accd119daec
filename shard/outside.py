"""The outside world: ``fetch`` and outgoing WebSockets, over one shared pool of connections.

What talks to the network runs in tasks of the shard, not of an object: connections, name lookups
and the pool are shared, so no object's gate and no object's end may hold them up. The object waits
for the result, and takes its request with it when it ends.

::

    object ── fetch ──▶ task of the shard ──▶ HTTP client ──▶ server
       │                     ▲
       └── Upload (request body, read under the object's gates)
       ◀── Download (response body, pulled by whoever reads it)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NoReturn

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from shard.fields import NULL_BODY, content_length, fields_received, fields_to_send
from shard.leaving import GatedChunks
from shard.messages import wants_upgrade
from shard.outgoing import OutgoingSocket, SocketLimits
from shard.redirects import MAX_REDIRECTS, STATUSES, Hop, next_hop
from shard.turn import current_owner
from shard.uploads import Upload
from workers.body import take_body
from workers.exceptions import set_flags
from workers.response import Response
from workers.streams import ReadableStream
from workers.websocket import WebSocket

if TYPE_CHECKING:
    from common.settings import Settings
    from workers.request import Request

MAX_CONNECTIONS: Final = 1024
"""Connections of one shard for requests; further ones wait, which counts as waiting for a head."""
KEEPALIVE_TIMEOUT_S: Final = 15.0
MAX_FIELD_BYTES: Final = 64 * 1024
READ_BUFFER_BYTES: Final = 128 * 1024

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=None)
_NOT_ADDED: Final = ("User-Agent", "Content-Type")
_HANDSHAKE_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LOST: Final = "Network connection lost."


class OutsideWorld:
    """Everything that one shard does on the network beside its links.

    Args:
        settings: ``fetch_timeout_s`` and the bounds of sockets count.
        ssl_context: checks servers' certificates; ``None`` is the system's own trust.
    """

    def __init__(
        self, settings: Settings, loop: asyncio.AbstractEventLoop, ssl_context: Any = None
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._ssl: Any = True if ssl_context is None else ssl_context
        self._limits = SocketLimits.of(settings)
        self._context = Context()
        self._pools: dict[bool, aiohttp.ClientSession] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sockets: set[OutgoingSocket] = set()
        self._closed = False

    def __len__(self) -> int:
        """Outgoing WebSockets that are open or being opened."""
        return len(self._sockets)

    async def close(self) -> None:
        """End everything that is under way."""
        self._closed = True
        for port in list(self._sockets):
            port.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()

    # --- fetch ---------------------------------------------------------------------------------

    def fetch(self, request: Request) -> asyncio.Task[Response]:
        """Send *request*: a task of its response, whose body streams.

        Cancelling the task (or whoever awaits it) gives the request up.

        Raises, from the task:
            TypeError: the URL is not of http, a redirect was not allowed or leads nowhere.
            ConnectionError: ``Network connection lost.``, with ``retryable`` set.
            TimeoutError: no head came within ``FETCH_TIMEOUT_S``.
            OSError: the server's certificate is not trusted, or it does not speak HTTP.
        """
        upgrade = wants_upgrade(request)
        timeout_s = self._settings.fetch_timeout_s
        clock = _Patience(self._loop, timeout_s)
        upload: Upload | None = None
        source = take_body(request)
        headers = fields_to_send(request.headers.raw, upgrade=upgrade)
        if isinstance(source, ReadableStream):
            length = content_length(request.headers.raw)
            if length is not None:
                headers.append(("Content-Length", str(length)))
            window_bytes = self._settings.body_window_bytes
            chunks = GatedChunks(current_owner.get(), source.chunks())
            upload = Upload(chunks, window_bytes, length, clock.restart)
        whole = source if isinstance(source, bytes) else None
        hop = Hop(str(request.method), request.url, headers, whole, upload is not None)
        task = self._start(self._fetch(hop, request.redirect, upgrade, upload, clock))
        if upload is not None:
            task.add_done_callback(lambda task: _stop_if_failed(task, upload))
        return task

    async def _fetch(
        self, hop: Hop, redirect: str, upgrade: bool, upload: Upload | None, clock: _Patience
    ) -> Response:
        first = hop.url
        try:
            async with clock:
                redirects = 0
                while True:
                    answer = await self._exchange(hop, upgrade, upload)
                    location = answer.headers.get("Location")
                    if answer.status not in STATUSES or location is None or redirect == "manual":
                        break
                    answer.close()
                    if redirect == "error":
                        raise TypeError(f'{hop.url} redirects, which redirect="error" forbids')
                    redirects += 1
                    if redirects > MAX_REDIRECTS:
                        raise TypeError(f"Too many redirects: {first}")
                    hop = next_hop(hop, answer.status, location)
                    if upload is not None and not hop.streams:
                        upload.stop()
                        upload = None
        except TimeoutError:
            raise TimeoutError(
                f"{hop.url} sent no response within {self._settings.fetch_timeout_s:g} s "
                "(FETCH_TIMEOUT_S)"
            ) from None
        except Exception as error:
            # What the app's own stream raised, not what the HTTP client makes of it.
            if upload is not None and upload.error is not None:
                raise upload.error from None
            _raise_explained(error, hop.url)
        url = hop.url.partition("#")[0]
        response = self._response(answer, hop.method, url, upload)
        response._redirected = redirects > 0
        return response

    async def _exchange(
        self, hop: Hop, upgrade: bool, upload: Upload | None
    ) -> aiohttp.ClientResponse:
        """One request and the head of its answer; a 101 has been checked."""
        url = URL(hop.url, encoded=True)
        if url.scheme not in ("http", "https"):
            raise TypeError(f"fetch() cannot load {hop.url}: the scheme must be http or https")
        headers = CIMultiDict(hop.headers)
        key = b""
        if upgrade:
            key = base64.b64encode(os.urandom(16))
            headers["Connection"] = "Upgrade"
            headers["Upgrade"] = "websocket"
            headers["Sec-WebSocket-Version"] = "13"
            headers["Sec-WebSocket-Key"] = key.decode()
        answer = await self._pool(upgrade).request(
            hop.method,
            url,
            headers=headers,
            data=upload if hop.streams else hop.body,
            allow_redirects=False,
            read_until_eof=not upgrade,
            ssl=self._ssl,
        )
        if answer.status == 101:
            try:
                _check_handshake(answer, key)
            except BaseException:
                answer.close()
                raise
        return answer

    def _response(
        self, answer: aiohttp.ClientResponse, method: str, url: str, upload: Upload | None
    ) -> Response:
        status = answer.status
        has_body = method != "HEAD" and status not in NULL_BODY
        headers = fields_received(answer.raw_headers, status, has_body=has_body)
        reason = answer.reason or ""
        if status == 101:
            ws = WebSocket()
            ws.url = None
            port = self._port(ws)
            ws.connect(port)
            port.join(answer)
            return Response.from_wire(status, reason, headers, None, ws, url)
        if not has_body:
            answer.release()
            if upload is not None:
                upload.stop()
            return Response.from_wire(status, reason, headers, None, None, url)
        download = Download(answer, upload)
        body = ReadableStream(download, lambda reason: download.close())
        return Response.from_wire(status, reason, headers, body, None, url)

    # --- WebSockets ----------------------------------------------------------------------------

    def open(self, ws: WebSocket, url: str, protocols: Sequence[str], owner: Any) -> None:
        """Connect *ws*, a socket that :meth:`workers.websocket.WebSocket.new` has made.

        Args:
            ws: the socket.
            url: ``ws:`` or ``wss:``.
            protocols: the subprotocols to offer.
            owner: whose code uses it; see :class:`shard.inbox.SocketOwner`.
        """
        port = self._port(ws)
        ws.connect(port)
        port.owned_by(owner)
        port.dial(self._start(self._dial(url, protocols)))

    async def _dial(self, url: str, protocols: Sequence[str]) -> aiohttp.ClientResponse:
        headers = [("Sec-WebSocket-Protocol", ", ".join(protocols))] if protocols else []
        hop = Hop("GET", "http" + url.removeprefix("ws"), headers)
        timeout_s = self._settings.fetch_timeout_s
        try:
            async with asyncio.timeout(timeout_s or None):
                answer = await self._exchange(hop, True, None)
        except TimeoutError:
            raise TimeoutError(f"no response within {timeout_s:g} s (FETCH_TIMEOUT_S)") from None
        except Exception as error:
            _raise_explained(error, url)
        if answer.status != 101:
            answer.close()
            raise _HandshakeError(f"the server answered {answer.status} instead of 101")
        chosen = answer.headers.get("Sec-WebSocket-Protocol")
        if chosen is not None and chosen not in protocols:
            answer.close()
            raise _HandshakeError(
                f"the server chose the subprotocol {chosen!r}, not an offered one"
            )
        return answer

    def _port(self, ws: WebSocket) -> OutgoingSocket:
        port = OutgoingSocket(ws, self._limits, self._loop, self._sockets.discard)
        self._sockets.add(port)
        return port

    # --- the pool ------------------------------------------------------------------------------

    def _start(self, coro: Any) -> asyncio.Task[Any]:
        if self._closed:
            coro.close()
            raise ConnectionError("the shard is stopping")
        # Not in the caller's context: it must not be held by the gate of the caller's object.
        task = self._loop.create_task(coro, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever awaits it is told; nobody has to

    def _pool(self, sockets: bool) -> aiohttp.ClientSession:
        # WebSockets keep their connection for as long as they live: they must not use up the
        # places of requests.
        pool = self._pools.get(sockets)
        if pool is None:
            pool = self._pools[sockets] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0 if sockets else MAX_CONNECTIONS,
                    keepalive_timeout=KEEPALIVE_TIMEOUT_S,
                    socket_factory=_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_NO_TIMEOUT,
                skip_auto_headers=_NOT_ADDED,
                trust_env=False,
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_FIELD_BYTES,
                max_field_size=MAX_FIELD_BYTES,
                max_headers=1000,
            )
        return pool


class Download:
    """The body of a response, pulled piece by piece from its connection.

    The connection goes back to the pool at the end, and is closed when the reader gives up or is
    collected: unread bodies hold connections no longer than their response exists.
    """

    __slots__ = ("_answer", "_upload")

    def __init__(self, answer: aiohttp.ClientResponse, upload: Upload | None) -> None:
        self._answer: aiohttp.ClientResponse | None = answer
        self._upload = upload

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            ConnectionError: the server is gone before the end; ``retryable``.
        """
        if self._answer is None:
            raise StopAsyncIteration
        try:
            piece = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            url = str(self._answer.url)
            self.close()
            _raise_explained(error, url)
        if not piece:
            self.close()
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Read no further."""
        answer, self._answer = self._answer, None
        if answer is not None:
            if self._upload is not None:
                self._upload.stop()
            answer.close()  # no effect after the end: the connection has been given back

    def __del__(self) -> None:
        # At interpreter exit the loop may be gone, and the connection with it.
        with contextlib.suppress(Exception):
            self.close()


class _Patience:
    """``async with``: raises TimeoutError after a while, which begins anew with :meth:`restart`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._timeout: asyncio.Timeout | None = None

    def restart(self) -> None:
        """The other side has shown that it is there."""
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._loop.time() + self._timeout_s)

    async def __aenter__(self) -> None:
        if self._timeout_s:
            self._timeout = asyncio.timeout(self._timeout_s)
            await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        timeout, self._timeout = self._timeout, None
        if timeout is not None:
            await timeout.__aexit__(*error)


def _check_handshake(answer: aiohttp.ClientResponse, key: bytes) -> None:
    """RFC 6455 §4.1, what the client MUST check."""
    wanted = base64.b64encode(hashlib.sha1(key + _HANDSHAKE_GUID).digest()).decode()  # noqa: S324
    connection = [each.strip() for each in answer.headers.get("Connection", "").lower().split(",")]
    if not key or answer.headers.get("Upgrade", "").lower() != "websocket":
        raise _HandshakeError("the server switched to another protocol than WebSocket")
    if "upgrade" not in connection or answer.headers.get("Sec-WebSocket-Accept") != wanted:
        raise _HandshakeError("the server's handshake is not valid")
    if "Sec-WebSocket-Extensions" in answer.headers:
        raise _HandshakeError("the server uses an extension that was not offered")


class _HandshakeError(ConnectionError):
    """The server answered, but did not agree to a WebSocket."""


def _raise_explained(error: Exception, url: str) -> NoReturn:
    explained = _explained(error, url)
    if explained is error:
        raise error
    raise explained from error


def _explained(error: Exception, url: str) -> Exception:
    """What the app is told of an error of the HTTP client."""
    if isinstance(error, _HandshakeError):
        return error
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
        return OSError(f"{url} cannot be trusted: {error}")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return TypeError(f"Invalid URL: {url}")
    if isinstance(error, aiohttp.ContentTypeError | aiohttp.ClientResponseError):
        return OSError(f"{url} answered with something that is not HTTP: {error}")
    if isinstance(error, aiohttp.ClientError | OSError):
        return set_flags(ConnectionError(f"{_LOST} ({url}: {error})"), retryable=True)
    return error


def _stop_if_failed(task: asyncio.Task[Response], upload: Upload) -> None:
    if task.cancelled() or task.exception() is not None:
        upload.stop()


def _socket(address: Any) -> socket.socket:
    """A socket that notices when its peer vanishes without a word."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):  # not on every system
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except BaseException:
        made.close()
        raise
    return made
