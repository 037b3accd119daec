"""What objects have stored over the renames and deletions of their class."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from local.cluster import Cluster
from shard.storage.listing import objects

APP = """
from workers import DurableObject, Response, WorkerEntrypoint

class {name}(DurableObject):
    def fetch(self, request):
        if request.url.endswith("put"):
            self.ctx.storage.kv.put("who", "{name}")
            self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (a)")
            self.ctx.storage.sql.exec("INSERT INTO t VALUES ('{name}')")
        who = self.ctx.storage.kv.get("who")
        return Response.json([who, self.ctx.id.name, str(self.ctx.id)])

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.ROOMS.getByName("one").fetch(request)
"""
CREATED = {"tag": "v1", "new_sqlite_classes": ["Room"]}
RENAMED = {"tag": "v2", "renamed_classes": [{"from": "Room", "to": "Hall"}]}
DELETED = {"tag": "v3", "deleted_classes": ["Hall"]}
AGAIN = {"tag": "v4", "new_sqlite_classes": ["Hall"]}


def run(folder: Path, class_name: str, migrations: list[Any], path: str) -> Any:
    """What the app answers with its class at that step of its history."""
    app = folder / f"app{len(migrations)}"
    app.mkdir(exist_ok=True)
    bindings = [{"name": "ROOMS", "class_name": class_name}]
    project = {
        "name": "worker",
        "main": "entry.py",
        "durable_objects": {"bindings": bindings},
        "migrations": migrations,
    }
    (app / "wrangler.jsonc").write_text(json.dumps(project))
    (app / "entry.py").write_text(APP.replace("{name}", class_name))

    async def ask() -> Any:
        settings = {"data_dir": folder / "data"}
        async with (
            Cluster(app, settings=settings) as cluster,
            cluster.client.get(f"/{path}") as answer,
        ):
            return await answer.json()

    return asyncio.run(ask())


def test_a_renamed_class_keeps_its_objects(tmp_path: Path) -> None:
    found = run(tmp_path, "Room", [CREATED], "put")
    assert run(tmp_path, "Hall", [CREATED, RENAMED], "get") == found
    assert found[:2] == ["Room", "one"]


def test_a_deleted_class_leaves_nothing_to_one_of_the_same_name(tmp_path: Path) -> None:
    run(tmp_path, "Room", [CREATED], "put")
    run(tmp_path, "Hall", [CREATED, RENAMED], "put")
    history = [CREATED, RENAMED, DELETED, AGAIN]
    assert run(tmp_path, "Hall", history, "get")[0] is None
    assert run(tmp_path, "Hall", history, "put")[0] == "Hall"
    assert run(tmp_path, "Hall", history, "get")[0] == "Hall"
    # The files of the deleted class stay until somebody removes them.
    listed = [(each.unique_key, each.name) for each in objects(tmp_path / "data")]
    assert listed == [("worker-Hall~1", "one"), ("worker-Room", "one")]
