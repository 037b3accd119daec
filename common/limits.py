"""The limits that the operating system sets to a process."""

from __future__ import annotations

import resource
from typing import Final

_MOST: Final = 1 << 20
"""What is asked for where the hard limit is "unlimited": the kernel refuses that word itself."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one.

    The soft limit is often 1,024 for the sake of programs that use select(2); every connection,
    partition and object file takes one.

    Returns:
        The limit now in force. Where the system refuses to raise it, the one there was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= target:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):
        return soft
    return target
