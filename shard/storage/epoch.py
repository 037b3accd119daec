"""Which boot of the machine this is: generations of partitions rise within one only."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_epoch() -> str:
    """Return a text that is the same in all processes of this boot, and in those of no other.

    Where the system does not tell, it is one that nobody has: then a file's generation counts for
    nothing, and the locks of :mod:`common.ownership` are what is left.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(16)
