"""Why connections end: what a client is told, and what its object is told.

One constant for each reason, used where it is given; the table of the documentation is written from
:data:`CLOSES`, and the history checker accepts no others.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class CloseReason(NamedTuple):
    """A Close that no app code has asked for.

    Attributes:
        code: of the Close frame; 1006 if there is none, and TCP just ends.
        text: its reason; empty if that names the fault, or there is none.
        when: in words, for the documentation.
        again: whether a client should try again.
    """

    code: int
    text: str
    when: str
    again: str


STOPPING: Final = CloseReason(1001, "The gateway is stopping", "the gateway stops", "yes")
VIOLATION: Final = CloseReason(
    1002,
    "",
    "the client broke RFC 6455: unmasked, reserved bits, unknown opcode, bad fragments, bad close "
    "code",
    "no",
)
NOT_TEXT: Final = CloseReason(
    1007, "", "text or reason that is not UTF-8, or data that does not decompress", "no"
)
TOO_LARGE: Final = CloseReason(1009, "", "a message larger than `MAX_MESSAGE_BYTES`", "no")
RESET: Final = CloseReason(
    1011,
    "Durable Object was reset",
    "abort, failed commit, failed or slow `blockConcurrencyWhile`, failed constructor",
    "yes, with care",
)
UNCAUGHT: Final = CloseReason(
    1011, "Uncaught exception in a message listener", "on a regular socket", "no"
)
RESTARTING: Final = CloseReason(
    1012,
    "The Durable Object is restarting",
    "its process went away: a regular socket, or a held one with a frame that was not handled",
    "yes",
)
NOT_THERE: Final = CloseReason(
    1012,
    "The object is no longer there",
    "it went between its answer and the connection, or its class was removed",
    "yes",
)
SLOW: Final = CloseReason(
    1013, "The client reads too slowly", "over `CONNECTION_BUFFER_BYTES`", "later"
)
CROWDED: Final = CloseReason(
    1013,
    "Too many unfinished messages",
    "over `PARTIAL_TOTAL_BYTES`, and this client has sent most of one",
    "later",
)
AWAY: Final = CloseReason(
    1013,
    "The Durable Object is away for too long",
    "its shard did not come back within `HOLD_TIMEOUT_S`",
    "later",
)
OVERLOADED: Final = CloseReason(
    1013, "Durable Object is overloaded", "over `MAX_PENDING_BYTES`", "later"
)
NO_CLOSE: Final = CloseReason(
    1006,
    "",
    "TCP ends without a Close: a vanished client, the app closed with 1006, or the gateway died",
    "yes",
)

CLOSES: Final = (
    STOPPING,
    VIOLATION,
    NOT_TEXT,
    TOO_LARGE,
    RESET,
    UNCAUGHT,
    RESTARTING,
    NOT_THERE,
    SLOW,
    CROWDED,
    AWAY,
    OVERLOADED,
    NO_CLOSE,
)
"""All of them, in the order of their codes; the last is what a client itself calls it."""

RESTARTED: Final = RESTARTING.code
RESTARTED_TEXT: Final = RESTARTING.text

# --- why an object is told that a client is gone, when the client has not said so (code 1006) -----

LOST_TEXT: Final = "WebSocket disconnected without sending Close frame."
IN_DOUBT_TEXT: Final = "The Durable Object was restarted while it had a message of this client."
TOO_LONG_TEXT: Final = "The Durable Object was away for too long."
OVERLOADED_TEXT: Final = "The Durable Object is overloaded."

NO_FAULT: Final = frozenset({LOST_TEXT, IN_DOUBT_TEXT, TOO_LONG_TEXT, OVERLOADED_TEXT})
"""Every other text names what the client has done wrong."""
