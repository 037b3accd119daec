"""The format of serialized values: the codes of msgpack's extension types.

They are on disk and on the wire: never change the meaning of one.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, Protocol

BIG_INT: Final = 1
SET: Final = 2
FROZEN_SET: Final = 3
DATETIME: Final = 4
DECIMAL: Final = 5
UUID: Final = 6
ERROR: Final = 7
HANDLE: Final = 8
HEADERS: Final = 9
BLOB: Final = 10
FILE: Final = 11
REQUEST: Final = 12
RESPONSE: Final = 13

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""A datetime is written as microseconds since."""


class HandleTable(Protocol):
    """Carries what is passed by reference; made by the host for each call."""

    def put(self, value: Any) -> Any:
        """Return serializable data that stands for ``value`` on the way.

        Args:
            value: a function, :class:`~workers.rpc.RpcTarget`, :class:`~workers.rpc.RpcStub`,
                :class:`~workers.namespace.DurableObjectStub` or
                :class:`~workers.streams.ReadableStream`.

        Raises:
            DataCloneError: this one cannot be passed.
        """

    def take(self, data: Any) -> Any:
        """Return the stub or stream for what :meth:`put` returned at the other side."""
