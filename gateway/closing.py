"""The closing handshake (RFC 6455 §7) as a table: what each cause does in each phase.

::

                      client's Close          object's CLOSE
                  ┌──────────────────▶ BY_CLIENT ──────────┐
            OPEN ─┤                                        ├─▶ DONE
                  └──────────────────▶ BY_SERVER ──────────┘
                      object's CLOSE          client's Close

Every other cause leads to DONE at once. Whatever happens, the object is told exactly once how the
connection ended, at the first moment that this is known, and TCP ends when both sides have closed,
or no longer can.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Phase(enum.Enum):
    """Where a connection stands; the comment says what comes next."""

    OPEN = "open"  # -> BY_CLIENT, BY_SERVER, DONE
    BY_CLIENT = "the client has closed, the object is to answer"  # -> DONE
    BY_SERVER = "the server has closed, the client is to answer"  # -> DONE
    DONE = "over"  # the end


class Cause(enum.Enum):
    """What may happen to a connection."""

    CLIENT_CLOSE = "the client sent Close"
    OBJECT_CLOSE = "the object closed"
    OBJECT_DROP = "the object gave a code that no Close may carry, such as 1006"
    GATEWAY_CLOSE = "the gateway stops, or the object's home is gone"
    FAULT = "the client broke the protocol or a limit"
    GONE = "the client's TCP connection ended"
    TIMEOUT = "the time for the closing handshake is over, or a vanished client"


class Write(enum.Enum):
    """Which Close frame to send."""

    NONE = 0
    GIVEN = 1  # the code and reason that the cause brought
    ECHO = 2  # the client's own code (§5.5.1: "it typically echos the status code")


class Tell(enum.Enum):
    """What the object is told."""

    NOTHING = 0
    CLIENTS = 1  # the client's code and reason, clean
    LOST = 2  # 1006, not clean


class Tcp(enum.Enum):
    """What becomes of the TCP connection."""

    KEEP = 0
    CLOSE = 1  # at once, when everything is flushed (§7.1.1: the server closes first)
    DRAIN = 2  # send what there is and an end of stream, then discard until the client ends, too:
    #            closing while data arrives would reset the connection and lose our Close frame
    ABORT = 3


class Step(NamedTuple):
    """What one cause does: in this order."""

    write: Write
    tell: Tell
    tcp: Tcp
    phase: Phase


_DONE: Final = Phase.DONE

STEPS: Final[dict[tuple[Phase, Cause], Step]] = {
    (Phase.OPEN, Cause.CLIENT_CLOSE): Step(Write.NONE, Tell.CLIENTS, Tcp.KEEP, Phase.BY_CLIENT),
    (Phase.OPEN, Cause.OBJECT_CLOSE): Step(Write.GIVEN, Tell.NOTHING, Tcp.KEEP, Phase.BY_SERVER),
    (Phase.OPEN, Cause.OBJECT_DROP): Step(Write.NONE, Tell.LOST, Tcp.CLOSE, _DONE),
    (Phase.OPEN, Cause.GATEWAY_CLOSE): Step(Write.GIVEN, Tell.NOTHING, Tcp.KEEP, Phase.BY_SERVER),
    (Phase.OPEN, Cause.FAULT): Step(Write.GIVEN, Tell.LOST, Tcp.DRAIN, _DONE),
    (Phase.OPEN, Cause.GONE): Step(Write.NONE, Tell.LOST, Tcp.CLOSE, _DONE),
    (Phase.OPEN, Cause.TIMEOUT): Step(Write.NONE, Tell.LOST, Tcp.ABORT, _DONE),
    (Phase.BY_CLIENT, Cause.OBJECT_CLOSE): Step(Write.GIVEN, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.BY_CLIENT, Cause.OBJECT_DROP): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.BY_CLIENT, Cause.GATEWAY_CLOSE): Step(Write.ECHO, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.BY_CLIENT, Cause.FAULT): Step(Write.NONE, Tell.NOTHING, Tcp.ABORT, _DONE),
    (Phase.BY_CLIENT, Cause.GONE): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.BY_CLIENT, Cause.TIMEOUT): Step(Write.ECHO, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.BY_SERVER, Cause.CLIENT_CLOSE): Step(Write.NONE, Tell.CLIENTS, Tcp.CLOSE, _DONE),
    (Phase.BY_SERVER, Cause.OBJECT_DROP): Step(Write.NONE, Tell.LOST, Tcp.CLOSE, _DONE),
    (Phase.BY_SERVER, Cause.FAULT): Step(Write.NONE, Tell.LOST, Tcp.DRAIN, _DONE),
    (Phase.BY_SERVER, Cause.GONE): Step(Write.NONE, Tell.LOST, Tcp.CLOSE, _DONE),
    (Phase.BY_SERVER, Cause.TIMEOUT): Step(Write.NONE, Tell.LOST, Tcp.ABORT, _DONE),
}
"""A pair that is missing means: nothing to do (the first close wins)."""
