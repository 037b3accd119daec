"""When an alarm whose run has failed rings again.

A failure *counts* if it is the app's: its handler raised, took too long, or reset its own object.
After :data:`MAX_RETRIES` counted retries the alarm is given up. What the disk or the process is to
blame for does not count, and is tried without an end.
https://developers.cloudflare.com/durable-objects/api/alarms/#alarm
"""

from __future__ import annotations

from typing import Final

MAX_RETRIES: Final = 6
FIRST_DELAY_S: Final = 2.0
MAX_DELAY_S: Final = 1024.0
JITTER: Final = 0.25


def delay_s(failures: int, chance: float) -> float:
    """How long to wait after a failed run: 2, 4, 8 … 1,024 seconds, and up to a quarter more.

    Args:
        failures: how many runs have failed, that one included; at least 1.
        chance: 0 up to 1.
    """
    doubled = FIRST_DELAY_S * (1 << min(failures - 1, 32))
    return min(doubled, MAX_DELAY_S) * (1 + JITTER * chance)


def is_last(retries: int) -> bool:
    """Whether a run after so many counted retries is the last one: its failure is final."""
    return retries >= MAX_RETRIES
