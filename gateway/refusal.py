"""An answer that the gateway gives by itself, without asking the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not passed on.

    Attributes:
        status: 400..599.
        text: the body, one line that names the fault.
        headers: in addition to those of every answer.
        close: end the connection afterwards.
        upgrade: the answer offers an upgrade, so ``Connection`` says ``Upgrade``, too.
    """

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = True
    upgrade: bool = False


RETRY: Final = (("Retry-After", "1"),)
"""Header of a refusal that may be over in a second."""


def unavailable(text: str) -> Refusal:
    """503: no shard can take this now, but one may soon."""
    return Refusal(503, text, RETRY, close=False)
