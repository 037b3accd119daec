"""The one tree of errors that Limpet raises.

Every class states three things a caller needs in order to act on it:

* ``retryable``: the same call, sent again later, may succeed. It does not promise that the first
  attempt had no effect: a link can fail after the object has seen the call, so a caller repeats
  only what may run twice;
* ``http_status``: what an HTTP client is answered when the error ends its request;
* ``close_code``: the RFC 6455 §7.4 code an open WebSocket is closed with when the error ends it, or
  ``None`` where the error can only occur before there is a socket.

::

    LimpetError                 retryable  HTTP  close
    ├── ConfigError                no      500     -   a value the operator gave is wrong
    ├── LimitExceeded              no      413   1009  a message or body is too large
    ├── DeadlineExceeded           no      504   1011  the app did not answer in time
    ├── Overloaded                 no      503   1013  a bounded queue is full
    ├── ObjectReset                no      500   1011  the activation ended meanwhile
    ├── StorageError               no      500   1011  an object's file is damaged
    │   └── StorageUnavailable     yes     503   1012  the disk refuses: full, read-only, failing
    ├── Unavailable                yes     503   1012  no process can take this just now
    │   └── HeldElsewhere          yes     503   1012  another process holds what is needed
    └── LinkError                  no      502   1011  the stream between two processes failed
        ├── ProtocolError          no      502   1011  malformed, oversized, other version
        └── LinkDown               yes     503   1012  the peer process went away
            └── LinkClosedByPeer   yes     503   1012  ... having said goodbye and why

Errors of the app's own making that Cloudflare specifies as JavaScript ``TypeError`` or
``RangeError`` (an invalid object id, a bad close code) are Python's ``TypeError`` and
``ValueError``: an app catches those, not these.
"""

# ruff: noqa: N818 - they read as what happened: Overloaded, ObjectReset, LinkDown

from __future__ import annotations

from typing import ClassVar


class LimpetError(Exception):
    """Base of all errors that Limpet itself raises.

    Attributes:
        retryable: the same call, sent again later, may succeed.
        http_status: status (400..599) for an HTTP request that this error ends.
        close_code: WebSocket close code (1000..4999) for a connection that this error ends;
            ``None`` if it can only occur where no connection exists.
    """

    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int | None] = 1011


class ConfigError(LimpetError):
    """A setting, a project file or the machine's set-up is wrong, and a person has to change it.

    ``str()`` is the whole message for that person: the input, what is wrong with it and the remedy;
    the command line prints it as it is, without a traceback.

    Args:
        message: what is wrong, a clause without a final full stop.
        where: the input at fault as its author knows it: ``"PORT=99999"``, ``"--port 99999"`` or
            ``"app/wrangler.jsonc:3:11"``.
        remedy: what to do about it, in the imperative.
    """

    close_code: ClassVar[int | None] = None

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  -> {self.remedy}" if self.remedy else text


class LimitExceeded(LimpetError):
    """Something exceeds a configured limit; the message names setting, limit and size."""

    http_status: ClassVar[int] = 413
    close_code: ClassVar[int | None] = 1009


class DeadlineExceeded(LimpetError):
    """The app did not answer within its time limit.

    Not retryable: it may still be at work, and what it has done stands.
    """

    http_status: ClassVar[int] = 504


class Overloaded(LimpetError):
    """A bounded queue is full. Not retryable: a second attempt makes an overload worse."""

    http_status: ClassVar[int] = 503
    close_code: ClassVar[int | None] = 1013


class ObjectReset(LimpetError):
    """The object's activation ended while it worked on this call.

    The app aborted it, a commit failed, or its constructor did.
    Not retryable: earlier commits of the same call stand.
    """


class StorageError(LimpetError):
    """An object's database cannot be used, or a commit's fate is unknown. The object was reset.

    The message names the file. Trying again does not help, or may do twice what was done.
    """


class StorageUnavailable(StorageError):
    """The disk did not take a write: it is full, read-only or failing. Nothing of it was done.

    The object was reset; it works again, with everything acknowledged, once the cause is gone.
    """

    retryable: ClassVar[bool] = True
    http_status: ClassVar[int] = 503
    close_code: ClassVar[int | None] = 1012


class Unavailable(LimpetError):
    """No live process can take this now: no shard is up, or the object's home is changing."""

    retryable: ClassVar[bool] = True
    http_status: ClassVar[int] = 503
    close_code: ClassVar[int | None] = 1012


class HeldElsewhere(Unavailable):
    """Another process holds something that only one process may hold.

    Args:
        what: the thing, as in ``"partition 17"`` or ``"shard index 0"``.
        holder: who has it, as in ``"pid 4711 on host-a"``; ``None`` if it left no trace.
        partition: the partition concerned, 0..1023, if it is one.
        hint: what else a person might do about it, a sentence.
    """

    def __init__(
        self,
        what: str,
        *,
        holder: str | None,
        partition: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(
            f"{what} is held by {holder or 'an unknown process'}; try again when it has let go"
            + (f"\n  -> {hint}" if hint else "")
        )
        self.what = what
        self.holder = holder
        self.partition = partition


class LinkError(LimpetError):
    """The link between two of our processes failed."""

    http_status: ClassVar[int] = 502


class ProtocolError(LinkError):
    """The peer sent what the link protocol forbids: malformed, oversized or of another version.

    The link is closed with this message and nothing else is affected.
    """


class LinkDown(LinkError):
    """The peer process is gone or unreachable. Ends what was under way on the link."""

    retryable: ClassVar[bool] = True
    http_status: ClassVar[int] = 503
    close_code: ClassVar[int | None] = 1012


class LinkClosedByPeer(LinkDown):
    """The peer ended the link in good order; the message is the reason it gave."""
