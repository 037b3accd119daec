"""Object ids: how a name becomes an address, and how an id of another namespace is told apart.

An id is 32 bytes: 16 that identify the object and 16 that authenticate them for one namespace::

    key = SHA-256(unique_key)
    a   = HMAC-SHA-256(key, name)[:16]        or 16 random bytes for an id without a name
    mac = HMAC-SHA-256(key, a)[:16]
    id  = a + mac                             written as 64 lower-case hex digits

The derivation is byte for byte that of Cloudflare's open-source runtime, so ids stored elsewhere
stay valid (https://developers.cloudflare.com/durable-objects/api/id/).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final, NewType, final

Partition = NewType("Partition", int)
"""One of 1,024 fixed buckets of object ids, 0..1023: the unit of ownership and of hand-off."""

PARTITION_COUNT: Final = 1024
RAW_ID_BYTES: Final = 32

_HALF: Final = RAW_ID_BYTES // 2
_HEX_ID: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SHA256_BLOCK_BYTES: Final = 64
_MISSING: Final = object()

_WRONG_NAMESPACE: Final = "Durable Object ID is not valid for this namespace."
_MALFORMED: Final = "Invalid Durable Object ID: must be 64 hex digits"
_NAME_MISSING: Final = (
    "Failed to execute 'idFromName' on 'DurableObjectNamespace': "
    "parameter 1 is not of type 'string'."
)


@final
@dataclass(frozen=True, slots=True, eq=False)
class ObjectId:
    """The address of one object. Immutable; equal and hashed by ``raw`` alone.

    Attributes:
        raw: the 32 bytes.
        name: the name it was derived from; ``None`` if random or read from hex.
    """

    raw: bytes
    name: str | None = field(default=None)

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, ObjectId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __str__(self) -> str:
        return self.raw.hex()

    @property
    def partition(self) -> Partition:
        """The partition this id falls into."""
        return partition_of(self.raw)


def partition_of(raw: bytes) -> Partition:
    """Return the partition of an id: its first two bytes, big-endian, modulo 1,024.

    Those bytes are HMAC output or random, hence uniform: no further hash is needed to spread
    objects evenly.

    Args:
        raw: the bytes of an id, at least 2.

    Raises:
        IndexError: ``raw`` is shorter than 2 bytes.
    """
    return Partition((raw[0] << 8 | raw[1]) & (PARTITION_COUNT - 1))


@final
class IdFactory:
    """Makes and checks the ids of one namespace.

    Args:
        unique_key: what distinguishes the namespace from all others, ``"<worker name>-<class>"``
            (see ``common.migrations``). Any string; it is hashed, never shown.
    """

    __slots__ = ("_inner", "_outer", "unique_key")

    def __init__(self, unique_key: str) -> None:
        self.unique_key = unique_key
        key = hashlib.sha256(_utf8(unique_key)).digest().ljust(_SHA256_BLOCK_BYTES, b"\0")
        # RFC 2104 with the two keyed blocks hashed once: copying a hash state costs 0.5 µs for each
        # HMAC where hmac.digest costs 1.3 µs, and every request to an object by name pays for two.
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def from_name(self, name: object = _MISSING) -> ObjectId:
        """Return the id that belongs to ``name``: the same one in every process, for ever.

        Args:
            name: a string of any length and script, ``""`` and NUL included. Anything else is made
                a string the way JavaScript does (``5`` is ``"5"``, ``None`` is ``"null"``, ``True``
                is ``"true"``). A lone surrogate counts as U+FFFD, as in JavaScript.

        Raises:
            TypeError: called without an argument.
        """
        if type(name) is not str:
            name = _stringify(name)
        try:
            encoded = name.encode()
        except UnicodeEncodeError:
            encoded = _utf8(name)
            name = encoded.decode()
        head = self._authenticate(encoded)
        return ObjectId(head + self._authenticate(head), name)

    def from_string(self, text: str) -> ObjectId:
        """Return the id written as ``text``. It carries no name, even if it was once made from one.

        Args:
            text: 64 hex digits of either case.

        Raises:
            TypeError: ``text`` is not 64 hex digits, or is an id of another namespace.
        """
        if _HEX_ID.fullmatch(text) is None:
            raise TypeError(_MALFORMED)
        return self.from_raw(bytes.fromhex(text))

    def from_raw(self, raw: bytes, name: str | None = None) -> ObjectId:
        """Return the id with these bytes, as they arrive from another process.

        Args:
            raw: 32 bytes.
            name: the name that came with them; taken on trust.

        Raises:
            TypeError: ``raw`` is not 32 bytes long, or is an id of another namespace.
        """
        if len(raw) != RAW_ID_BYTES:
            raise TypeError(_MALFORMED)
        if not hmac.compare_digest(self._authenticate(raw[:_HALF]), raw[_HALF:]):
            raise TypeError(_WRONG_NAMESPACE)
        return ObjectId(bytes(raw), name)

    def unique(self) -> ObjectId:
        """Return a new id from the system's random source, without a name."""
        head = secrets.token_bytes(_HALF)
        return ObjectId(head + self._authenticate(head))

    def check(self, object_id: ObjectId) -> None:
        """Refuse an id that another namespace made.

        Raises:
            TypeError: its MAC is not this namespace's.
        """
        self.from_raw(object_id.raw)

    def _authenticate(self, message: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()[:_HALF]


def _utf8(text: str) -> bytes:
    # Through UTF-16, so that surrogate pairs join and lone surrogates become U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _stringify(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case _ if value is _MISSING:
            raise TypeError(_NAME_MISSING)
        case _:
            return str(value)
