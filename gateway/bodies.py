"""Streamed bodies over a link, bounded by credit in both directions: machines without I/O.

A sender may have BODY_WINDOW_BYTES under way; the receiver gives credit back as bytes leave its
memory. So a body of any length needs one window of memory on each side, and whoever reads slowly
slows down the one who sends.
"""

from __future__ import annotations

from typing import Final

PIECE_BYTES: Final = 64 * 1024
"""Largest piece that travels as one record."""


class BodySender:
    """Decides which bytes of a body may go out.

    Args:
        window_bytes: what may be under way before the first credit.
    """

    __slots__ = ("_credit", "_ended", "_waiting")

    def __init__(self, window_bytes: int) -> None:
        self._credit = window_bytes
        self._waiting = b""
        self._ended = False

    @property
    def is_blocked(self) -> bool:
        """Bytes wait for credit: take no more from the source."""
        return bool(self._waiting)

    @property
    def has_ended(self) -> bool:
        """Everything has gone out, the end included."""
        return self._ended and not self._waiting

    def push(self, data: bytes) -> list[bytes]:
        """The source gave *data*; the pieces to send now."""
        self._waiting = self._waiting + data if self._waiting else data
        return self._pieces()

    def end(self) -> None:
        """The source has no more."""
        self._ended = True

    def credit(self, count: int) -> list[bytes]:
        """The receiver has consumed *count* bytes; the pieces to send now."""
        self._credit += count
        return self._pieces()

    def _pieces(self) -> list[bytes]:
        allowed = min(self._credit, len(self._waiting))
        if allowed <= 0:
            return []
        data, self._waiting = self._waiting[:allowed], self._waiting[allowed:]
        self._credit -= allowed
        if len(data) <= PIECE_BYTES:
            return [data]
        return [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]


class BodyReceiver:
    """Decides how much credit to give back.

    Args:
        window_bytes: what the sender started with; more than that under way is a fault.
    """

    __slots__ = ("_credited_bytes", "_owed", "_slack_bytes", "_under_way")

    def __init__(self, window_bytes: int) -> None:
        self._owed = 0
        self._under_way = 0
        # The sender checks before each piece, not within it.
        self._slack_bytes = window_bytes + PIECE_BYTES
        self._credited_bytes = window_bytes // 4

    def arrived(self, count: int) -> None:
        """*count* bytes have come.

        Raises:
            ValueError: more than was allowed.
        """
        self._owed += count
        self._under_way += count
        if self._under_way > self._slack_bytes:
            raise ValueError(f"{self._under_way} bytes of a body are under way without credit")

    def consumed(self) -> int:
        """All that has come is out of memory; the credit to give now, 0 if not worth a record."""
        if self._owed < self._credited_bytes:
            return 0
        owed, self._owed = self._owed, 0
        self._under_way -= owed
        return owed
