"""A link's life as a table: what each cause does in each state.

::

        GREET              HELLO            PART, LOST
   NEW ───────▶ GREETED ─────────▶ OPEN ──────────────▶ CLOSED

Every state can be left by PART and LOST. What is queued is sent in order from the first moment; it
waits for credit, of which there is none but for ``HELLO`` itself until the peer's has come.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class LinkState(enum.Enum):
    """Where a link stands; the comment says what comes next."""

    NEW = "new"  # -> GREETED, CLOSED
    GREETED = "greeted"  # -> OPEN, CLOSED
    OPEN = "open"  # -> CLOSED
    CLOSED = "closed"  # the end


class LinkCause(enum.Enum):
    """What may happen to a link."""

    GREET = "the transport is up"
    HELLO = "the peer's HELLO has come"
    PART = "this side closes"
    LOST = "the transport is gone, or the peer has said GOODBYE"


class LinkAction(enum.Enum):
    """What follows for what is queued."""

    GREET = "HELLO goes first"
    FLOW = "it goes out as the peer's window allows"
    PART = "what has credit goes out, then GOODBYE; the rest is dropped"
    DROP = "it is dropped"
    NOTHING = "nothing"


class LinkStep(NamedTuple):
    """What one cause does."""

    state: LinkState
    action: LinkAction


_CLOSED: Final = LinkState.CLOSED

STEPS: Final[dict[tuple[LinkState, LinkCause], LinkStep]] = {
    (LinkState.NEW, LinkCause.GREET): LinkStep(LinkState.GREETED, LinkAction.GREET),
    (LinkState.NEW, LinkCause.PART): LinkStep(_CLOSED, LinkAction.DROP),  # nobody to say it to
    (LinkState.NEW, LinkCause.LOST): LinkStep(_CLOSED, LinkAction.DROP),
    (LinkState.GREETED, LinkCause.HELLO): LinkStep(LinkState.OPEN, LinkAction.FLOW),
    (LinkState.GREETED, LinkCause.PART): LinkStep(_CLOSED, LinkAction.PART),
    (LinkState.GREETED, LinkCause.LOST): LinkStep(_CLOSED, LinkAction.DROP),
    (LinkState.OPEN, LinkCause.PART): LinkStep(_CLOSED, LinkAction.PART),
    (LinkState.OPEN, LinkCause.LOST): LinkStep(_CLOSED, LinkAction.DROP),
    (_CLOSED, LinkCause.PART): LinkStep(_CLOSED, LinkAction.NOTHING),  # the first reason counts
    (_CLOSED, LinkCause.LOST): LinkStep(_CLOSED, LinkAction.DROP),
}
"""A pair that is missing is against the protocol: a second ``HELLO``, or one before ours."""
