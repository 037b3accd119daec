"""``js.Date``: a ``datetime`` in UTC with JavaScript's methods."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any, Final

from workers.exceptions import RangeError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Date(dt.datetime):
    """A moment, in milliseconds since 1970. Use :meth:`new` and :meth:`now`.

    Source: https://developer.mozilla.org/docs/Web/JavaScript/Reference/Global_Objects/Date
    """

    @classmethod
    def new(cls, *args: Any) -> Date:
        """Make one: of now, of milliseconds, of an ISO 8601 text, of a date, or of its fields.

        Fields are year, month (0..11), day and so on, in local time.

        Raises:
            RangeError: that is no date.
        """
        if not args:
            return cls._of(cls.now())
        if len(args) == 1:
            return cls._of(_milliseconds(args[0]))
        year, month, *rest = (int(arg) for arg in args)
        day, hour, minute, second, milli = (*rest, *(1, 0, 0, 0, 0)[len(rest) :])
        try:
            start = dt.datetime(year + month // 12, month % 12 + 1, 1).astimezone()
        except ValueError:
            raise RangeError("Invalid time value") from None
        moment = start + dt.timedelta(
            days=day - 1, hours=hour, minutes=minute, seconds=second, milliseconds=milli
        )
        return cls._of(_since_epoch(moment))

    @classmethod
    def _of(cls, milliseconds: int) -> Date:
        try:
            moment = _EPOCH + dt.timedelta(milliseconds=milliseconds)
        except OverflowError:
            raise RangeError("Invalid time value") from None
        return cls(
            moment.year,
            moment.month,
            moment.day,
            moment.hour,
            moment.minute,
            moment.second,
            moment.microsecond,
            dt.UTC,
        )

    @staticmethod
    def now() -> int:  # type: ignore[override]
        """Return the milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    @staticmethod
    def parse(text: str) -> int:
        """Return the milliseconds since 1970 of an ISO 8601 text.

        Raises:
            RangeError: it is none.
        """
        return _milliseconds(text)

    def getTime(self) -> int:
        """Return the milliseconds since 1970."""
        return _since_epoch(self)

    valueOf = getTime

    def toISOString(self) -> str:
        """Return it as ``2026-01-31T12:00:00.000Z``."""
        return self.astimezone(dt.UTC).isoformat(timespec="milliseconds")[:23] + "Z"

    toJSON = toISOString

    def getFullYear(self) -> int:
        """Return the year, in local time."""
        return self.astimezone().year

    def getMonth(self) -> int:
        """Return the month 0..11, in local time."""
        return self.astimezone().month - 1

    def getDate(self) -> int:
        """Return the day of the month, in local time."""
        return self.astimezone().day

    def getHours(self) -> int:
        """Return the hour, in local time."""
        return self.astimezone().hour

    def getMinutes(self) -> int:
        """Return the minute, in local time."""
        return self.astimezone().minute

    def getSeconds(self) -> int:
        """Return the second."""
        return self.second

    def getMilliseconds(self) -> int:
        """Return the millisecond."""
        return self.microsecond // 1000


def _milliseconds(value: object) -> int:
    if isinstance(value, dt.datetime):
        return _since_epoch(value.astimezone(dt.UTC))
    if isinstance(value, int | float):
        try:
            return int(value)
        except (ValueError, OverflowError):
            raise RangeError("Invalid time value") from None
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise RangeError("Invalid time value") from None
    if moment.tzinfo is None and len(str(value)) <= len("2026-01-31"):
        moment = moment.replace(tzinfo=dt.UTC)  # ECMAScript: a date alone is in UTC.
    return _since_epoch(moment.astimezone(dt.UTC))


def _since_epoch(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
