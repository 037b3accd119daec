"""Unmasking of client payloads (RFC 6455 §5.3), by aiohttp's compiled function.

This is the only module that knows where aiohttp keeps it. The function is not part of aiohttp's
public API: without it :func:`apply_mask` still works, a hundred times slower, and
``tests/gateway/test_masking.py`` fails loudly.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final


def apply_mask_slowly(key: bytes, data: bytearray) -> None:
    """XOR *data* in place with the 4 bytes of *key*, repeated. For where nothing is compiled."""
    size = len(data)
    repeated = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")
    data[:] = mixed.to_bytes(size, "little")


def _find() -> Callable[[bytes, bytearray], None]:
    try:
        module = importlib.import_module("aiohttp._websocket.mask")
        found: Callable[[bytes, bytearray], None] = module._websocket_mask_cython
    except (ImportError, AttributeError):
        return apply_mask_slowly
    return found


apply_mask: Final = _find()

IS_COMPILED: Final = apply_mask is not apply_mask_slowly
"""Whether the fast function is in use."""
