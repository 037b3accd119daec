"""A shard that starts tells members of its cluster, who may have its partitions, from strangers."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import HeldElsewhere
from common.ids import Partition
from common.metrics import Metrics
from common.ownership import FlockOwnership, claim_index
from common.settings import Settings
from shard.server import ShardService


@pytest.mark.parametrize("is_member", [True, False])
def test_a_holder_of_our_own_pid_and_host_name(tmp_path: Path, is_member: bool) -> None:
    """As in containers: process ids repeat there, and host names do if somebody sets them."""
    run_dir, data_dir = tmp_path / "run", tmp_path / "data"
    settings = Settings.load({"RUN_DIR": str(run_dir), "DATA_DIR": str(data_dir), "SHARDS": "1"})
    index, mine = claim_index(run_dir, "shard", 2)
    _, other = claim_index(run_dir if is_member else tmp_path / "elsewhere", "shard", 2)
    holder = FlockOwnership(data_dir)
    holder.acquire([Partition(2)])
    service = ShardService(settings, index, Metrics("shard", index))
    try:
        if is_member:
            service._check_strangers()
        else:
            with pytest.raises(HeldElsewhere, match="partition 2"):
                service._check_strangers()
    finally:
        for partition in list(service._ownership.held()):
            service._ownership.release(partition)
        holder.release(Partition(2))
        mine.release()
        other.release()
