"""An answer that the gateway gives by itself, without asking the app."""

from __future__ import annotations

from dataclasses import dataclass


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


def unavailable(text: str, retry_after_s: int = 1) -> Refusal:
    """503: no shard can take this now, but one may soon."""
    return Refusal(503, text, (("Retry-After", str(retry_after_s)),), close=False)
