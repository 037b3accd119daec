"""What other commands ask of a shard about its files: to leave them as they are for a while.

``POST /still`` with ``{"partition": 17, "seconds": 30}`` answers ``{"token": …, "data_dir": …}``
once the files of that partition's databases are not written to (see
:mod:`shard.storage.standstill`). ``POST /still-renew`` and ``POST /still-end`` take the token and
answer ``{"held": true}`` if that has been so all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from common.admin import AdminCommand
from common.errors import ConfigError, Unavailable
from common.ids import Partition
from shard.storage.engine import StorageEngine

RESTORING: Final = "restoring.json"
"""In ``DATA_DIR`` while ``limpet restore`` exchanges its files: they are no whole before."""


def commands(engine: Callable[[], StorageEngine | None]) -> Mapping[str, AdminCommand]:
    """Return the commands by name.

    Args:
        engine: the shard's storage, once it has one.
    """

    def ready() -> StorageEngine:
        found = engine()
        if found is None:
            raise Unavailable("the shard has not started")
        return found

    async def begin(asked: Mapping[str, Any]) -> Mapping[str, object]:
        partition = Partition(int(asked["partition"]))
        token = await ready().begin_standstill(partition, float(asked["seconds"]))
        return {"token": token, "data_dir": str(ready().settings.data_dir.resolve())}

    async def renew(asked: Mapping[str, Any]) -> Mapping[str, object]:
        return {"held": ready().renew_standstill(str(asked["token"]), float(asked["seconds"]))}

    async def end(asked: Mapping[str, Any]) -> Mapping[str, object]:
        return {"held": ready().end_standstill(str(asked["token"]))}

    return {"still": begin, "still-renew": renew, "still-end": end}


def refuse_half_restored(data_dir: Path) -> None:
    """Raise ConfigError if a restoration of *data_dir* was interrupted."""
    if (data_dir / RESTORING).exists():
        raise ConfigError(
            "`limpet restore` was interrupted here",
            where=f"DATA_DIR={data_dir}",
            remedy="Run the same `limpet restore` again: it goes on where it was.",
        )
