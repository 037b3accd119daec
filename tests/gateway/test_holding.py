"""Rules of :mod:`gateway.holding`: every schedule of frames, closes, crashes and returns.

The machine is driven against a plain model of the shard: what was delivered, what was handled. No
schedule may lose, repeat or misorder a frame of a connection that stays open, or tell two closes to
one life of an object.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.holding import (
    STEPS,
    Action,
    Budget,
    Cause,
    Do,
    Holding,
    Home,
    Phase,
)

NUMBERS = st.integers(1, 4)
PARTITIONS = (0, 1)


class Model(RuleBasedStateMachine):
    """A gateway's holding, and a shard that handles what it gets in order, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = Holding(Budget(1 << 20, 1 << 20))
        self.sent: dict[int, int] = {}  # frames that the client has sent
        self.handled: dict[int, list[int]] = {}
        self.open: set[int] = set()  # at the client
        self.expected_end: set[int] = set()  # the object must hear of their end
        self.heard_end: set[int] = set()
        self.doubtful: set[int] = set()  # closed by the gateway: in doubt, or kept for too long
        self.cut: set[int] = set()  # a frame was under way when the shard died
        self.wire: list[tuple[str, int, int]] = []  # delivered to the shard, not handled
        self.seq = 0  # batches that the gateway has filled over this link
        self.acked = 0
        self.sent_seq: dict[int, int] = {}
        self.unsettled: set[int] = set()
        self.adopted: set[int] = set()
        self.ended_here: set[int] = set()  # ends told to this life
        self.next_number = 1

    # --- the wire ------------------------------------------------------------------------------

    def _put(self, kind: str, number: int, value: int) -> None:
        self.seq += 1
        self.wire.append((kind, number, value))

    def _pump(self, steps: int = 1000) -> None:
        for _ in range(steps):
            step = next(self.holding.plan, None)
            if step is None:
                return
            if step.hold is None:
                continue
            number = step.hold.number
            if step.do is Do.ADOPT:
                assert number not in self.adopted
                self.adopted.add(number)
            elif step.do is Do.FORWARD:
                for frame in step.frames:
                    self._put("frame", number, frame)
                    self.sent_seq[number] = self.seq
            elif step.do is Do.TELL:
                self._put("end", number, 0)
                step.hold.end_seq = self.seq

    @initialize()
    def begin(self) -> None:
        """Where things can happen: with clients at a shard that serves."""
        self.link()
        self.serve(3)
        self.join()
        self.join()

    # --- clients -------------------------------------------------------------------------------

    @precondition(lambda self: self.holding.home is Home.UP and len(self.open) < 4)
    @rule()
    def join(self) -> None:
        number, self.next_number = self.next_number, self.next_number + 1
        self.holding.hold(number, ["key", bytes([0, number % 2]), None], [], None, number)
        self.open.add(number)
        self.sent[number] = 0
        self.handled[number] = []
        self.adopted.add(number)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.sent[number] += 1
        hold = self.holding.holds[number]
        if hold.phase is Phase.LIVE:
            self._put("frame", number, self.sent[number])
            self.sent_seq[number] = self.seq
        else:
            self.holding.keep(number, self.sent[number], 1)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(number)
        self.expected_end.add(number)
        if self.holding.closed(number, (1000, "", True)):
            self._put("end", number, 0)
            self.holding.holds[number].end_seq = self.seq

    # --- the shard -----------------------------------------------------------------------------

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 5), suspended=st.booleans())
    def handle(self, count: int, suspended: bool) -> None:
        for kind, number, value in self.wire[:count]:
            if kind == "frame":
                assert number not in self.doubtful, "it was closed: something may be missing"
                self.handled[number].append(value)
            else:
                assert number not in self.ended_here, "two closes for one life"
                if number not in self.doubtful | self.cut:
                    # What it had said before it left comes first.
                    assert self.handled[number] == list(range(1, self.sent[number] + 1))
                self.ended_here.add(number)
                self.heard_end.add(number)
            if suspended:
                self.unsettled.add(number)
        del self.wire[:count]

    @rule()
    def acknowledge(self) -> None:
        self.acked = self.seq - len(self.wire)
        self.holding.settle(self.acked, self.unsettled)

    @rule()
    def settle(self) -> None:
        self.unsettled.clear()
        self.holding.settle(self.acked, self.unsettled)

    @precondition(lambda self: self.holding.home is Home.AWAY)
    @rule()
    def link(self) -> None:
        self.holding.step(Cause.LINKED)
        self.holding.taken(PARTITIONS)
        self._pump()

    @precondition(lambda self: self.holding.home is Home.JOINING)
    @rule(steps=st.integers(0, 3))
    def serve(self, steps: int) -> None:
        self.holding.serving(PARTITIONS)
        self._pump(steps)

    @rule(steps=st.integers(0, 3))
    def credit(self, steps: int) -> None:
        self._pump(steps)

    @precondition(lambda self: self.holding.home in (Home.UP, Home.JOINING))
    @rule(rarely=st.integers(0, 3))
    def drain(self, rarely: int) -> None:
        if rarely:
            return
        self.holding.step(Cause.DRAIN)

    @precondition(lambda self: self.holding.home is not Home.AWAY)
    @rule(rarely=st.integers(0, 2))
    def lose_now_and_then(self, rarely: int) -> None:
        if not rarely:
            self.lose()

    def lose(self) -> None:
        for number, seq in self.sent_seq.items():
            if seq > self.acked or number in self.unsettled:
                self.cut.add(number)
        if self.holding.step(Cause.LOST) is Action.JUDGE:
            doubtful = self.holding.judge(
                self.acked, lambda number: self.sent_seq.get(number, 0), self.unsettled
            )
            for hold in doubtful:
                number = hold.number
                delivered = any(n == number and k == "frame" for k, n, _ in self.wire)
                unacknowledged = self.sent_seq.get(number, 0) > self.acked
                assert delivered or unacknowledged or number in self.unsettled
                self.doubtful.add(number)
                self.open.discard(number)
                self.expected_end.add(number)
        self.wire.clear()
        self.sent_seq.clear()
        self.unsettled.clear()
        self.adopted.clear()
        self.ended_here.clear()
        self.seq = self.acked = 0

    @precondition(lambda self: self.holding.home is Home.AWAY)
    @rule()
    def expire(self) -> None:
        for hold in self.holding.expire(0.0):
            self.doubtful.add(hold.number)
            self.open.discard(hold.number)
            self.expected_end.add(hold.number)

    # --- what must always be so ----------------------------------------------------------------

    @invariant()
    def open_connections_are_handled_once_in_order(self) -> None:
        for number in self.open:
            handled = self.handled[number]
            assert handled == list(range(1, len(handled) + 1))

    @invariant()
    def nothing_is_handled_twice(self) -> None:
        for handled in self.handled.values():
            assert len(handled) == len(set(handled))

    @invariant()
    def the_budget_is_what_waits(self) -> None:
        held = self.holding.holds.values()
        assert self.holding._budget.waiting_bytes == sum(hold.frames_bytes for hold in held)

    @invariant()
    def objects_are_known_while_they_have_connections(self) -> None:
        assert sum(each.count for each in self.holding.objects.values()) == len(self.holding.holds)

    def teardown(self) -> None:
        """In the end, with a shard that stays, everything has arrived."""
        if self.holding.home is Home.DRAINING:
            self.lose()
        if self.holding.home is Home.AWAY:
            self.link()
        if self.holding.home is Home.JOINING:
            self.serve(1000)
        self._pump()
        self.handle(10_000, False)
        self.unsettled.clear()
        self.acknowledge()
        for number in self.open:
            assert self.handled[number] == list(range(1, self.sent[number] + 1))
        assert self.expected_end <= self.heard_end
        assert set(self.holding.holds) == self.open


TestHolding = Model.TestCase
TestHolding.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_every_step_leads_somewhere_and_home_can_always_be_lost() -> None:
    for home in Home:
        if home is not Home.AWAY:
            assert STEPS[home, Cause.LOST][0] is Home.AWAY
    reached = {to for to, _ in STEPS.values()}
    assert reached == set(Home)


def test_reading_stops_at_the_bounds() -> None:
    holding = Holding(Budget(connection_bytes=500, total_bytes=700))
    for number in (1, 2):
        holding.hold(number, ["key", b"\0a", None], [], None, number)
        holding.holds[number].phase = Phase.WAITING
    assert not holding.keep(1, "x", 300)
    assert holding.keep(1, "x", 50)
    assert holding.keep(2, "x", 150)


def test_who_left_before_it_was_known_that_the_shard_serves_is_not_forgotten() -> None:
    """A connection may be attached while its relay still joins: its object must hear of its end."""
    holding = Holding(Budget(1000, 1000))
    holding.step(Cause.LINKED)
    holding.taken(PARTITIONS)
    assert holding.keep(7, "hello", 5), "its client is not read on"
    assert not holding.closed(7, (1000, "", True), withheld=True)
    holding.serving(PARTITIONS)
    assert holding.take_early_ends() == {7: (1000, "", True)}
    assert holding.take_early(7) == ["hello"]
    assert holding.take_early_ends() == {}
