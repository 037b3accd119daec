"""How the C heap behaves under messages of some tens of kilobytes.

glibc gives the top of the heap back to the kernel as soon as 128 KiB of it are free, and asks for it
again with the next message: for 64 KiB messages that is one ``brk`` and sixteen page faults each,
half of all the time a gateway spends on them (50 µs against 25 µs). So a bounded amount is kept.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 32 << 20
"""Free memory at the top of the heap that is kept."""
GROWTH_BYTES: Final = 1 << 20
"""The heap grows in steps of this size."""
OWN_MAPPING_BYTES: Final = 4 << 20
"""Blocks from this size on are mapped by themselves, and given back when they are freed."""


def keep_freed_memory() -> bool:
    """Tell the allocator; whether it is one that can be told (glibc)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        [
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES),
            mallopt(_M_TOP_PAD, GROWTH_BYTES),
            mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES),
        ]
    )


def give_back_freed_memory() -> None:
    """Give back what is kept; takes milliseconds. For when many clients have left."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim(0)
