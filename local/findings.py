"""What `limpet check` finds, as data: it is made in another process than it is shown in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "error"]

_MARKS: dict[Level, str] = {"ok": "✓", "warning": "!", "error": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict.

    Attributes:
        level: "error" means that the app cannot be served as it is.
        message: what was found, a clause.
        where: `file:line`, if it is at a place.
        remedy: what to do, a sentence in the imperative.
    """

    level: Level
    message: str
    where: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n  -> {self.remedy}" if self.remedy else ""
        return f"{_MARKS[self.level]} {place}{self.message}{remedy}"
