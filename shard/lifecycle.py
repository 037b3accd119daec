"""A slot's life as a table: what each cause does in each state.

::

               EVENT            constructor returns
    ASLEEP ─────────────▶ WAKING ─────────────────▶ AWAKE
      │  ▲  CROWD   TURN ▲   │ RESET                  │ RESET, IDLE
      │  └─────▶ DUE ────┘   │                        │
      └◀─────────────────────┴────────────────────────┘

Every state can be left by LEAVE. An event that comes while the object is WAKING, DUE or AWAKE
changes nothing here: it starts at once if the object is free, and waits otherwise.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class State(enum.Enum):
    """Where an object is; the comment says what comes next."""

    ASLEEP = "not in memory"  # -> WAKING, DUE
    DUE = "not in memory, and waits for its turn to wake"  # -> WAKING, ASLEEP
    WAKING = "its constructor runs"  # -> AWAKE, ASLEEP
    AWAKE = "in memory"  # -> ASLEEP


class Cause(enum.Enum):
    """What may happen to an object."""

    EVENT = "an event comes"
    CROWD = "an event comes, and many others are waking, or a thread has its database"
    TURN = "its turn to wake has come"
    CONSTRUCTED = "its constructor has returned"
    RESET = "abort, a failed commit, section or constructor"
    IDLE = "nothing has happened for IDLE_TIMEOUT_S"
    LEAVE = "it leaves this shard"


class Action(enum.Enum):
    """What follows."""

    CONSTRUCT = "its constructor runs"
    QUEUE = "the event waits until its turn"
    START = "the event starts"
    FAIL = "handlers and waiting events fail, its sockets close"
    SLEEP = "handlers are cut, waiting events fail, held sockets stay"
    NOTHING = "nothing"


class Step(NamedTuple):
    """What one cause does."""

    state: State
    action: Action


STEPS: Final[dict[tuple[State, Cause], Step]] = {
    (State.ASLEEP, Cause.EVENT): Step(State.WAKING, Action.CONSTRUCT),
    (State.ASLEEP, Cause.CROWD): Step(State.DUE, Action.QUEUE),
    (State.ASLEEP, Cause.RESET): Step(State.ASLEEP, Action.NOTHING),  # it is over already
    (State.ASLEEP, Cause.LEAVE): Step(State.ASLEEP, Action.SLEEP),
    (State.DUE, Cause.TURN): Step(State.WAKING, Action.CONSTRUCT),
    (State.DUE, Cause.RESET): Step(State.DUE, Action.NOTHING),  # of a life before
    (State.DUE, Cause.LEAVE): Step(State.ASLEEP, Action.SLEEP),
    (State.WAKING, Cause.CONSTRUCTED): Step(State.AWAKE, Action.START),
    (State.WAKING, Cause.RESET): Step(State.ASLEEP, Action.FAIL),
    (State.WAKING, Cause.LEAVE): Step(State.ASLEEP, Action.SLEEP),
    (State.AWAKE, Cause.RESET): Step(State.ASLEEP, Action.FAIL),
    (State.AWAKE, Cause.IDLE): Step(State.ASLEEP, Action.SLEEP),
    (State.AWAKE, Cause.LEAVE): Step(State.ASLEEP, Action.SLEEP),
}
"""A pair that is missing cannot happen."""
