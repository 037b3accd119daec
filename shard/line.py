"""What records are sent into: a link to another process, or the loop back to this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.link.records import Record


class Line(Protocol):
    """The sending end, as whoever speaks over it needs it."""

    @property
    def is_open(self) -> bool:
        """Records sent now have a chance to arrive."""

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait for the other end's credit."""

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        """Send a record behind all that were sent before; *payload_bytes* count for credit."""

    def urgent(self, record: Record) -> None:
        """Send a record ahead of those that wait."""


class Loopback:
    """A line whose other end is its own: what one object passes to another of the same process.

    A record is handled before :meth:`send` returns.

    Attributes:
        receive: gets the records; set once, before the first of them.
    """

    is_open = True
    queued_bytes = 0

    def __init__(self) -> None:
        self.receive: Callable[[Record], None] = _nobody

    def send(self, record: Record, payload_bytes: int = 0) -> None:
        self.receive(record)

    def urgent(self, record: Record) -> None:
        self.receive(record)


def _nobody(record: Record) -> None:
    raise AssertionError("the loopback has no receiver")
