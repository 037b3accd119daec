"""Attachments: what a hibernatable WebSocket keeps while its object sleeps, as bytes."""

from __future__ import annotations

from typing import Any, Final

from workers.exceptions import JsException
from workers.serialization import deserialize, serialize
from workers.websocket import WebSocket

MAX_ATTACHMENT_BYTES: Final = 16_384
"""https://developers.cloudflare.com/durable-objects/api/websockets/#serializeattachment"""


class Attachments:
    """See :class:`workers.websocket.AttachmentCodec`."""

    def write(self, value: Any) -> bytes | None:
        """Return *value* as bytes, ``None`` for ``None``.

        Raises:
            DataCloneError: it cannot be serialized.
            JsException: it takes more than :data:`MAX_ATTACHMENT_BYTES`.
        """
        if value is None:
            return None
        data = serialize(value)
        if len(data) > MAX_ATTACHMENT_BYTES:
            raise JsException(
                f"A WebSocket 'attachment' cannot be larger than {MAX_ATTACHMENT_BYTES} bytes."
                f" 'attachment' was {len(data)} bytes.",
                "Error",
            )
        return data

    def read(self, data: bytes | None) -> Any:
        """Return a fresh copy of what was written."""
        return None if data is None else deserialize(data)


WebSocket.attachments = Attachments()
