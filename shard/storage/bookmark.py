"""Bookmarks: names of the states that an object has been in.

``<log>-<frame>-<seconds>-<proof>``, 8, 8, 8 and 32 hexadecimal digits, as Cloudflare's are. The
first two say where the commit stands: in which of the object's write-ahead logs, counted from 1,
and at which frame of it. Both only rise, so later states have bookmarks that compare greater. The
proof tells the commit from any other that might stand at the same place: in another object, or in a
history that a power cut has ended.

https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#pitr-point-in-time-recovery-api
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from common.ids import ObjectId
from workers.exceptions import JsException

_FORM: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{32})")
_UNDO_SECONDS: Final = 0xFFFF_FFFF
PROOF_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Bookmark:
    """See the module.

    Attributes:
        log: number of the write-ahead log.
        frame: the last frame of the commit; 0 is the state at the beginning of the log.
        seconds: when the commit was made, since 1970; or the mark of an undo bookmark.
        proof: 16 bytes.
    """

    log: int
    frame: int
    seconds: int
    proof: bytes

    @property
    def is_undo(self) -> bool:
        """It means the state just before the restoration that :attr:`proof` names."""
        return self.seconds == _UNDO_SECONDS

    def undo(self, token: bytes) -> Bookmark:
        """Return a bookmark of the state just before a restoration asked for at this one."""
        return Bookmark(self.log, self.frame, _UNDO_SECONDS, token)

    def __str__(self) -> str:
        return f"{self.log:08x}-{self.frame:08x}-{self.seconds:08x}-{self.proof.hex()}"


def read_bookmark(text: object) -> Bookmark:
    """Parse a bookmark.

    Raises:
        TypeError: it is no text.
        JsException: it is no bookmark.
    """
    if not isinstance(text, str):
        raise TypeError(f"a bookmark is a str, not {type(text).__name__}")
    found = _FORM.fullmatch(text)
    if found is None:
        raise JsException(
            f"invalid bookmark {text[:80]!r}: use what getCurrentBookmark(), getBookmarkForTime() "
            "or onNextSessionRestoreBookmark() have returned",
            "Error",
        )
    log, frame, seconds, proof = found.groups()
    return Bookmark(int(log, 16), int(frame, 16), int(seconds, 16), bytes.fromhex(proof))


def proof_of_object(object_id: ObjectId) -> bytes:
    """Return the proof of a state that no commit of its log has made."""
    return hashlib.sha256(bytes.fromhex(str(object_id))).digest()[:PROOF_BYTES]
