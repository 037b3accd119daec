"""Which shards exist, and the placement that follows from it."""

from __future__ import annotations

from typing import Protocol, final

from common.placement import Placement, ShardIndex


class Membership(Protocol):
    """The set of shards as one process knows it."""

    @property
    def version(self) -> int:
        """A number that rises with every change of the set."""

    @property
    def shards(self) -> frozenset[ShardIndex]:
        """The shards that exist, whether or not they are up just now."""

    @property
    def placement(self) -> Placement:
        """The home of every partition, given these shards."""


@final
class FixedMembership:
    """The shards 0..count-1, for ever: a shard that is down is awaited, not replaced.

    Its objects' files and its number wait for its successor, so moving them would only cost.

    Args:
        count: number of shards, at least 1.

    Raises:
        ValueError: ``count`` is less than 1.
    """

    __slots__ = ("placement", "shards", "version")

    def __init__(self, count: int) -> None:
        self.version = 1
        self.shards = frozenset(map(ShardIndex, range(count)))
        self.placement = Placement(self.shards)
