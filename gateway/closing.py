"""The closing handshake (RFC 6455 §7) as a table: what each cause does in each phase.

::

                      client's Close          object's CLOSE
                  ┌──────────────────▶ BY_CLIENT ──────────┐
            OPEN ─┤                                        ├─▶ DONE
                  └──────────────────▶ BY_SERVER ──────────┘
                      object's CLOSE          client's Close

A client that can say nothing more, because its direction of TCP has ended or it broke the protocol,
may still be owed answers to what it said before: the object is told at once, and says when it has
come to that (``OBJECT_DROP``); by then all its answers are out::

            OPEN ── end of the client's direction ──▶ FINISHING ── object's word ──▶ DONE
            OPEN ── fault behind messages ──────────▶ FAILING ──── object's word ──▶ DONE

Every other cause leads to DONE at once. Whatever happens, the object is told exactly once how the
connection ended, at the first moment that this is known, and TCP ends when both sides have closed,
or no longer can.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Phase(enum.Enum):
    """Where a connection stands; the comment says what comes next."""

    OPEN = "open"  # -> BY_CLIENT, BY_SERVER, FINISHING, FAILING, DONE
    BY_CLIENT = "the client has closed, the object is to answer"  # -> DONE
    BY_SERVER = "the server has closed, the client is to answer"  # -> DONE
    FINISHING = "the client can say nothing more, the object is to finish its answers"  # -> DONE
    FAILING = "the client broke the protocol, the object is to finish its answers"  # -> DONE
    DONE = "over"  # the end

    __hash__ = object.__hash__  # Enum's own is a Python function, and this is looked up often


class Cause(enum.Enum):
    """What may happen to a connection."""

    CLIENT_CLOSE = "the client sent Close"
    OBJECT_CLOSE = "the object closed"
    OBJECT_DROP = "the object gave a code that no Close may carry, such as 1006"
    GATEWAY_CLOSE = "the gateway stops, or the object's home is gone"
    FAULT = "the client broke the protocol or a limit"
    LATE_FAULT = "the same, behind messages that may not be answered yet"
    END = "the client ended its direction of TCP, and messages may not be answered yet"
    GONE = "the client's TCP connection ended"
    TIMEOUT = "the time for the closing handshake is over, or a vanished client"

    __hash__ = object.__hash__


class Write(enum.Enum):
    """Which Close frame to send."""

    NONE = 0
    GIVEN = 1  # the code and reason that the cause brought
    HELD_BACK = 3  # the code and reason of the fault, now that the answers are out
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
    (Phase.OPEN, Cause.LATE_FAULT): Step(Write.NONE, Tell.LOST, Tcp.KEEP, Phase.FAILING),
    (Phase.OPEN, Cause.END): Step(Write.NONE, Tell.LOST, Tcp.KEEP, Phase.FINISHING),
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
    (Phase.FINISHING, Cause.OBJECT_CLOSE): Step(Write.GIVEN, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FINISHING, Cause.OBJECT_DROP): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FINISHING, Cause.GATEWAY_CLOSE): Step(Write.GIVEN, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FINISHING, Cause.FAULT): Step(Write.NONE, Tell.NOTHING, Tcp.ABORT, _DONE),
    (Phase.FINISHING, Cause.GONE): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FINISHING, Cause.TIMEOUT): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FAILING, Cause.OBJECT_CLOSE): Step(Write.HELD_BACK, Tell.NOTHING, Tcp.DRAIN, _DONE),
    (Phase.FAILING, Cause.OBJECT_DROP): Step(Write.HELD_BACK, Tell.NOTHING, Tcp.DRAIN, _DONE),
    (Phase.FAILING, Cause.GATEWAY_CLOSE): Step(Write.HELD_BACK, Tell.NOTHING, Tcp.DRAIN, _DONE),
    (Phase.FAILING, Cause.FAULT): Step(Write.NONE, Tell.NOTHING, Tcp.ABORT, _DONE),
    (Phase.FAILING, Cause.GONE): Step(Write.NONE, Tell.NOTHING, Tcp.CLOSE, _DONE),
    (Phase.FAILING, Cause.TIMEOUT): Step(Write.HELD_BACK, Tell.NOTHING, Tcp.DRAIN, _DONE),
}
"""A pair that is missing means: nothing to do (the first close wins)."""
