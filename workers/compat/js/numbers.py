"""``js.Number`` and what belongs to it."""

from __future__ import annotations

import math
import re
from typing import Any, Final

Infinity: Final = math.inf
NaN: Final = math.nan

_FLOAT: Final = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)


class Number:
    """JavaScript's ``Number``: its functions and constants; calling it converts."""

    MAX_SAFE_INTEGER = 2**53 - 1
    MIN_SAFE_INTEGER = -(2**53) + 1
    EPSILON = 2.0**-52
    POSITIVE_INFINITY = Infinity
    NEGATIVE_INFINITY = -Infinity

    def __new__(cls, value: Any = 0) -> Any:
        """Return ``value`` as an int or float; what is no number is NaN."""
        if isinstance(value, bool | int | float):
            return value if isinstance(value, float) else int(value)
        text = "" if value is None else str(value).strip()
        try:
            return int(text or "0", 0)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            return NaN

    @classmethod
    def new(cls, value: Any = 0) -> Any:
        """Return ``value`` as a number."""
        return cls(value)

    @staticmethod
    def isInteger(value: object) -> bool:
        """Whether it is a number without a fraction."""
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )

    @staticmethod
    def isFinite(value: object) -> bool:
        """Whether it is a finite number."""
        return isinstance(value, int | float) and math.isfinite(value)

    @staticmethod
    def isNaN(value: object) -> bool:
        """Whether it is NaN."""
        return isinstance(value, float) and math.isnan(value)


def isNaN(value: object) -> bool:
    """Whether ``value`` is no number once converted to one."""
    number = Number(value)
    return isinstance(number, float) and math.isnan(number)


def parseInt(text: object, radix: int = 10) -> int | float:
    """Return the integer at the start of ``text``, or NaN."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"[: radix or 10]
    match = re.match(rf"\s*([+-]?[{digits}]+)", str(text), re.IGNORECASE)
    return NaN if match is None else int(match[1], radix or 10)


def parseFloat(text: object) -> float:
    """Return the number at the start of ``text``, or NaN."""
    match = _FLOAT.match(str(text))
    return NaN if match is None else float(match[1])
