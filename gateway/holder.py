"""Carries out what :mod:`gateway.holding` decides: the driver between it, the clients and the link.

A :class:`Holder` is also the :class:`~gateway.connection.Home` of every connection whose shard is
away or drains: it has no session, so frames come to :meth:`Holder.keep`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container
from typing import TYPE_CHECKING, Any, Final

import structlog

from common.close_reasons import RESTARTED, RESTARTED_TEXT
from common.link.driver import Link
from common.link.records import (
    ADOPT,
    ADOPTED,
    AUTO_ANSWERED,
    AUTO_RESPONSE,
    CLOSED,
    DRAINED,
    HALTED,
    Record,
)
from gateway.connection import PAUSED_BY_HOLD, PAUSED_BY_SHARD, TRY_AGAIN_LATER
from gateway.deadlines import TICK_S
from gateway.frames import LARGE_TEXT, encode_message
from gateway.holding import Action, Cause, Do, Hold, Holding, Home, Phase

if TYPE_CHECKING:
    from common.link.session import LinkSession
    from gateway.connection import Connection
    from gateway.context import Context
    from gateway.relay import Relay

log = structlog.get_logger(__name__)

AWAY_TEXT: Final = "The Durable Object is away for too long"


class Alarm:
    """One deadline; see :class:`gateway.deadlines.Timed`."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.slot = 0
        self._ring = ring

    def due(self, now_s: float) -> float:
        """Ring, once."""
        self._ring()
        return math.inf


class Holder:
    """The held connections of one relay's shard, and all its connections while it is away.

    Args:
        relay: to the shard.
        context: of this gateway.
        changed: called whenever the shard begins or ceases to serve.
    """

    session: LinkSession | None = None

    def __init__(self, relay: Relay, context: Context, changed: Callable[[], None]) -> None:
        self.context = context
        self.holding = Holding(context.hold_budget, lambda: context.deadlines.now_s)
        self._relay = relay
        self._changed = changed
        self._patience = Alarm(self._expire)
        self._answered: set[int] = set()
        self._answers = Alarm(self._tell_answered)

    @property
    def is_serving(self) -> bool:
        """The shard takes events."""
        return self.holding.home is Home.UP

    # --- the shard -----------------------------------------------------------------------------

    def linked(self, owned: Collection[int], *, anew: bool) -> None:
        """A link is up; :meth:`hand_back` follows.

        Args:
            owned: the partitions that the shard has.
            anew: to a process that has not seen these connections.
        """
        if not anew:
            # It has told its objects that all clients of the lost link are gone.
            for hold in self.holding.abandon(owned):
                self._close(hold, RESTARTED, RESTARTED_TEXT)
        self.holding.step(Cause.LINKED)

    def hand_back(self, partitions: Collection[int]) -> None:
        """Send the records of these partitions' connections, and that there are no more."""
        self.holding.taken(partitions)
        self.pump()

    def serving(self, partitions: Collection[int]) -> None:
        """The shard takes events of these: what has waited goes first."""
        was_serving = self.is_serving
        self.holding.serving(partitions)
        if not was_serving:
            self._forward_early()
        self.pump()
        if not was_serving:
            self._changed()

    def halt(self, link: Link, partitions: Collection[int]) -> None:
        """These are to leave the shard: send nothing more for them."""
        self.holding.halt(partitions)
        for connection in self._relay.connections.values():
            if connection.partition in partitions:
                connection.move(self)
        link.send([HALTED, partitions])
        self._watch()

    def given(self, partitions: Collection[int], unhandled: Container[int]) -> None:
        """These have left the shard, and their connections wait for another one."""
        doubtful = self.holding.given(partitions, unhandled)
        for hold in doubtful:
            self._close(hold, RESTARTED, RESTARTED_TEXT)
        if doubtful:
            log.info("partitions.doubtful_closed", shard=self._relay.shard, closed=len(doubtful))

    def part(self, partitions: Collection[int]) -> list[tuple[Hold, Connection | None]]:
        """Part with the connections of these, for :meth:`receive` of the holder that gets them."""
        return [
            (hold, self._relay.part(hold.number))
            for hold in self.holding.part(frozenset(partitions))
        ]

    def receive(self, parted: list[tuple[Hold, Connection | None]]) -> None:
        """Take in what another holder has parted with."""
        for hold, connection in parted:
            self.holding.receive([hold])
            if connection is not None:
                self._relay.connections[connection.id] = connection
                connection.forwarded_seq = 0
                connection.move(self)
        self._watch()

    def drain(self, link: Link) -> None:
        """The shard stops: send it nothing more."""
        self.holding.step(Cause.DRAIN)
        for connection in self._relay.connections.values():
            connection.move(self)
        link.send([DRAINED])
        self._watch()
        self._changed()

    def _forward_early(self) -> None:
        """Let go those that were attached before we knew that the shard serves."""
        for number in list(self._relay.connections):
            if number not in self.holding.holds and self._relay.session is not None:
                self._forward(self._relay.session, number, self.holding.take_early(number))
        link = self._relay.link
        for number, end in self.holding.take_early_ends().items():
            if link is not None:
                self._forward(link.session, number, self.holding.take_early(number))
                link.send([CLOSED, number, *end])

    def lost(self, session: LinkSession, unsettled: dict[int, int]) -> None:
        """The link is gone: hold what has lost nothing, close the rest."""
        connections = self._relay.connections

        def sent_seq(number: int) -> int:
            connection = connections.get(number)
            return 0 if connection is None else connection.forwarded_seq

        doubtful: list[Hold] = []
        if self.holding.step(Cause.LOST) is Action.JUDGE:
            doubtful = self.holding.judge(session.acked_seq, sent_seq, unsettled)
        held = closed = 0
        for hold in doubtful:
            log.debug(
                "socket.in_doubt",
                connection=hold.number,
                sent_seq=sent_seq(hold.number),
                acked_seq=session.acked_seq,
                unsettled=unsettled.get(hold.number, 0),
            )
            self._close(hold, RESTARTED, RESTARTED_TEXT)
        for number, connection in list(connections.items()):
            if number in self.holding.holds:
                held += 1
                connection.forwarded_seq = 0
                connection.move(self)
                connection.resume(PAUSED_BY_SHARD)
            else:
                closed += 1
                self._orphan(connection, RESTARTED, RESTARTED_TEXT)
        if held or closed or doubtful:
            log.info(
                "shard.connections",
                shard=self._relay.shard,
                held=held,
                regular_closed=closed,
                doubtful_closed=len(doubtful),
            )
        self._watch()

    def pump(self) -> None:
        """Send what is planned, as far as there is credit."""
        link = self._relay.link
        if link is None:
            return
        while not link.session.congested:
            step = next(self.holding.plan, None)
            if step is None:
                return
            self._carry_out(link, step.do, step.hold, step.frames, step.partitions)

    def stop(self) -> None:
        """The gateway is at its end."""
        for alarm in (self._patience, self._answers):
            self.context.deadlines.cancel(alarm)

    def _carry_out(
        self, link: Link, do: Do, hold: Hold | None, frames: list[Any], partitions: list[int]
    ) -> None:
        if hold is None:
            link.send([ADOPTED, partitions])
        elif do is Do.AUTO:
            link.send([AUTO_RESPONSE, hold.object.address, *(hold.object.auto or (None, None))])
        elif do is Do.ADOPT:
            data = hold.attachment
            link.send(
                [
                    ADOPT,
                    hold.number,
                    hold.object.address,
                    hold.tags,
                    data,
                    hold.order,
                    hold.answered_ms,
                    hold.close_sent,
                ],
                len(data or b""),
            )
        elif do is Do.FORWARD:
            self._forward(link.session, hold.number, frames)
        else:
            assert hold.end is not None
            link.send([CLOSED, hold.number, *hold.end])
            hold.end_seq = link.session.filling_seq

    def _forward(self, session: LinkSession, number: int, frames: list[Any]) -> None:
        for kind, value in frames:
            if kind == LARGE_TEXT:
                session.blob(number, value, True)
            else:
                session.unicast(number, value)
        connection = self._relay.connections.get(number)
        if connection is not None:
            if frames:
                connection.forwarded_seq = session.filling_seq
            connection.move(self._relay)
            connection.resume(PAUSED_BY_HOLD)

    def _watch(self) -> None:
        """Look again when the one that waits longest has waited too long."""
        if self._patience.slot:
            return
        since_s = self.holding.oldest_wait_s
        if since_s is not None:
            wait_s = self.context.settings.hold_timeout_s
            self.context.deadlines.set(self._patience, since_s + wait_s)

    def _expire(self) -> None:
        now_s = self.context.deadlines.now_s
        expired = self.holding.expire(now_s - self.context.settings.hold_timeout_s)
        for hold in expired:
            self._close(hold, TRY_AGAIN_LATER, AWAY_TEXT)
        if expired:
            log.error("shard.away_too_long", shard=self._relay.shard, closed=len(expired))
        self._watch()

    def _close(self, hold: Hold, code: int, reason: str) -> None:
        connection = self._relay.connections.get(hold.number)
        if connection is not None:
            self._orphan(connection, code, reason)

    def _orphan(self, connection: Connection, code: int, reason: str) -> None:
        self._relay.orphan(connection)
        connection.resume(PAUSED_BY_SHARD | PAUSED_BY_HOLD)
        connection.close_by_gateway(code, reason)

    # --- records from the shard ----------------------------------------------------------------

    def hold(self, record: Record) -> None:
        """``HOLD``: the object of a connection may come and go."""
        _, number, address, tags, attachment, order = record
        connection = self._relay.connections.get(number)
        if connection is None and not self.holding.has_ended_early(number):
            return
        hold = self.holding.hold(number, address, tags, attachment, order)
        if hold.phase is Phase.WAITING:
            self._watch()
        if connection is not None:
            connection.auto = _encoded(hold.object.auto)

    def attachment(self, record: Record) -> None:
        """``ATTACHMENT``: the app has given it another one."""
        hold = self.holding.holds.get(record[1])
        if hold is not None:
            hold.attachment = record[2]

    def auto_response(self, record: Record) -> None:
        """``AUTO_RESPONSE``: what to answer on the connections of an object."""
        _, address, request, response = record
        held = self.holding.object(address)
        held.auto = None if request is None else (request, response)
        auto = _encoded(held.auto)
        for number, hold in self.holding.holds.items():
            if hold.object is held:
                connection = self._relay.connections.get(number)
                if connection is not None:
                    connection.auto = auto

    # --- Home, while the shard is away ---------------------------------------------------------

    def keep(self, connection: Connection, kind: int, value: Any) -> None:
        """See :class:`gateway.connection.Home`."""
        if self.holding.keep(connection.id, (kind, value), len(value)):
            connection.pause(PAUSED_BY_HOLD)

    def producer_congests(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`. Nothing is produced here."""

    def closed(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        """See :class:`gateway.connection.Home`."""
        self._relay.closed(connection, code, reason, was_clean, withheld=True)

    def release(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        self._relay.release(connection)

    def auto_answered(self, connection: Connection) -> None:
        """See :class:`gateway.connection.Home`."""
        hold = self.holding.holds.get(connection.id)
        if hold is not None:
            hold.answered_ms = int(self.context.clock.wall_s() * 1000)
            self._answered.add(connection.id)
            if not self._answers.slot:
                self.context.deadlines.set(self._answers, self.context.deadlines.now_s + TICK_S)

    def _tell_answered(self) -> None:
        answered, self._answered = self._answered, set()
        holds = [self.holding.holds[each] for each in answered if each in self.holding.holds]
        if self._relay.link is not None and self.is_serving and holds:
            numbers = [hold.number for hold in holds]
            times = [hold.answered_ms for hold in holds]
            self._relay.link.send([AUTO_ANSWERED, numbers, times])


def _encoded(auto: tuple[str, str] | None) -> tuple[str, bytes] | None:
    return None if auto is None else (auto[0], encode_message(auto[1]))
