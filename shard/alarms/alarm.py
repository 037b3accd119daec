"""One object's alarm, as a shard keeps it while the object sleeps."""

from __future__ import annotations


class Alarm:
    """See the module. There may be very many: half a kilobyte each, and no slot.

    Attributes:
        unique_key: of the object's namespace.
        raw: the object's id.
        name: the object's name, if it is known.
        due_ms: when it is to ring, milliseconds since 1970; ``None`` if it is not set.
        running: ``alarm()`` has been begun, or waits for its object, and has not ended.
        fresh: it was set while it was running: it rings anew.
        failures: how many runs have failed since it was set.
        retries: how many of them count.
        stamp: its valid place in the schedule; 0 if it has none.
        indexed_ms: what the partition's index says.
        unsettled: commits that have changed it and are not durable yet.
        losses: how many such commits the disk has lost, one after the other.
    """

    __slots__ = (
        "due_ms",
        "failures",
        "fresh",
        "indexed_ms",
        "losses",
        "name",
        "raw",
        "retries",
        "running",
        "stamp",
        "unique_key",
        "unsettled",
    )

    def __init__(self, unique_key: str, raw: bytes, name: str | None) -> None:
        self.unique_key = unique_key
        self.raw = raw
        self.name = name
        self.due_ms: int | None = None
        self.running = False
        self.fresh = False
        self.failures = 0
        self.retries = 0
        self.stamp = 0
        self.indexed_ms: int | None = None
        self.unsettled = 0
        self.losses = 0

    def __repr__(self) -> str:
        return f"<Alarm of {self.unique_key} {self.name or self.raw.hex()[:16]} at {self.due_ms}>"

    @property
    def over(self) -> bool:
        """Nothing is left of it."""
        return (
            self.due_ms is None
            and self.indexed_ms is None
            and not self.running
            and not self.unsettled
        )
