from __future__ import annotations

from pathlib import Path

import pytest

from common import registration
from common.membership import (
    FileMembership,
    FixedMembership,
    LocalMembership,
    Membership,
    changing_membership,
    membership_version,
)
from common.ownership import claim_index
from common.placement import MAX_SHARDS, Placement, ShardIndex


def test_the_shards_are_those_of_the_settings_for_ever() -> None:
    membership: Membership = FixedMembership(3)
    assert membership.shards == {0, 1, 2}
    assert membership.version == 1
    assert membership.placement == Placement(map(ShardIndex, range(3)))


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        FixedMembership(0)


def test_subscribers_hear_of_each_change() -> None:
    membership = LocalMembership([0, 1])
    heard: list[tuple[int, list[int]]] = []
    membership.subscribe(lambda: heard.append((membership.version, sorted(membership.shards))))
    membership.change([0])
    membership.change([0, 1, 2])
    assert heard == [(2, [0]), (3, [0, 1, 2])]


def test_the_file_is_followed(tmp_path: Path) -> None:
    membership = FileMembership(tmp_path, otherwise=2)
    assert membership.version == 0
    assert membership.shards == {0, 1}
    changes: list[int] = []
    membership.subscribe(lambda: changes.append(membership.version))
    with changing_membership(tmp_path) as members:
        members.update({0, 5})
    membership.refresh()
    membership.refresh()
    assert changes == [1]
    assert membership.shards == {0, 5}
    with changing_membership(tmp_path) as members:
        members.discard(5)
    assert FileMembership(tmp_path, otherwise=2).shards == {0}
    assert membership_version(tmp_path) == 2


def test_a_change_of_nothing_is_no_new_version(tmp_path: Path) -> None:
    for _ in range(2):
        with changing_membership(tmp_path) as members:
            members.add(0)
    with changing_membership(tmp_path) as members:
        members.clear()  # there is always somebody
    assert membership_version(tmp_path) == 1


def test_a_file_that_makes_no_sense_changes_nothing(tmp_path: Path) -> None:
    with changing_membership(tmp_path) as members:
        members.update({0, 1})
    membership = FileMembership(tmp_path, otherwise=1)
    (tmp_path / "membership").write_text("{")
    membership.refresh()
    assert membership.shards == {0, 1}


def test_the_first_to_come_makes_all_that_are_expected_members(tmp_path: Path) -> None:
    with changing_membership(tmp_path) as members:
        members.update({0, 1, 2, 3})  # of an earlier day
    _, lock = claim_index(tmp_path, "shard", MAX_SHARDS)
    registration.enter(tmp_path, 0, expected=2)
    assert FileMembership(tmp_path, 1).shards == {0, 1}
    _, other = claim_index(tmp_path, "shard", MAX_SHARDS, wanted=2)
    registration.enter(tmp_path, 2, expected=2)
    assert FileMembership(tmp_path, 1).shards == {0, 1, 2}
    for each in (lock, other):
        each.release()


def test_who_is_gone_is_struck_off_and_who_is_there_is_not(tmp_path: Path) -> None:
    _, lock = claim_index(tmp_path, "shard", MAX_SHARDS)
    registration.enter(tmp_path, 0, expected=2)
    assert registration.is_alive(tmp_path, 0)
    assert not registration.is_alive(tmp_path, 1)
    assert not registration.remove_dead(tmp_path, 0)
    assert registration.remove_dead(tmp_path, 1)
    assert not registration.remove_dead(tmp_path, 1)
    assert not registration.leave(tmp_path, 0), "the last one stays"
    assert FileMembership(tmp_path, 1).shards == {0}
    lock.release()
