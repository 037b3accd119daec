"""Where each partition stands on this shard, as a machine without I/O.

Theory of operation
-------------------
Two things must be so before a shard may run events of a partition's objects: it owns the partition
(:mod:`common.ownership`), and every gateway has handed back the records of the connections that
those objects hold, else the first message to a room would reach only some of its members. And
before it may let a partition go, everybody must have stopped sending it events, and what had been
sent must be done.

::

              TOOK                JOINED               HALT               GAVE
    ABSENT ─────────▶ JOINING ─────────────▶ SERVED ─────────▶ HALTING ─────────▶ ABSENT

A process that dies is not in the picture: its locks are free and its links are down, and with them
everything that this table knows.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from common.ids import Partition


class Stage(enum.Enum):
    """Where a partition stands on this shard."""

    ABSENT = "absent"
    JOINING = "joining"
    SERVED = "served"
    HALTING = "halting"


class Cause(enum.Enum):
    """What may happen to it."""

    TOOK = "its lock is ours"
    JOINED = "all gateways have handed back, or are late"
    HALT = "another shard is to have it"
    GAVE = "nothing of it is under way"


STEPS: Final[dict[tuple[Stage, Cause], Stage]] = {
    (Stage.ABSENT, Cause.TOOK): Stage.JOINING,
    (Stage.JOINING, Cause.JOINED): Stage.SERVED,
    (Stage.SERVED, Cause.HALT): Stage.HALTING,
    (Stage.HALTING, Cause.GAVE): Stage.ABSENT,
}
"""A pair that is missing is a fault of ours."""


class Residences:
    """The partitions of one shard.

    Args:
        gateways: how many there are: numbers 0..gateways-1.

    Attributes:
        generations: of those that are owned.
        served: those whose events may run here now.
    """

    def __init__(self, gateways: int) -> None:
        self.generations: dict[Partition, int] = {}
        self.served: set[Partition] = set()
        self._gateways = frozenset(range(gateways))
        self._stages: dict[Partition, Stage] = {}
        self._missing: dict[Partition, set[int]] = {}

    def stage(self, partition: Partition) -> Stage:
        """Where that partition stands."""
        return self._stages.get(partition, Stage.ABSENT)

    def at(self, stage: Stage) -> set[Partition]:
        """All that stand there; for ``ABSENT`` that is not known."""
        return {partition for partition, found in self._stages.items() if found is stage}

    def took(self, generations: Mapping[Partition, int]) -> None:
        """These are owned from now on.

        Raises:
            KeyError: one of them is owned already.
        """
        for partition, generation in generations.items():
            self._step(partition, Cause.TOOK)
            self.generations[partition] = generation
            self._missing[partition] = set(self._gateways)

    def handed_back(self, gateway: int, partitions: Iterable[Partition]) -> set[Partition]:
        """A gateway has handed back its records; those that can be served now because of that."""
        joined: set[Partition] = set()
        for partition in partitions:
            missing = self._missing.get(partition)
            if missing is not None:
                missing.discard(gateway)
                if not missing:
                    joined.add(partition)
        self._join(joined)
        return joined

    def patience_over(self, partitions: Iterable[Partition]) -> set[Partition]:
        """Some gateways are late: those of *partitions* that are served now all the same."""
        joined = {each for each in partitions if each in self._missing}
        self._join(joined)
        return joined

    def halt(self, partitions: Iterable[Partition]) -> None:
        """These are to go.

        Raises:
            KeyError: one of them is not served.
        """
        for partition in partitions:
            self._step(partition, Cause.HALT)

    def gave(self, partitions: Iterable[Partition]) -> None:
        """These are not owned any more.

        Raises:
            KeyError: one of them was not halted.
        """
        for partition in partitions:
            self._step(partition, Cause.GAVE)
            del self.generations[partition]

    def surplus(self, placed: Collection[Partition]) -> list[Partition]:
        """Those that are served here and placed elsewhere, in order."""
        return sorted(self.served.difference(placed))

    def lacking(self, placed: Collection[Partition]) -> list[Partition]:
        """Those that are placed here and not owned, in order."""
        return sorted(set(placed).difference(self._stages))

    def _join(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._step(partition, Cause.JOINED)
            del self._missing[partition]

    def _step(self, partition: Partition, cause: Cause) -> None:
        stage = STEPS[self.stage(partition), cause]
        if stage is Stage.SERVED:
            self.served.add(partition)
        else:
            self.served.discard(partition)
        if stage is Stage.ABSENT:
            del self._stages[partition]
        else:
            self._stages[partition] = stage
