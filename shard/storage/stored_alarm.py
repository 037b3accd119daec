"""One activation's view of its object's alarm.

The alarm lies in the object's file. While its handler runs it is still there, so that a process
that dies makes it ring again, but the object's code does not see it. What the handler's last step
writes and the alarm's removal are one commit::

            begin()                     end(), the last step's commit
    stored ─────────▶ stored, hidden ───────────────────────────────▶ gone
       ▲                 │  │ setAlarm, deleteAlarm
       │ the run failed  │  └──────────▶ what was set (or nothing), for all to see
       └─────────────────┘
"""

from __future__ import annotations

from shard.storage import meta
from shard.storage.database import Database


class StoredAlarm:
    """See the module.

    Attributes:
        changed: the open run has written it.
        hidden: its handler runs and has not set it anew: code of the object sees none.
        forsaken: if the object is reset now, the alarm goes with it.
    """

    __slots__ = ("_hidden_in_file", "_last", "_savepoints", "changed", "forsaken", "hidden")

    def __init__(self) -> None:
        self.changed = False
        self.hidden = False
        self.forsaken = False
        self._last = False
        self._hidden_in_file = False
        self._savepoints: list[tuple[bool, bool]] = []

    def get(self, database: Database) -> int | None:
        """What the object's code sees."""
        return None if self.hidden else meta.alarm(database)

    def set(self, database: Database, due_ms: int | None) -> None:
        """The object's code sets it, or deletes it. A transaction is open."""
        meta.set_alarm(database, due_ms)
        self.changed = True
        self.hidden = False

    # --- its handler ---------------------------------------------------------------------------

    def begin(self, *, last: bool) -> None:
        """Its handler begins; if this is its *last* run, a reset by the app ends the alarm."""
        self.hidden = self._hidden_in_file = True
        self.forsaken = False
        self._last = last

    def end(self) -> None:
        """Its handler has ended; what it has left of the alarm is seen again."""
        self.hidden = self._hidden_in_file = False
        self._savepoints = [(changed, False) for changed, _ in self._savepoints]

    def goes_with(self, *, blameless: bool) -> bool:
        """Whether the activation's end is the end of the alarm: nobody is to try again."""
        return self._hidden_in_file and (self.forsaken or (self._last and not blameless))

    # --- transactions --------------------------------------------------------------------------

    def commits(self) -> bool:
        """The run is committed: whether the alarm in the file may be another one now."""
        changed, self.changed = self.changed, False
        self._hidden_in_file = self.hidden
        return changed and not self.hidden

    def open_savepoint(self) -> None:
        """Remember how it is."""
        self._savepoints.append((self.changed, self.hidden))

    def close_savepoint(self) -> None:
        """Forget how it was when the innermost savepoint was opened."""
        self._savepoints.pop()

    def undo(self, depth: int) -> None:
        """What was written since savepoint *depth* (from 1) is undone."""
        self.changed, self.hidden = self._savepoints[depth - 1]
