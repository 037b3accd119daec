"""``ctx.storage.kv``: the key-value calls without ``await``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from workers.exceptions import JsException
from workers.key_range import KeyRange, read_key, read_range

if TYPE_CHECKING:
    from workers.host import KeyValueHost

_MISSING: Final = object()
_INVALIDATED: Final = (
    "kv.list() iterator was invalidated because a new call to kv.list() was started. Only one "
    "kv.list() iterator can exist at a time."
)


class SyncKvStorage:
    """Synchronous key-value calls, on the data of ``ctx.storage.get`` and the others.

    Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#synchronous-kv-api
    """

    __slots__ = ("_host", "_listing")

    def __init__(self, host: KeyValueHost) -> None:
        self._host = host
        self._listing: KeyIterator | None = None

    def get(self, key: str) -> Any:
        """Return the value of ``key``, or ``None``.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#get
        """
        return self._host.get(key if type(key) is str else read_key(key))

    def put(self, key: str, value: Any = _MISSING) -> None:
        """Store ``value`` under ``key``.

        Raises:
            TypeError: no value is given.
            DataCloneError: the value cannot be stored.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#put
        """
        if value is _MISSING:
            raise TypeError(
                "Failed to execute 'put' on 'SyncKvStorage': parameter 2 is not of type 'Value'."
            )
        self._host.put([(read_key(key), value)], unconfirmed=False)

    def delete(self, key: str) -> bool:
        """Delete ``key``; whether it existed.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#delete
        """
        return self._host.delete([read_key(key)], unconfirmed=False) > 0

    def list(self, options: Mapping[str, Any] | None = None, **keywords: Any) -> KeyIterator:
        """Iterate over ``[key, value]`` pairs, in the order of the keys.

        It reads as it goes, so it sees what is written ahead of it. A second call ends the iterator
        of the first. The options are those of ``ctx.storage.list``.

        Raises:
            TypeError: as ``ctx.storage.list``.

        Source: https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#list
        """
        if self._listing is not None:
            self._listing.invalidate()
        self._listing = KeyIterator(self._host, read_range(options, keywords))
        return self._listing

    def __repr__(self) -> str:
        return "<SyncKvStorage>"


class KeyIterator(Iterator[list[Any]]):
    """What ``kv.list()`` returns."""

    __slots__ = ("_host", "_left", "_range", "_valid")

    def __init__(self, host: KeyValueHost, key_range: KeyRange) -> None:
        self._host = host
        self._range: KeyRange | None = key_range
        self._left = key_range.limit
        self._valid = True

    def invalidate(self) -> None:
        """Another one has been started: this one may not go on."""
        self._valid = False

    def __iter__(self) -> KeyIterator:
        return self

    def __next__(self) -> list[Any]:
        if not self._valid:
            raise JsException(_INVALIDATED, "Error")
        here = self._range
        found = None if here is None or self._left == 0 else self._host.first(here)
        if here is None or found is None:
            self._range = None
            raise StopIteration
        key, value = found
        if self._left is not None:
            self._left -= 1
        if here.reverse:
            self._range = KeyRange(here.low, here.low_excluded, key, True)
        else:
            self._range = KeyRange(key, True, here.high)
        return [key, value]
