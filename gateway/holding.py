"""Holding: what happens to a shard's held connections while it is away, as a machine without I/O.

Theory of operation
-------------------
The object of a *held* connection may leave memory, restart or move; the gateway keeps the client's
socket and a copy of the record that the object needs to know it again (:class:`Hold`). One
:class:`Holding` belongs to one shard. It is told what happens to the link and to the clients, and
says what is to be done as :class:`Do` instructions; :mod:`gateway.holder` carries them out.

The home::

             LINKED             SERVING            DRAIN
    AWAY ─────────────▶ JOINING ─────────▶ UP ─────────────▶ DRAINING
      ▲                    │ LOST           │ LOST               │ LOST
      └────────────────────┴────────────────┴────────────────────┘

* AWAY: nobody there. Frames and close events wait; after HOLD_TIMEOUT_S clients are closed (1013).
* JOINING: every record is handed back first, so that the first event finds all members of a room.
* UP: frames flow. What has waited goes first, one connection after the other, as credit allows.
* DRAINING: the shard finishes what it has been given, and gets nothing more.

One connection::

    LIVE ── drain, or lost with all its frames handled ──▶ WAITING ── released ──▶ LIVE
      │ closed                                                │ released, and closed meanwhile
      ▼                                                       ▼
    CLOSING ── acknowledged ──▶ forgotten         CLOSING ── lost before ──▶ WAITING

A connection of which a frame was delivered and not acknowledged as handled when its home was lost
is closed (1012): only such a one may have lost something, and nothing is ever delivered twice. Its
object is told with a close event. A close event that was not acknowledged is told again: to the
life that hears it, it is the only one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

from common.close_reasons import IN_DOUBT_TEXT, TOO_LONG_TEXT

FRAME_OVERHEAD_BYTES: Final = 100
"""What a waiting frame counts beside its payload."""

UNTOLD_SEQ: Final = 1 << 62
"""Number of a batch that has not been filled yet."""

End: TypeAlias = tuple[int, str, bool]
"""How a client's side ended: code, reason, clean."""

LOST_CODE: Final = 1006
IN_DOUBT: Final[End] = (LOST_CODE, IN_DOUBT_TEXT, False)
TOO_LONG: Final[End] = (LOST_CODE, TOO_LONG_TEXT, False)


class Home(enum.Enum):
    """Where the shard is; see the module."""

    AWAY = "away"
    JOINING = "joining"
    UP = "up"
    DRAINING = "draining"


class Cause(enum.Enum):
    """What may happen to the shard."""

    LINKED = "a link is up"
    SERVING = "the shard takes events"
    DRAIN = "the shard stops"
    LOST = "the link is gone"


class Action(enum.Enum):
    """What follows for the connections."""

    HAND_BACK = "send all records"
    RELEASE = "send what has waited"
    WITHHOLD = "send nothing more"
    JUDGE = "hold those that have lost nothing, close the others"
    NOTHING = "as they are"


STEPS: Final[dict[tuple[Home, Cause], tuple[Home, Action]]] = {
    (Home.AWAY, Cause.LINKED): (Home.JOINING, Action.HAND_BACK),
    (Home.JOINING, Cause.SERVING): (Home.UP, Action.RELEASE),
    (Home.JOINING, Cause.DRAIN): (Home.DRAINING, Action.NOTHING),
    (Home.JOINING, Cause.LOST): (Home.AWAY, Action.NOTHING),
    (Home.UP, Cause.DRAIN): (Home.DRAINING, Action.WITHHOLD),
    (Home.UP, Cause.LOST): (Home.AWAY, Action.JUDGE),
    (Home.DRAINING, Cause.LOST): (Home.AWAY, Action.JUDGE),
}
"""A pair that is missing is against the protocol."""


class Phase(enum.Enum):
    """Where a held connection stands; see the module."""

    LIVE = "live"
    WAITING = "waiting"
    CLOSING = "closing"


class HeldObject:
    """What the gateway knows of one object with held connections.

    Attributes:
        address: ``[unique_key, id, name]``.
        auto: the text that is answered here, and the answer, or ``None``.
        count: how many of its connections are held.
    """

    __slots__ = ("address", "auto", "count")

    def __init__(self, address: list[Any]) -> None:
        self.address = address
        self.auto: tuple[str, str] | None = None
        self.count = 0

    @property
    def key(self) -> tuple[str, bytes]:
        """What tells it from others."""
        return self.address[0], self.address[1]


class Hold:
    """The copy of one connection's record, and what waits for its object.

    Attributes:
        end: how the client's side ended, from when it has until the object is known to have heard.
        end_seq: number of the batch that told it.
    """

    __slots__ = (
        "answered_ms",
        "attachment",
        "close_sent",
        "end",
        "end_seq",
        "frames",
        "frames_bytes",
        "number",
        "object",
        "order",
        "phase",
        "tags",
    )

    def __init__(
        self, number: int, held: HeldObject, tags: list[str], attachment: bytes | None, order: int
    ) -> None:
        self.number = number
        self.object = held
        self.tags = tags
        self.attachment = attachment
        self.order = order
        self.answered_ms = 0
        self.close_sent = False
        self.phase = Phase.LIVE
        self.frames: list[Any] = []
        self.frames_bytes = 0
        self.end: End | None = None
        self.end_seq = 0


class Do(enum.Enum):
    """What the driver is to do with a connection."""

    AUTO = "send its object's automatic response"
    ADOPT = "send its record"
    ADOPTED = "say that there are no more records"
    FORWARD = "send its frames; from now on they flow"
    TELL = "tell its end"


class Instruction(NamedTuple):
    """One thing to do; ``hold`` is ``None`` for ``ADOPTED`` only."""

    do: Do
    hold: Hold | None
    frames: list[Any]


@dataclass
class Budget:
    """Bytes that wait in one gateway, all shards together."""

    connection_bytes: int
    total_bytes: int
    waiting_bytes: int = 0


class Holding:
    """The held connections of one shard; see the module.

    Args:
        budget: shared by all shards of the gateway.
    """

    def __init__(self, budget: Budget) -> None:
        self.home = Home.AWAY
        self.holds: dict[int, Hold] = {}
        self.objects: dict[tuple[str, bytes], HeldObject] = {}
        self.plan: Iterator[Instruction] = iter(())
        """What is still to be sent; ask for one at a time, as long as there is credit."""
        self.closing: dict[int, Hold] = {}
        """Those whose end was told and may not have been handled yet."""
        self._early: dict[int, list[tuple[Any, int]]] = {}
        self._budget = budget

    # --- the shard -----------------------------------------------------------------------------

    def step(self, cause: Cause) -> Action:
        """Something has happened to the shard.

        Raises:
            KeyError: it may not happen now.
        """
        self.home, action = STEPS[self.home, cause]
        if action is Action.HAND_BACK:
            self.plan = self._hand_back()
        elif action is Action.RELEASE:
            self.plan = chain(self.plan, self._release())
        else:
            self.plan = iter(())
        if action is Action.WITHHOLD:
            for hold in self.holds.values():
                if hold.phase is Phase.LIVE:
                    hold.phase = Phase.WAITING
        return action

    def _hand_back(self) -> Iterator[Instruction]:
        told: set[HeldObject] = set()
        for hold in list(self.holds.values()):
            if hold.object.auto is not None and hold.object not in told:
                told.add(hold.object)
                yield Instruction(Do.AUTO, hold, [])
            yield Instruction(Do.ADOPT, hold, [])
        yield Instruction(Do.ADOPTED, None, [])

    def _release(self) -> Iterator[Instruction]:
        for hold in list(self.holds.values()):
            if hold.phase is not Phase.WAITING:
                continue
            frames = self._take_frames(hold)
            if hold.end is None:
                hold.phase = Phase.LIVE
                yield Instruction(Do.FORWARD, hold, frames)
                continue
            self._close(hold)
            if frames:
                yield Instruction(Do.FORWARD, hold, frames)
            yield Instruction(Do.TELL, hold, [])

    def judge(
        self, acked_seq: int, sent_seq: Callable[[int], int], unsettled: Container[int]
    ) -> list[Hold]:
        """The link is gone: decide about each connection; those that must be closed with 1012.

        Args:
            acked_seq: the last batch that the shard has acknowledged.
            sent_seq: the batch with a connection's last frame; 0 if none was sent over this link.
            unsettled: connections with a frame that was acknowledged but not handled to its end.
        """
        doubtful: list[Hold] = []
        self._early.clear()
        self.closing.clear()
        for hold in list(self.holds.values()):
            number = hold.number
            if hold.phase is Phase.CLOSING:
                if hold.end_seq <= acked_seq and number not in unsettled:
                    self.forget(number)
                    continue
            elif hold.end is None and (sent_seq(number) > acked_seq or number in unsettled):
                self._take_frames(hold)
                hold.end = IN_DOUBT
                doubtful.append(hold)
            hold.phase = Phase.WAITING
        return doubtful

    def expire(self) -> list[Hold]:
        """The shard has been away for too long: those that must be closed with 1013."""
        expired: list[Hold] = []
        for hold in self.holds.values():
            if hold.phase is Phase.WAITING and hold.end is None:
                self._take_frames(hold)
                hold.end = TOO_LONG
                expired.append(hold)
        return expired

    def abandon(self) -> list[Hold]:
        """The shard has told its objects that all are gone: forget them; those to close."""
        abandoned = [hold for hold in self.holds.values() if hold.end is None]
        for number in list(self.holds):
            self.forget(number)
        return abandoned

    # --- the connections -----------------------------------------------------------------------

    def hold(
        self, number: int, address: list[Any], tags: list[str], attachment: bytes | None, order: int
    ) -> Hold:
        """The shard has made a connection a held one."""
        hold = Hold(number, self.object(address), tags, attachment, order)
        hold.object.count += 1
        if self.home is Home.DRAINING:
            hold.phase = Phase.WAITING
        self.holds[number] = hold
        for frame, size in self._early.pop(number, ()):
            self.keep(number, frame, size)
        return hold

    def object(self, address: list[Any]) -> HeldObject:
        """The object of that address; made if it is not known."""
        fresh = HeldObject(address)
        return self.objects.setdefault(fresh.key, fresh)

    def keep(self, number: int, frame: Any, size: int) -> bool:
        """A frame has come that cannot be sent now; whether to stop reading that client."""
        hold = self.holds.get(number)
        if hold is None:
            # Attached while the shard drains: whether it is held will be known in a moment.
            if self.home is Home.DRAINING:
                self._early.setdefault(number, []).append((frame, size))
            return True
        if hold.end is not None:
            return False
        size += FRAME_OVERHEAD_BYTES
        hold.frames.append(frame)
        hold.frames_bytes += size
        self._budget.waiting_bytes += size
        return (
            hold.frames_bytes > self._budget.connection_bytes
            or self._budget.waiting_bytes > self._budget.total_bytes
        )

    def closed(self, number: int, end: End) -> bool:
        """A client's side has ended; whether to tell the shard now."""
        hold = self.holds.get(number)
        if hold is None:
            self._early.pop(number, None)
            return self.home is Home.UP
        if hold.end is not None:
            return False
        hold.end = end
        if hold.phase is not Phase.LIVE:
            return False
        self._close(hold)
        return True

    def _close(self, hold: Hold) -> None:
        hold.phase = Phase.CLOSING
        hold.end_seq = UNTOLD_SEQ
        self.closing[hold.number] = hold

    def settle(self, acked_seq: int, unsettled: Container[int]) -> None:
        """The shard has acknowledged more: forget those whose end it has heard."""
        for hold in list(self.closing.values()):
            if hold.end_seq <= acked_seq and hold.number not in unsettled:
                self.forget(hold.number)

    def forget(self, number: int) -> None:
        """That connection is over, or no longer held."""
        hold = self.holds.pop(number, None)
        if hold is None:
            return
        self.closing.pop(number, None)
        self._take_frames(hold)
        hold.object.count -= 1
        if not hold.object.count:
            self.objects.pop(hold.object.key, None)

    def _take_frames(self, hold: Hold) -> list[Any]:
        frames, hold.frames = hold.frames, []
        self._budget.waiting_bytes -= hold.frames_bytes
        hold.frames_bytes = 0
        return frames
