from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import PARTITION_COUNT, Partition
from common.placement import Placement, ShardIndex, moved

PARTITIONS = [Partition(n) for n in range(PARTITION_COUNT)]
shard_sets = st.sets(st.integers(0, 255).map(ShardIndex), min_size=1, max_size=12)


def first(count: int) -> Placement:
    return Placement(map(ShardIndex, range(count)))


@given(shards=shard_sets)
def test_every_partition_has_exactly_one_owner_among_the_shards(shards: set[ShardIndex]) -> None:
    placement = Placement(shards)
    parts = [placement.partitions_of(shard) for shard in shards]
    assert sum(map(len, parts)) == PARTITION_COUNT
    assert frozenset().union(*parts) == frozenset(PARTITIONS)
    assert all(p in placement.partitions_of(placement.owner(p)) for p in PARTITIONS[::64])


@given(shards=shard_sets, new=st.integers(0, 255).map(ShardIndex))
def test_a_new_shard_takes_partitions_and_moves_nothing_else(
    shards: set[ShardIndex], new: ShardIndex
) -> None:
    shards.discard(new)
    if not shards:
        return
    changes = moved(Placement(shards), Placement(shards | {new}))
    assert {to for _, to in changes.values()} <= {new}
    assert frozenset(changes) == Placement(shards | {new}).partitions_of(new)


@given(shards=shard_sets)
def test_a_leaving_shard_moves_only_its_own_partitions(shards: set[ShardIndex]) -> None:
    if len(shards) < 2:
        return
    leaving = min(shards)
    old, new = Placement(shards), Placement(shards - {leaving})
    assert frozenset(moved(old, new)) == old.partitions_of(leaving)


@given(shards=st.lists(st.integers(0, 255).map(ShardIndex), min_size=1, max_size=12))
def test_order_and_repetition_do_not_matter(shards: list[ShardIndex]) -> None:
    a, b = Placement(shards), Placement([*reversed(shards), shards[0]])
    assert a == b
    assert hash(a) == hash(b)
    assert [a.owner(p) for p in PARTITIONS] == [b.owner(p) for p in PARTITIONS]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 16, 32, 64])
def test_partitions_are_shared_out_as_by_a_fair_draw(count: int) -> None:
    mean = PARTITION_COUNT / count
    sizes = [len(first(count).partitions_of(ShardIndex(n))) for n in range(count)]
    assert mean - 4 * mean**0.5 <= min(sizes)
    assert max(sizes) <= mean + 4 * mean**0.5


def digest(count: int) -> str:
    owners = bytes(first(count).owner(p) for p in PARTITIONS)
    return hashlib.sha256(owners).hexdigest()[:16]


def test_the_table_never_changes() -> None:
    """Two releases that disagree about it would both open the same object's file."""
    assert {n: digest(n) for n in (2, 3, 8)} == {
        2: "8a383a3b443a275b",
        3: "df25fb2fc107c3ff",
        8: "3fa0b3acc2c7020c",
    }


def test_another_process_computes_the_same_table() -> None:
    code = (
        "from common.placement import Placement\n"
        "print(*[Placement(range(5)).owner(p) for p in range(1024)])"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {" ".join(str(first(5).owner(p)) for p in PARTITIONS) + "\n"}


def test_a_placement_needs_a_shard() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        Placement([])


def test_a_stranger_owns_nothing() -> None:
    assert first(2).partitions_of(ShardIndex(7)) == frozenset()
    assert repr(first(2)) == "Placement([0, 1])"
