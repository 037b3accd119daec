"""How shards without a supervisor (containers, units of an init system) become members, and leave.

Each claims a number by a lock (:func:`common.ownership.claim_index`) and enters it into the
membership. One that stops takes itself out, so that its partitions are handed over while it is
there. One that has died is awaited for LEAVE_TIMEOUT_S, as whoever runs it will start it again, and
then taken out by another: its lock, which nobody holds, is the proof.
"""

from __future__ import annotations

from pathlib import Path

from common.file_lock import try_lock
from common.membership import changing_membership
from common.ownership import index_lock_path
from common.placement import MAX_SHARDS


def is_alive(run_dir: Path, index: int) -> bool:
    """Whether a process holds that shard's number."""
    path = index_lock_path(run_dir, "shard", index)
    if not path.exists():
        return False
    lock = try_lock(path)
    if lock is None:
        return True
    lock.release()
    return False


def enter(run_dir: Path, index: int, expected: int) -> None:
    """Make the shard *index* a member.

    Args:
        run_dir: the cluster's.
        index: whose lock this process holds.
        expected: how many shards are being started. The first of them to come makes all of them
            members, and forgets those of earlier days: no partition moves while the rest come.

    Raises:
        ConfigError: the membership cannot be written.
    """
    with changing_membership(run_dir) as members:
        others = (each for each in range(MAX_SHARDS) if each != index)
        if not any(is_alive(run_dir, each) for each in others):
            members.clear()
            members.update(range(expected))
        members.add(index)


def leave(run_dir: Path, index: int) -> bool:
    """Take this shard out, unless it is the last; whether it was done.

    Raises:
        ConfigError: the membership cannot be written.
    """
    with changing_membership(run_dir) as members:
        if members <= {index}:
            return False
        members.discard(index)
        return True


def remove_dead(run_dir: Path, index: int) -> bool:
    """Take a shard out that is not there; whether it was done.

    Raises:
        ConfigError: the membership cannot be written.
    """
    with changing_membership(run_dir) as members:
        if index not in members or is_alive(run_dir, index):
            return False
        members.discard(index)
        return True
