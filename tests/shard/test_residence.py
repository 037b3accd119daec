"""Rules of :mod:`shard.residence`: no partition is served before everybody has handed back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.ids import Partition
from shard.residence import STEPS, Cause, Residences, Stage

GATEWAYS = 2
PARTITIONS = tuple(map(Partition, range(4)))


class Model(RuleBasedStateMachine):
    """A shard's partitions, against what its gateways have said since each was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.residences = Residences(GATEWAYS)
        self.generation = 0
        self.said: dict[Partition, set[int]] = {}
        self.late: set[Partition] = set()
        self.halted: set[Partition] = set()

    @rule(wanted=st.sets(st.sampled_from(PARTITIONS)))
    def take(self, wanted: set[Partition]) -> None:
        lacking = self.residences.lacking(wanted)
        assert set(lacking) == wanted - self.said.keys()
        self.generation += 1
        self.residences.took(dict.fromkeys(lacking, self.generation))
        self.said.update({each: set() for each in lacking})

    @rule(gateway=st.integers(0, GATEWAYS - 1), about=st.sets(st.sampled_from(PARTITIONS)))
    def hand_back(self, gateway: int, about: set[Partition]) -> None:
        before = self.residences.at(Stage.SERVED)
        served = self.residences.handed_back(gateway, about)
        assert served == self.residences.at(Stage.SERVED) - before
        for each in about & self.said.keys():
            self.said[each].add(gateway)

    @rule(about=st.sets(st.sampled_from(PARTITIONS)))
    def lose_patience(self, about: set[Partition]) -> None:
        self.late |= self.residences.patience_over(about)

    @rule(placed=st.sets(st.sampled_from(PARTITIONS)))
    def halt(self, placed: set[Partition]) -> None:
        surplus = self.residences.surplus(placed)
        assert not placed.intersection(surplus)
        self.residences.halt(surplus)
        self.halted.update(surplus)

    @rule(about=st.sets(st.sampled_from(PARTITIONS)))
    def give(self, about: set[Partition]) -> None:
        gone = about & self.halted
        self.residences.gave(gone)
        self.halted -= gone
        self.late -= gone
        for each in gone:
            del self.said[each]

    @invariant()
    def each_stands_where_it_should(self) -> None:
        assert self.residences.generations.keys() == self.said.keys()
        assert self.residences.served == self.residences.at(Stage.SERVED)
        for each in PARTITIONS:
            stage = self.residences.stage(each)
            if each not in self.said:
                assert stage is Stage.ABSENT
            elif each in self.halted:
                assert stage is Stage.HALTING
            elif self.said[each] == set(range(GATEWAYS)) or each in self.late:
                assert stage is Stage.SERVED
            else:
                assert stage is Stage.JOINING


TestResidences = Model.TestCase


def test_what_is_out_of_order_is_an_error() -> None:
    residences = Residences(1)
    with pytest.raises(KeyError):
        residences.halt(PARTITIONS[:1])
    residences.took({PARTITIONS[0]: 1})
    with pytest.raises(KeyError):
        residences.took({PARTITIONS[0]: 2})
    with pytest.raises(KeyError):
        residences.gave(PARTITIONS[:1])


def test_a_partition_that_is_not_here_is_nowhere_in_the_table_after_it_has_left() -> None:
    assert {cause for stage, cause in STEPS if stage is Stage.ABSENT} == {Cause.TOOK}
    assert [start for (start, _), then in STEPS.items() if then is Stage.ABSENT] == [Stage.HALTING]
