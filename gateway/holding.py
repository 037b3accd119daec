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
      ▲                    │ LOST         │  ▲ │ LOST             │ LOST
      └────────────────────┴──────────────┼──┼─┴──────────────────┘
                                          └──┘ TAKEN, SERVING, HALT, GIVEN

* AWAY: nobody there. Frames and close events wait; after HOLD_TIMEOUT_S clients are closed (1013).
* JOINING: every record is handed back first, so that the first event finds all members of a room.
* UP: frames flow, for the partitions that are *served*. What has waited goes first, one connection
  after the other, as credit allows.
* DRAINING: the shard finishes what it has been given, and gets nothing more.

A partition that moves to another shard goes through the same while its home is UP: HALT withholds
what is for its objects, GIVEN parts with their connections, which another shard's holding takes
in; there they are handed back (TAKEN) and released (SERVING).

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
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

from common.close_reasons import IN_DOUBT_TEXT, TOO_LONG_TEXT
from common.ids import partition_of

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
    TAKEN = "the shard has taken partitions"
    SERVING = "the shard takes events"
    HALT = "partitions are to go to another shard"
    GIVEN = "they have left"
    DRAIN = "the shard stops"
    LOST = "the link is gone"


class Action(enum.Enum):
    """What follows for the connections."""

    HAND_BACK = "send the records"
    RELEASE = "send what has waited"
    WITHHOLD = "send nothing more"
    PART = "hold those that have lost nothing, for another shard"
    JUDGE = "hold those that have lost nothing, close the others"
    NOTHING = "as they are"


STEPS: Final[dict[tuple[Home, Cause], tuple[Home, Action]]] = {
    (Home.AWAY, Cause.LINKED): (Home.JOINING, Action.NOTHING),
    (Home.JOINING, Cause.TAKEN): (Home.JOINING, Action.HAND_BACK),
    (Home.JOINING, Cause.SERVING): (Home.UP, Action.RELEASE),
    (Home.JOINING, Cause.HALT): (Home.JOINING, Action.WITHHOLD),
    (Home.JOINING, Cause.GIVEN): (Home.JOINING, Action.PART),
    (Home.JOINING, Cause.DRAIN): (Home.DRAINING, Action.WITHHOLD),
    (Home.JOINING, Cause.LOST): (Home.AWAY, Action.JUDGE),
    (Home.UP, Cause.TAKEN): (Home.UP, Action.HAND_BACK),
    (Home.UP, Cause.SERVING): (Home.UP, Action.RELEASE),
    (Home.UP, Cause.HALT): (Home.UP, Action.WITHHOLD),
    (Home.UP, Cause.GIVEN): (Home.UP, Action.PART),
    (Home.UP, Cause.DRAIN): (Home.DRAINING, Action.WITHHOLD),
    (Home.UP, Cause.LOST): (Home.AWAY, Action.JUDGE),
    (Home.DRAINING, Cause.TAKEN): (Home.DRAINING, Action.NOTHING),
    (Home.DRAINING, Cause.SERVING): (Home.DRAINING, Action.NOTHING),
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
        partition: which its id falls into.
    """

    __slots__ = ("address", "auto", "count", "partition")

    def __init__(self, address: list[Any]) -> None:
        self.address = address
        self.partition = partition_of(address[1])
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
        since_s: since when it has been WAITING.
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
        "since_s",
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
        self.since_s = 0.0


class Do(enum.Enum):
    """What the driver is to do with a connection."""

    AUTO = "send its object's automatic response"
    ADOPT = "send its record"
    ADOPTED = "say that there are no more records"
    FORWARD = "send its frames; from now on they flow"
    TELL = "tell its end"


class Instruction(NamedTuple):
    """One thing to do; ``hold`` is ``None`` for ``ADOPTED``, which has the partitions instead."""

    do: Do
    hold: Hold | None
    frames: list[Any]
    partitions: list[int] = []  # noqa: RUF012 - a default that nobody changes


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
        now_s: tells monotonic seconds.
    """

    def __init__(self, budget: Budget, now_s: Callable[[], float] = lambda: 0.0) -> None:
        self.home = Home.AWAY
        self.holds: dict[int, Hold] = {}
        self.objects: dict[tuple[str, bytes], HeldObject] = {}
        self.plan: Iterator[Instruction] = iter(())
        """What is still to be sent; ask for one at a time, as long as there is credit."""
        self.closing: dict[int, Hold] = {}
        """Those whose end was told and may not have been handled yet."""
        self.served: set[int] = set()
        """Partitions whose objects' events may be sent."""
        self.halting: set[int] = set()
        """Partitions that are on their way out."""
        self._claimed: set[int] = set()
        self._early: dict[int, list[tuple[Any, int]]] = {}
        self._early_ends: dict[int, End] = {}
        self._budget = budget
        self._now_s = now_s

    # --- the shard -----------------------------------------------------------------------------

    def step(self, cause: Cause) -> Action:
        """Something has happened to the shard as a whole: LINKED, DRAIN or LOST.

        Raises:
            KeyError: it may not happen now.
        """
        self.home, action = STEPS[self.home, cause]
        if cause is not Cause.LINKED:
            self.served.clear()
            self.halting.clear()
            self._claimed.clear()
            self.plan = iter(())
        if action is Action.WITHHOLD:
            self._withhold(lambda partition: True)
        return action

    def taken(self, partitions: Collection[int]) -> None:
        """The shard is to get back the records of all connections of these partitions.

        Raises:
            KeyError: not now.
        """
        self.home, action = STEPS[self.home, Cause.TAKEN]
        if action is Action.NOTHING:
            return
        self.halting.difference_update(partitions)
        self._claimed.update(partitions)
        self.plan = chain(self.plan, self._hand_back(frozenset(partitions)))

    def serving(self, partitions: Collection[int]) -> None:
        """The shard takes the events of these partitions' objects; what has waited goes first.

        Raises:
            KeyError: not now.
        """
        self.home, action = STEPS[self.home, Cause.SERVING]
        if action is Action.NOTHING:
            return
        self.served.update(partitions)
        self.plan = chain(self.plan, self._release(frozenset(partitions)))

    def halt(self, partitions: Collection[int]) -> None:
        """These are to leave the shard: what is for their objects waits from now on.

        Raises:
            KeyError: not now.
        """
        self.home, _ = STEPS[self.home, Cause.HALT]
        self.halting.update(partitions)
        self.served.difference_update(partitions)
        self._claimed.difference_update(partitions)
        self._withhold(frozenset(partitions).__contains__)

    def given(self, partitions: Collection[int], unhandled: Container[int]) -> list[Hold]:
        """These have left the shard, in good order; those of their connections to close (1012).

        Args:
            partitions: which.
            unhandled: connections with something that was delivered and nobody has handled.

        Raises:
            KeyError: not now.
        """
        self.home, _ = STEPS[self.home, Cause.GIVEN]
        self.halting.difference_update(partitions)
        if not self.halting:
            self._early.clear()
            self._early_ends.clear()
        self.served.difference_update(partitions)
        self._claimed.difference_update(partitions)
        leaving = [hold for hold in self.holds.values() if hold.object.partition in partitions]
        return self._judge(leaving, unhandled.__contains__)

    def part(self, partitions: Collection[int]) -> list[Hold]:
        """Take out the connections of these partitions' objects, for :meth:`receive`."""
        leaving = [hold for hold in self.holds.values() if hold.object.partition in partitions]
        for hold in leaving:
            frames, size = hold.frames, hold.frames_bytes
            hold.frames, hold.frames_bytes = [], 0
            self.forget(hold.number)
            hold.frames, hold.frames_bytes = frames, size
        return leaving

    def receive(self, holds: Iterable[Hold]) -> None:
        """Take in what another holding of this gateway has parted with."""
        for hold in holds:
            known = self.object(hold.object.address)
            known.auto = hold.object.auto
            hold.object = known
            known.count += 1
            self.holds[hold.number] = hold

    def _withhold(self, concerned: Callable[[int], bool]) -> None:
        for hold in self.holds.values():
            if hold.phase is Phase.LIVE and concerned(hold.object.partition):
                self._wait(hold)

    def _wait(self, hold: Hold) -> None:
        hold.phase = Phase.WAITING
        hold.since_s = self._now_s()

    def _is_here(self, hold: Hold) -> bool:
        return self.holds.get(hold.number) is hold

    def _hand_back(self, partitions: frozenset[int]) -> Iterator[Instruction]:
        told: set[HeldObject] = set()
        for hold in list(self.holds.values()):
            held = hold.object
            if held.partition not in partitions or not self._is_here(hold):
                continue
            if held.partition not in self._claimed:
                continue  # it has been called off meanwhile
            if held.auto is not None and held not in told:
                told.add(held)
                yield Instruction(Do.AUTO, hold, [])
            yield Instruction(Do.ADOPT, hold, [])
        yield Instruction(Do.ADOPTED, None, [], sorted(partitions & self._claimed))

    def _release(self, partitions: frozenset[int]) -> Iterator[Instruction]:
        for hold in list(self.holds.values()):
            if hold.object.partition not in partitions or not self._is_here(hold):
                continue
            if hold.phase is not Phase.WAITING or hold.object.partition not in self.served:
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
        self._early.clear()
        self._early_ends.clear()

        def is_doubtful(number: int) -> bool:
            hold = self.holds[number]
            last_seq = hold.end_seq if hold.phase is Phase.CLOSING else sent_seq(number)
            return last_seq > acked_seq or number in unsettled

        return self._judge(list(self.holds.values()), is_doubtful)

    def _judge(self, holds: Iterable[Hold], is_doubtful: Callable[[int], bool]) -> list[Hold]:
        doubtful: list[Hold] = []
        for hold in holds:
            number = hold.number
            if hold.phase is Phase.CLOSING:
                if not is_doubtful(number):
                    self.forget(number)
                    continue
                self.closing.pop(number, None)
            elif hold.end is None and is_doubtful(number):
                self._take_frames(hold)
                hold.end = IN_DOUBT
                doubtful.append(hold)
            if hold.phase is not Phase.WAITING:
                self._wait(hold)
        return doubtful

    @property
    def oldest_wait_s(self) -> float | None:
        """Since when the one has waited that waits longest; ``None`` if none does."""
        return min(
            (hold.since_s for hold in self.holds.values() if self._may_expire(hold)), default=None
        )

    @staticmethod
    def _may_expire(hold: Hold) -> bool:
        return hold.phase is Phase.WAITING and hold.end is None

    def expire(self, since_s: float) -> list[Hold]:
        """Those that have waited since then, or longer: they must be closed with 1013."""
        expired: list[Hold] = []
        for hold in self.holds.values():
            if self._may_expire(hold) and hold.since_s <= since_s:
                self._take_frames(hold)
                hold.end = TOO_LONG
                expired.append(hold)
        return expired

    def abandon(self, partitions: Container[int]) -> list[Hold]:
        """The shard has told these partitions' objects that all are gone; those to close."""
        concerned = [each for each in self.holds.values() if each.object.partition in partitions]
        for hold in concerned:
            self.forget(hold.number)
        return [hold for hold in concerned if hold.end is None]

    # --- the connections -----------------------------------------------------------------------

    def hold(
        self, number: int, address: list[Any], tags: list[str], attachment: bytes | None, order: int
    ) -> Hold:
        """The shard has made a connection a held one."""
        hold = Hold(number, self.object(address), tags, attachment, order)
        hold.object.count += 1
        if hold.object.partition not in self.served:
            self._wait(hold)
        self.holds[number] = hold
        for frame, size in self._early.pop(number, ()):
            self.keep(number, frame, size)
        hold.end = self._early_ends.pop(number, None)
        return hold

    def take_early_ends(self) -> dict[int, End]:
        """How those ended that were attached before it was known that the shard serves."""
        ends, self._early_ends = self._early_ends, {}
        return ends

    def has_ended_early(self, number: int) -> bool:
        """Whether that connection is gone, and its object may still be to be told."""
        return number in self._early_ends

    def take_early(self, number: int) -> list[Any]:
        """The frames of a connection that was attached too early to be forwarded at once."""
        return [frame for frame, _ in self._early.pop(number, ())]

    def object(self, address: list[Any]) -> HeldObject:
        """The object of that address; made if it is not known."""
        fresh = HeldObject(address)
        return self.objects.setdefault(fresh.key, fresh)

    def keep(self, number: int, frame: Any, size: int) -> bool:
        """A frame has come that cannot be sent now; whether to stop reading that client."""
        hold = self.holds.get(number)
        if hold is None:
            # Attached on its way out: whether it is held will be known in a moment.
            if self.home is not Home.AWAY:
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

    def closed(self, number: int, end: End, *, withheld: bool = False) -> bool:
        """A client's side has ended; whether to tell the shard now.

        Args:
            number: whose.
            end: how.
            withheld: it was attached on the way out: if it is held, the next home is told.
        """
        hold = self.holds.get(number)
        if hold is None:
            if withheld and self.home is not Home.AWAY:
                self._early_ends[number] = end
                return False
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
