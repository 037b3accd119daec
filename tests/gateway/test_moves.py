"""Connections of a partition that moves: :mod:`gateway.moves` and two shards' holdings together.

Two shards pass one partition to and fro, and die, in any order; a gateway hears of it over two
links that are not in step. No frame of a connection that stays open may be lost, repeated or
misordered, whichever shard handles it.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.holding import Action, Budget, Cause, Do, Holding, Home, Phase
from gateway.moves import Moves

PARTITION = 5
RAW = bytes([0, PARTITION])


def test_what_has_no_owner_is_ready_at_once() -> None:
    moves = Moves()
    assert moves.took(0, [1, 2]) == [1, 2]
    assert moves.owners == {1: 0, 2: 0}


def test_a_taker_waits_for_the_last_word_of_the_giver() -> None:
    moves = Moves()
    moves.took(0, [1, 2])
    assert moves.took(1, [1]) == []
    assert moves.gave(0, [1]) == {1: [1]}
    assert moves.owners == {1: 1, 2: 0}


def test_a_giver_that_is_first_leaves_nobody_waiting() -> None:
    moves = Moves()
    moves.took(0, [1])
    assert moves.gave(0, [1]) == {}
    assert moves.took(1, [1]) == [1]


def test_a_giver_that_dies_has_said_its_last_word() -> None:
    moves = Moves()
    moves.took(0, [1, 2])
    moves.took(1, [2])
    assert moves.lost(0) == {1: [2]}
    assert moves.owners == {2: 1}


def test_a_taker_that_dies_is_not_handed_anything() -> None:
    moves = Moves()
    moves.took(0, [1])
    moves.took(1, [1])
    assert moves.lost(1) == {}
    assert moves.gave(0, [1]) == {}
    assert moves.took(2, [1]) == [1]


class Shard:
    """What one shard is to the gateway: a link, and the partition if it has it."""

    def __init__(self, budget: Budget) -> None:
        self.holding = Holding(budget)
        self.news: list[Callable[[], None]] = []  # on their way to the gateway, in order
        self.wire: list[tuple[str, int, int]] = []  # from the gateway, not handled
        self.seq = self.acked = 0
        self.sent_seq: dict[int, int] = {}
        self.unsettled: set[int] = set()  # acknowledged, and cut before it was handled
        self.known: set[int] = set()  # connections that it could tell something
        self.owns = self.serves = self.halting = self.halted = False

    def put(self, kind: str, number: int, value: int) -> None:
        self.seq += 1
        self.wire.append((kind, number, value))


class Model(RuleBasedStateMachine):
    """See the module. ``owner`` is who has the lock: at most one, by the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = Moves()
        budget = Budget(1 << 20, 1 << 20)
        self.shards = [Shard(budget), Shard(budget)]
        self.owner: int | None = None
        self.sent: dict[int, int] = {}
        self.handled: dict[int, list[int]] = {}
        self.open: set[int] = set()
        self.ends: dict[int, int] = {}
        self.told_in_life: set[tuple[int, int]] = set()
        self.life = 0
        self.next_number = 1
        for index in (0, 1):
            self.start(index)
        self.take(0)
        self._hear_all(0)
        self.join()

    # --- the gateway ---------------------------------------------------------------------------

    def _where(self, number: int) -> Shard:
        (found,) = (each for each in self.shards if number in each.holding.holds)
        return found

    def _pump(self, index: int) -> None:
        shard = self.shards[index]
        for step in iter(lambda: next(shard.holding.plan, None), None):
            if step.do is Do.ADOPTED:
                if PARTITION in step.partitions and shard.owns:
                    shard.news.append(lambda: self._serving(index))
            elif step.do is Do.ADOPT:
                assert step.hold is not None
                assert step.hold.number not in shard.known, "adopted twice by one life"
                shard.known.add(step.hold.number)
            elif step.do is Do.FORWARD:
                assert step.hold is not None
                for frame in step.frames:
                    shard.put("frame", step.hold.number, frame)
                    shard.sent_seq[step.hold.number] = shard.seq
            elif step.do is Do.TELL:
                assert step.hold is not None
                shard.put("end", step.hold.number, 0)
                step.hold.end_seq = shard.seq

    def _hand_over(self, ready: dict[int, list[int]]) -> None:
        for taker, partitions in ready.items():
            for index, other in enumerate(self.shards):
                if index != taker:
                    self.shards[taker].holding.receive(other.holding.part(partitions))
            self.shards[taker].holding.taken(partitions)
            self._pump(taker)

    def _taken(self, index: int) -> None:
        if ready := self.moves.took(index, [PARTITION]):
            self._hand_over({index: ready})

    def _serving(self, index: int) -> None:
        shard = self.shards[index]
        shard.serves = True
        shard.holding.serving([PARTITION])
        self._pump(index)

    def _halt(self, index: int) -> None:
        self.shards[index].holding.halt([PARTITION])
        self.shards[index].halted = True

    def _given(self, index: int, unhandled: frozenset[int]) -> None:
        shard = self.shards[index]
        for hold in shard.holding.given([PARTITION], unhandled):
            self.open.discard(hold.number)
        shard.sent_seq.clear()
        shard.unsettled.clear()
        self._hand_over(self.moves.gave(index, [PARTITION]))

    # --- shards --------------------------------------------------------------------------------

    @precondition(lambda self: any(each.holding.home is Home.AWAY for each in self.shards))
    @rule(index=st.integers(0, 1))
    def start(self, index: int) -> None:
        shard = self.shards[index]
        if shard.holding.home is Home.AWAY:
            shard.holding.step(Cause.LINKED)
            shard.holding.taken([])
            shard.holding.serving([])
            self._pump(index)

    @precondition(lambda self: self.owner is None)
    @rule(index=st.integers(0, 1))
    def take(self, index: int) -> None:
        shard = self.shards[index]
        if shard.holding.home is Home.UP and self.owner is None:
            self.owner = index
            self.life += 1
            shard.owns = True
            shard.news.append(lambda: self._taken(index))

    @precondition(lambda self: self.owner is not None and self.shards[self.owner].serves)
    @rule()
    def begin_to_give(self) -> None:
        if self.owner is not None and self.shards[self.owner].serves:
            index, shard = self.owner, self.shards[self.owner]
            if not shard.halting:
                shard.halting = True
                shard.news.append(lambda: self._halt(index))

    @precondition(lambda self: self.owner is not None and self.shards[self.owner].halted)
    @rule(patient=st.booleans())
    def give(self, patient: bool) -> None:
        """Once halted; with what is not handled, only if it has waited for too long."""
        if self.owner is None or not self.shards[self.owner].halted:
            return
        index, shard = self.owner, self.shards[self.owner]
        if patient:
            self._handle(index, len(shard.wire))
        unhandled = frozenset(number for _, number, _ in shard.wire)
        shard.unsettled.update(unhandled)
        shard.wire.clear()
        shard.known.clear()
        shard.owns = shard.serves = shard.halting = shard.halted = False
        self.owner = None
        shard.news.append(lambda: self._given(index, unhandled))

    @precondition(lambda self: any(each.news for each in self.shards))
    @rule(index=st.integers(0, 1))
    def hear(self, index: int) -> None:
        if self.shards[index].news:
            self.shards[index].news.pop(0)()

    def _hear_all(self, index: int) -> None:
        while self.shards[index].news:
            self.shards[index].news.pop(0)()

    @rule(index=st.integers(0, 1), count=st.integers(1, 5))
    def handle(self, index: int, count: int) -> None:
        self._handle(index, count)

    def _handle(self, index: int, count: int) -> None:
        shard = self.shards[index]
        for kind, number, value in shard.wire[:count]:
            assert self.owner == index, "only the home handles anything"
            assert number in shard.known
            if kind == "frame":
                self.handled[number].append(value)
            else:
                assert (number, self.life) not in self.told_in_life, "two closes in one life"
                self.told_in_life.add((number, self.life))
                self.ends[number] = self.ends.get(number, 0) + 1
        del shard.wire[:count]

    @rule(index=st.integers(0, 1))
    def acknowledge(self, index: int) -> None:
        shard = self.shards[index]
        shard.acked = shard.seq - len(shard.wire)
        shard.holding.settle(shard.acked, shard.unsettled)

    @rule(index=st.integers(0, 1))
    def kill(self, index: int) -> None:
        shard = self.shards[index]
        if shard.holding.home is Home.AWAY:
            return
        for news in shard.news:  # what it has said is read before the end of the stream
            news()
        shard.news.clear()
        if shard.holding.step(Cause.LOST) is Action.JUDGE:
            sent = shard.sent_seq
            judged = shard.holding.judge(shard.acked, lambda n: sent.get(n, 0), shard.unsettled)
            for hold in judged:
                self.open.discard(hold.number)
        if self.owner == index:
            self.owner = None
        shard.owns = shard.serves = shard.halting = shard.halted = False
        shard.wire.clear()
        shard.sent_seq.clear()
        shard.unsettled.clear()
        shard.known.clear()
        shard.seq = shard.acked = 0
        self._hand_over(self.moves.lost(index))

    # --- clients -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def join(self) -> None:
        if self.owner is None or not self.shards[self.owner].serves:
            return
        shard = self.shards[self.owner]
        if PARTITION not in shard.holding.served:
            return
        number, self.next_number = self.next_number, self.next_number + 1
        shard.holding.hold(number, ["key", RAW, None], [], None, number)
        shard.known.add(number)
        self.open.add(number)
        self.sent[number] = 0
        self.handled[number] = []

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.sent[number] += 1
        shard = self._where(number)
        if shard.holding.holds[number].phase is Phase.LIVE:
            shard.put("frame", number, self.sent[number])
            shard.sent_seq[number] = shard.seq
        else:
            shard.holding.keep(number, self.sent[number], 1)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(number)
        shard = self._where(number)
        if shard.holding.closed(number, (1000, "", True)):
            shard.put("end", number, 0)
            shard.holding.holds[number].end_seq = shard.seq

    # --- what must always be so ----------------------------------------------------------------

    @invariant()
    def frames_are_handled_once_and_in_order(self) -> None:
        for handled in self.handled.values():
            assert handled == sorted(set(handled))
        for number in self.open:
            assert self.handled[number] == list(range(1, len(self.handled[number]) + 1))

    @invariant()
    def each_open_connection_is_held_exactly_once(self) -> None:
        for number in self.open:
            self._where(number)

    @invariant()
    def the_budget_is_what_waits(self) -> None:
        holds = [hold for shard in self.shards for hold in shard.holding.holds.values()]
        budget = self.shards[0].holding._budget
        assert budget.waiting_bytes == sum(hold.frames_bytes for hold in holds)

    def teardown(self) -> None:
        """In the end, with one shard that stays, everything has arrived."""
        self.kill(1)
        self.start(0)
        self._hear_all(0)
        if self.shards[0].halting:
            self.give(patient=True)
            self._hear_all(0)
        self.take(0)
        self._hear_all(0)
        self._handle(0, len(self.shards[0].wire))
        for number in self.sent:
            if number in self.open:
                assert self.handled[number] == list(range(1, self.sent[number] + 1))
            else:
                assert self.ends.get(number), "its object never hears that it is gone"


TestMoves = Model.TestCase
TestMoves.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
