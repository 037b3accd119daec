"""The key-value calls and the alarm: what ``ctx.storage`` and a transaction have in common."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, overload

from workers.convert import JsDict
from workers.key_range import read_key, read_range
from workers.settled import DONE, Settled

if TYPE_CHECKING:
    from workers.host import KeyValueHost

MAX_ALARM_MS: Final = 6_927_465_600_000
"""The end of 2189 (UTC), in milliseconds since 1970."""

_MISSING: Final = object()
_SEVERAL: Final = list | tuple | set | frozenset
_PUT_FORMS: Final = (
    "put() may only be called with a single key-value pair and optional options as "
    "put(key, value, options) or with multiple key-value pairs and optional options as "
    "put(entries, options)"
)
_NO_DATE: Final = (
    "Failed to execute 'setAlarm' on 'DurableObjectStorage': parameter 1 is not of type 'date'."
)


class KeyValueCalls:
    """Asynchronous key-value calls.

    Each does its work at once and in the order of the calls, awaited or not; awaiting it never lets
    another event of the object run. Writes made without an intermediate suspension are one atomic
    commit; no message, response or call leaves the object before what it was written after is on
    disk.

    Keys are strings, ordered by code points. Values are those of :mod:`workers.serialization`.
    Options may be given as a dict or as keywords. ``allowUnconfirmed`` lets messages leave before
    this write is on disk; ``allowConcurrency`` and ``noCache`` have no effect, as on Cloudflare.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#asynchronous-kv-api
    """

    __slots__ = ("_host",)

    def __init__(self, host: KeyValueHost) -> None:
        self._host = host

    def get(
        self, key: str | Iterable[str], options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[Any]:
        """Return the value of ``key``, or ``None``.

        For a list of any number of keys: a dict of those that exist, in the order of the keys.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#get
        """
        if type(key) is str:
            return Settled(self._host.get(key))
        if isinstance(key, _SEVERAL):
            return Settled(self._host.get_many([read_key(each) for each in key]))
        return Settled(self._host.get(read_key(key)))

    def put(
        self,
        key: str | Mapping[str, Any],
        value: Any = _MISSING,
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Settled[None]:
        """Store ``value`` under ``key``, or every item of a dict: ``put({"a": 1, "b": 2})``.

        The value is read at the call; a later change to it is not seen. The two forms are
        ``put(key, value, options)`` and ``put(entries, options)``; the option is
        ``allowUnconfirmed``.

        Raises:
            TypeError: no value, or a second argument of ``put(entries, …)`` that is no dict.
            DataCloneError: the value cannot be stored.
            JsException: the value is larger than 8 MiB, or storage failed.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#put
        """
        if isinstance(key, Mapping):
            if value is not _MISSING and value is not None:
                if not isinstance(value, Mapping) or options is not None:
                    raise TypeError(_PUT_FORMS)
                options = value
            entries = [(read_key(name), each) for name, each in key.items()]
        elif value is _MISSING:
            raise TypeError("put() called with undefined value.")
        elif options is not None and not isinstance(options, Mapping):
            raise TypeError(_PUT_FORMS)
        else:
            entries = [(read_key(key), value)]
        self._host.put(entries, unconfirmed=is_unconfirmed(options, keywords))
        return DONE

    @overload
    def delete(
        self, key: str, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[bool]: ...
    @overload
    def delete(
        self, key: Iterable[str], options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[int]: ...
    def delete(
        self, key: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[Any]:
        """Delete ``key``: whether it existed; or every key of a list: how many existed.

        The option is ``allowUnconfirmed``.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#delete
        """
        unconfirmed = is_unconfirmed(options, keywords)
        if isinstance(key, _SEVERAL):
            keys = [read_key(each) for each in key]
            return Settled(self._host.delete(keys, unconfirmed=unconfirmed))
        return Settled(self._host.delete([read_key(key)], unconfirmed=unconfirmed) > 0)

    def list(self, options: Mapping[str, Any] | None = None, **keywords: Any) -> Settled[JsDict]:
        """Return keys and values, in the order of the keys.

        The options are ``start`` (included) or ``startAfter`` (not included), ``end`` (not
        included), ``prefix``, ``reverse`` (of the result only: ``start`` stays the lower bound) and
        ``limit``.

        Raises:
            TypeError: ``start`` with ``startAfter``, or a ``limit`` that is not positive.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#list
        """
        return Settled(self._host.list(read_range(options, keywords)))

    # --- the alarm ---------------------------------------------------------------------------

    def getAlarm(
        self, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[int | None]:
        """Return when the alarm is due, in milliseconds since 1970, or ``None``.

        ``None`` too while its handler runs, unless that has set it again.

        Source: https://developers.cloudflare.com/durable-objects/api/alarms/#getalarm
        """
        return Settled(self._host.get_alarm())

    def setAlarm(
        self,
        scheduledTime: float | dt.datetime,
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Settled[None]:
        """Have ``alarm()`` called at that time; replaces an alarm set before.

        At least once and never early, whatever becomes of the process meanwhile. If ``alarm()``
        raises, it is called again after 2, 4, 8, 16, 32 and 64 seconds.

        The time is in milliseconds since 1970, or a datetime (one without a zone is local time).
        What is past is due now. The option is ``allowUnconfirmed``.

        Raises:
            TypeError: no time, or one before 1970 or after 2189; or the class has no ``alarm()``.

        Source: https://developers.cloudflare.com/durable-objects/api/alarms/#setalarm
        """
        due_ms = read_time(scheduledTime)
        self._host.set_alarm(due_ms, unconfirmed=is_unconfirmed(options, keywords))
        return DONE

    def deleteAlarm(
        self, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Settled[None]:
        """Drop the alarm, if there is one. Does not stop a handler that is running.

        Source: https://developers.cloudflare.com/durable-objects/api/alarms/#deletealarm
        """
        self._host.set_alarm(None, unconfirmed=is_unconfirmed(options, keywords))
        return DONE

    get_alarm = getAlarm
    set_alarm = setAlarm
    delete_alarm = deleteAlarm


def is_unconfirmed(options: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> bool:
    """Whether the options of a write say ``allowUnconfirmed``."""
    if options is None and not keywords:
        return False
    given = {**(options or {}), **keywords}
    return bool(given.get("allowUnconfirmed") or given.get("allow_unconfirmed"))


def read_time(value: object) -> int:
    """Return an alarm's time in whole milliseconds since 1970.

    Raises:
        TypeError: it is no time, or out of range.
    """
    if isinstance(value, dt.datetime):
        value = value.timestamp() * 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(_NO_DATE)
    if not math.isfinite(value):
        raise TypeError("The value cannot be converted because it is not a valid Date.")
    if value <= 0:
        raise TypeError("setAlarm() cannot be called with an alarm time <= 0")
    if value >= MAX_ALARM_MS:
        raise TypeError("This API doesn't support dates after 2189.")
    return int(value)
