"""Messages that have come in part: what clients make a gateway keep, all of them together.

One client may send up to MAX_MESSAGE_BYTES before its message is whole and can be passed on, and
may stop one byte short of that. Pausing its reader would not help: only what is still to come makes
the message whole. So when all together exceed PARTIAL_TOTAL_BYTES, whoever has sent most of an
unfinished message gives way: that frees the most, and never harms those who send small ones.
"""

from __future__ import annotations

from typing import Final, Protocol

SMALL_BYTES: Final = 4096
"""Less is not counted for each client: it is what a frame takes that came in two reads."""


class Sender(Protocol):
    """Who has sent a part of a message."""

    def give_way(self) -> None:
        """Forget the part: the connection is over. Must call :meth:`Partials.keep` with 0."""


class Partials:
    """See the module.

    Args:
        total_bytes: how much may be kept.
    """

    __slots__ = ("_kept", "_total_bytes", "kept_bytes")

    def __init__(self, total_bytes: int) -> None:
        self.kept_bytes = 0
        """By all together."""
        self._total_bytes = total_bytes
        self._kept: dict[Sender, int] = {}

    def keep(self, sender: Sender, size: int) -> None:
        """*sender* has now *size* bytes of an unfinished message here; 0 if none.

        Those who must give way do so before this returns; *sender* may be one of them.
        """
        if size < SMALL_BYTES:
            self.kept_bytes -= self._kept.pop(sender, 0)
            return
        self.kept_bytes += size - self._kept.get(sender, 0)
        self._kept[sender] = size
        while self.kept_bytes > self._total_bytes:
            largest = max(self._kept, key=self._kept.__getitem__)
            self.kept_bytes -= self._kept.pop(largest)
            largest.give_way()
