"""Which shard is the home of each partition: rendezvous hashing over the shards that exist.

Every process computes the same table from the same set of shards, so nobody has to be asked. For
each partition every shard draws a number that depends on nothing but the two of them, and the
highest one wins. Therefore a new shard takes only the partitions it wins, and those of a shard that
leaves are the only ones to move. (Thaler and Ravishankar, "Using name-based mappings to increase
hit rates", 1998.)

The spread is that of a fair draw: with N shards each owns 1024/N partitions, give or take twice the
square root of that. Beyond some hundred shards a shard owns few partitions and the spread becomes
coarse.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NewType, final

from common.ids import PARTITION_COUNT, Partition

if TYPE_CHECKING:
    from collections.abc import Iterable

ShardIndex = NewType("ShardIndex", int)
"""The number of a shard, 0..SHARDS-1."""

MAX_SHARDS: Final = 256
"""How many there may be."""

_WEIGHTS: Final = struct.Struct(f">{PARTITION_COUNT}Q")


@final
class Placement:
    """An immutable table from partition to shard. Equal when made from the same set of shards.

    Args:
        shards: the shards that exist, in any order, repetitions ignored.

    Raises:
        ValueError: ``shards`` is empty.
    """

    __slots__ = ("_owners", "shards")

    def __init__(self, shards: Iterable[ShardIndex]) -> None:
        self.shards: frozenset[ShardIndex] = frozenset(shards)
        if not self.shards:
            raise ValueError("a placement needs at least one shard")
        self._owners = _table(self.shards)

    def owner(self, partition: Partition) -> ShardIndex:
        """Return the shard that is the home of ``partition`` (0..1023).

        Raises:
            IndexError: there is no such partition.
        """
        return self._owners[partition]

    def partitions_of(self, shard: ShardIndex) -> frozenset[Partition]:
        """Return the partitions at home on ``shard``; none for a shard that is not placed."""
        return frozenset(
            Partition(partition) for partition, owner in enumerate(self._owners) if owner == shard
        )

    def __eq__(self, other: object) -> bool:
        return self.shards == other.shards if isinstance(other, Placement) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shards)

    def __repr__(self) -> str:
        return f"Placement({sorted(self.shards)})"


def moved(old: Placement, new: Placement) -> dict[Partition, tuple[ShardIndex, ShardIndex]]:
    """Return the partitions whose home differs, each with its old and its new home."""
    return {
        partition: (old.owner(partition), new.owner(partition))
        for partition in map(Partition, range(PARTITION_COUNT))
        if old.owner(partition) != new.owner(partition)
    }


@lru_cache(maxsize=64)
def _table(shards: frozenset[ShardIndex]) -> tuple[ShardIndex, ...]:
    drawn = [(_weights(shard), shard) for shard in sorted(shards, reverse=True)]
    # Shards are in falling order and max() keeps the first of equals: a tie goes to the highest
    # number.
    return tuple(
        max(drawn, key=lambda entry: entry[0][partition])[1] for partition in range(PARTITION_COUNT)
    )


@lru_cache(maxsize=256)
def _weights(shard: ShardIndex) -> tuple[int, ...]:
    """Draw the 1,024 numbers of one shard.

    SHAKE-128 yields them in a single call of any length. It gives the same bytes in every process
    and version of Python, which hash() does not.
    """
    seed = b"limpet placement 1\0%d" % shard
    return _WEIGHTS.unpack(hashlib.shake_128(seed).digest(_WEIGHTS.size))
