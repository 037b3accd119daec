"""Leases during which the databases of a partition are not written to, only their logs.

Whoever copies files (``limpet backup``) asks for one. Objects go on: commits are appended to their
logs, which leaves what was there as it was; only checkpoints wait. So the database file, and as
much of the log as there is, make a consistent copy. A lease ends by itself, so that a command that
was killed holds nothing up; the next checkpoint then makes up for those that were put off.

No clock here: time comes in as an argument.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from common.ids import Partition

MAX_LEASE_S: Final = 60.0


@dataclass(slots=True)
class _Lease:
    partition: Partition
    generation: int
    ends_at: float


class Standstills:
    """The leases on one shard's partitions."""

    __slots__ = ("_leases",)

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}

    def begin(self, partition: Partition, generation: int, seconds: float, now_s: float) -> str:
        """Begin a lease of at most :data:`MAX_LEASE_S`; its token."""
        self._expire(now_s)
        token = secrets.token_hex(16)
        ends_at = now_s + min(seconds, MAX_LEASE_S)
        self._leases[token] = _Lease(partition, generation, ends_at)
        return token

    def renew(self, token: str, generation: int | None, seconds: float, now_s: float) -> bool:
        """Let a lease go on; ``False`` if it has ended, or the partition has changed hands."""
        self._expire(now_s)
        lease = self._leases.get(token)
        if lease is None or lease.generation != generation:
            return False
        lease.ends_at = now_s + min(seconds, MAX_LEASE_S)
        return True

    def end(self, token: str, generation: int | None, now_s: float) -> bool:
        """End a lease; whether it had held until now."""
        held = self.renew(token, generation, 0.0, now_s)
        self._leases.pop(token, None)
        return held

    def partition_of(self, token: str) -> Partition | None:
        """Which partition a lease is on, if it is known."""
        lease = self._leases.get(token)
        return None if lease is None else lease.partition

    def holds(self, partition: Partition, now_s: float) -> bool:
        """Whether a lease is on that partition."""
        if not self._leases:
            return False
        self._expire(now_s)
        return any(lease.partition == partition for lease in self._leases.values())

    def _expire(self, now_s: float) -> None:
        for token in [key for key, lease in self._leases.items() if lease.ends_at < now_s]:
            del self._leases[token]
