"""Why an object is told that a client is gone, when the client has not said so (code 1006)."""

from __future__ import annotations

from typing import Final

LOST_TEXT: Final = "WebSocket disconnected without sending Close frame."
IN_DOUBT_TEXT: Final = "The Durable Object was restarted while it had a message of this client."
TOO_LONG_TEXT: Final = "The Durable Object was away for too long."
OVERLOADED_TEXT: Final = "The Durable Object is overloaded."

NO_FAULT: Final = frozenset({LOST_TEXT, IN_DOUBT_TEXT, TOO_LONG_TEXT, OVERLOADED_TEXT})
"""Every other text names what the client has done wrong."""
