"""Which shard each partition's connections are to be handed to, as a machine without I/O.

A shard says which partitions it has taken (``HELLO``, ``TAKEN``); another one says that it has let
them go (``GIVEN``), or is lost. The two come over different links, in any order. The connections
that objects of a partition hold may be handed over when both are so: the one that had it has said
its last word about them, and somebody has taken it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Moves:
    """The partitions as one gateway knows them.

    Attributes:
        owners: which shard had each of them last, as long as it has not let go of it.
    """

    def __init__(self) -> None:
        self.owners: dict[int, int] = {}
        self._takers: dict[int, int] = {}

    def took(self, shard: int, partitions: Iterable[int]) -> list[int]:
        """A shard has taken these; those whose connections can be handed to it at once."""
        ready: list[int] = []
        for partition in partitions:
            if self.owners.setdefault(partition, shard) == shard:
                ready.append(partition)
            else:
                self._takers[partition] = shard
        return ready

    def gave(self, shard: int, partitions: Iterable[int]) -> dict[int, list[int]]:
        """A shard has let these go; what can be handed over now, by the shard that has taken it."""
        ready: dict[int, list[int]] = defaultdict(list)
        for partition in partitions:
            if self._takers.get(partition) == shard:  # it had them for no longer than a moment
                del self._takers[partition]
            if self.owners.get(partition) != shard:
                continue
            del self.owners[partition]
            taker = self._takers.pop(partition, None)
            if taker is not None:
                self.owners[partition] = taker
                ready[taker].append(partition)
        return dict(ready)

    def lost(self, shard: int) -> dict[int, list[int]]:
        """A shard is gone, and whatever it had; as :meth:`gave`."""
        self._takers = {each: taker for each, taker in self._takers.items() if taker != shard}
        return self.gave(shard, [each for each, owner in self.owners.items() if owner == shard])
