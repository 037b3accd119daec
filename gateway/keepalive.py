"""When to ping a silent client, and when to give it up: a pure decision.

A host that vanishes sends nothing, not even an end of stream. So a client that has been silent for
``PING_INTERVAL_S`` is pinged, and one that does not send a single byte for ``PING_TIMEOUT_S`` after
that is gone. Any byte counts, not only the Pong.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import NamedTuple


class Action(enum.Enum):
    """What to do now."""

    WAIT = "nothing"
    PING = "send a Ping"
    DROP = "the client is gone"


class Decision(NamedTuple):
    """What to do now, and when to decide again (seconds; ``math.inf`` for never)."""

    action: Action
    again_at: float


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The rule.

    Attributes:
        interval_s: of silence before a Ping; 0 for never.
        timeout_s: of silence after it.
    """

    interval_s: float
    timeout_s: float

    def decide(self, now: float, heard_at: float, pinged_at: float) -> Decision:
        """Judge one client.

        Args:
            now: seconds of a monotonic clock, as are the others.
            heard_at: when anything last came from the client.
            pinged_at: when it was last pinged; 0 if never.
        """
        if not self.interval_s:
            return Decision(Action.WAIT, math.inf)
        ping_at = heard_at + self.interval_s
        if now < ping_at:
            return Decision(Action.WAIT, ping_at)
        if pinged_at <= heard_at:
            return Decision(Action.PING, now + self.timeout_s)
        drop_at = pinged_at + self.timeout_s
        if now < drop_at:
            return Decision(Action.WAIT, drop_at)
        return Decision(Action.DROP, math.inf)
