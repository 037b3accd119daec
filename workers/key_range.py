"""Which keys ``list()`` returns: its options, checked, and the bounds they amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from workers.exceptions import JsException

_LAST_CODE_POINT: Final = 0x10FFFF
_BEFORE_SURROGATES: Final = 0xD7FF
_AFTER_SURROGATES: Final = 0xE000


@dataclass(frozen=True, slots=True)
class KeyRange:
    """An interval of keys, in the order of their code points (which is that of their UTF-8 bytes).

    Attributes:
        low: the lower bound, or ``None``.
        low_excluded: whether ``low`` itself is out.
        high: the upper bound, itself out, or ``None``.
        reverse: whether the result goes from the highest key down.
        limit: how many keys at most, counted from the side the result begins with; or ``None``.
    """

    low: str | None = None
    low_excluded: bool = False
    high: str | None = None
    reverse: bool = False
    limit: int | None = None


EVERYTHING: Final = KeyRange()


def read_key(value: object) -> str:
    """Return ``value`` as a key: as JavaScript would write it if it is no string.

    A lone surrogate becomes U+FFFD.
    """
    text = value if type(value) is str else _as_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def read_range(
    options: Mapping[str, Any] | None, keywords: Mapping[str, Any], method: str = "list"
) -> KeyRange:
    """Return what the options of ``list()`` select; unknown ones are ignored.

    Args:
        options: ``{"prefix": …}``, or ``None``.
        keywords: the same as keywords, also in snake_case; they win.
        method: for error texts.

    Raises:
        TypeError: ``start`` and ``startAfter`` are both given, ``limit`` is not positive, or
            ``options`` is no mapping.
    """
    if options is None and not keywords:
        return EVERYTHING
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f'{method}() takes options as a dict or as keywords: prefix="a"')
    given = {**(options or {}), **keywords}
    after = given.get("startAfter", given.get("start_after"))
    start, end, prefix, limit = (given.get(name) for name in ("start", "end", "prefix", "limit"))
    if start is not None and after is not None:
        raise TypeError(f"{method}() cannot be called with both start and startAfter values.")
    low = None if start is None else read_key(start)
    excluded = after is not None
    if after is not None:
        low = read_key(after)
    high = None if end is None else read_key(end)
    if prefix is not None and (text := read_key(prefix)):
        if low is None or low < text:
            low, excluded = text, False
        beyond = after_prefix(text)
        if beyond is not None and (high is None or beyond < high):
            high = beyond
    return KeyRange(low, excluded, high, bool(given.get("reverse")), _read_limit(limit))


def after_prefix(prefix: str) -> str | None:
    """Return the least string above all that begin with ``prefix``; ``None`` if there is none."""
    while prefix:
        last = ord(prefix[-1])
        prefix = prefix[:-1]
        if last == _BEFORE_SURROGATES:
            return prefix + chr(_AFTER_SURROGATES)
        if last < _LAST_CODE_POINT:
            return prefix + chr(last + 1)
    return None


def _read_limit(limit: object) -> int | None:
    if limit is None:
        return None
    try:
        number = int(float(limit)) if isinstance(limit, str) else int(limit)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number <= 0:
        raise TypeError("List limit must be positive.")
    return min(number, (1 << 63) - 1)


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ",".join("" if item is None else _as_text(item) for item in value)
    if isinstance(value, Mapping):
        raise JsException("a storage key must be a string, not a dict", "TypeError")
    return str(value)
