from __future__ import annotations

import pytest

from common.membership import FixedMembership, Membership
from common.placement import Placement, ShardIndex


def test_the_shards_are_those_of_the_settings_for_ever() -> None:
    membership: Membership = FixedMembership(3)
    assert membership.shards == {0, 1, 2}
    assert membership.version == 1
    assert membership.placement == Placement(map(ShardIndex, range(3)))


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        FixedMembership(0)
