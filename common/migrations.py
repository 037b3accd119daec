"""Which key each Durable Object class stores its objects under, over all its renames and deletions.

The ids and files of a namespace hang on its *unique key*. It is ``"<worker>-<class>"`` with the
name the class had when it was created, so that a rename keeps every object. A class that is deleted
and made again under the same name gets ``"<worker>-<class>~1"``, so that no old object comes back
(https://developers.cloudflare.com/durable-objects/reference/durable-objects-migrations/).

The history is told in one of two ways: ``migrations``, a list of steps that is replayed in order,
or ``exports``, one entry per class that states where it stands now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from common.config_file import Node

_DURABLE_OBJECT: Final = "durable-object"


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the objects of one class live.

    Attributes:
        unique_key: what their ids are derived from and their files are kept under.
        sqlite: whether the class has the SQL and the synchronous key-value storage.
    """

    unique_key: str
    sqlite: bool


class ClassHistory:
    """What the configuration says about the classes of one worker, step by step.

    Args:
        worker: the worker's name.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._live: dict[str, Identity] = {}
        self._gone: dict[str, str] = {}
        self._used_keys: set[str] = set()

    def identity(self, class_name: str) -> Identity:
        """Return where a bound class lives; a class without any history gets a first key."""
        if class_name not in self._live:
            self._create(class_name, sqlite=False)
        return self._live[class_name]

    def gone(self, class_name: str) -> str | None:
        """Return what became of a class that ``exports`` says is no more, else ``None``."""
        return self._gone.get(class_name)

    def replay(self, migrations: Node) -> None:
        """Apply the steps of ``migrations``.

        Raises:
            ConfigError: a step is malformed, repeats a tag, or contradicts the steps before it.
        """
        tags: set[str] = set()
        for step in migrations.elements():
            tag = step.get("tag")
            if tag.text() in tags:
                raise tag.error(
                    f"migration tag {tag.value!r} is used twice", "Give each step its own tag."
                )
            tags.add(tag.text())
            self._apply(step)

    def _apply(self, step: Node) -> None:
        # Renames come first: a step may free a name and take it for a new class at once.
        for rename in step.get("renamed_classes").elements():
            self._rename(rename.get("from"), rename.get("to"))
        for transfer in step.get("transferred_classes").elements():
            source, to = transfer.get("from_script").text(), transfer.get("to")
            self._arrive(to, f"{source}-{transfer.get('from').text()}")
        for deleted in step.get("deleted_classes").elements():
            self._delete(deleted.text())
        for key, sqlite in (("new_classes", False), ("new_sqlite_classes", True)):
            for created in step.get(key).elements():
                self._refuse_second(created)
                self._create(created.text(), sqlite=sqlite)

    def declare(self, exports: Node) -> None:
        """Apply ``exports``. Entries that are not Durable Objects are none of our business.

        Raises:
            ConfigError: an entry is malformed, or its rename leads nowhere or where another goes.
        """
        entries = {
            name: entry
            for name, entry in exports.items()
            if entry.get("type").value == _DURABLE_OBJECT
        }
        renames: dict[str, tuple[str, Node]] = {}
        for name, entry in entries.items():
            state = entry.get("state")
            match "created" if state.missing else state.text():
                case "deleted":
                    self._gone[name] = "deleted"
                case "renamed":
                    to = entry.get("renamed_to")
                    if to.text() in renames:
                        raise to.error(f"two classes are renamed to {to.text()}")
                    renames[to.text()] = (name, entry)
                    self._gone[name] = f"renamed to {to.text()}"
                case "transferred":
                    worker = entry.get("transferred_to").text()
                    self._gone[name] = f"transferred to worker {worker}"
                case _:
                    pass  # live: "created", or about to receive a transfer
        for name, entry in entries.items():
            if name not in self._gone:
                source = entry.get("transfer_from")
                owner = self._worker if source.missing else source.text()
                key = f"{owner}-{_first_name(name, renames)}"
                self._live[name] = Identity(key, sqlite=entry.get("storage").value == "sqlite")
                self._used_keys.add(key)
        for target, (name, entry) in renames.items():
            if target not in entries:
                raise entry.get("renamed_to").error(
                    f"class {name} is renamed to {target}, which exports does not declare",
                    f'Add "{target}": {{"type": "durable-object"}} to exports, with its storage.',
                )

    def _create(self, class_name: str, *, sqlite: bool) -> None:
        base = f"{self._worker}-{class_name}"
        key, generation = base, 0
        while key in self._used_keys:
            generation += 1
            key = f"{base}~{generation}"
        self._used_keys.add(key)
        self._live[class_name] = Identity(key, sqlite)

    def _delete(self, class_name: str) -> None:
        # A class unknown to the history had the key of a class without one: that is spent now.
        self._used_keys.add(f"{self._worker}-{class_name}")
        self._live.pop(class_name, None)

    def _rename(self, old: Node, new: Node) -> None:
        if old.text() not in self._live:
            raise old.error(
                f"no earlier migration creates class {old.text()}, so it cannot be renamed",
                f"Add {old.text()} to new_sqlite_classes of an earlier migration, or correct it.",
            )
        self._refuse_second(new)
        self._live[new.text()] = self._live.pop(old.text())

    def _arrive(self, new: Node, key: str) -> None:
        self._refuse_second(new)
        self._live[new.text()] = Identity(key, sqlite=True)

    def _refuse_second(self, class_name: Node) -> None:
        if class_name.text() in self._live:
            raise class_name.error(
                f"class {class_name.text()} exists already at this migration",
                "Delete or rename it in an earlier migration, or drop this entry.",
            )


def _first_name(name: str, renames: dict[str, tuple[str, Node]]) -> str:
    """Follow renames back to the name the class was created with."""
    # This ends: a class is renamed to one name only, so no circle leads to a live class.
    while name in renames:
        name, _ = renames[name]
    return name
