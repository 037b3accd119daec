"""`limpet objects`: what is stored in DATA_DIR."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

from common.errors import ConfigError
from common.settings import Settings
from common.wrangler import find_project
from shard.storage.listing import Listed, objects

_UNITS = ("B", "KiB", "MiB", "GiB")


def lines(settings: Settings, binding: str | None, *, as_json: bool) -> Iterator[str]:
    """A line for each object.

    Args:
        settings: where the data is, and the app whose bindings give namespaces their names.
        binding: only the objects of this one.
        as_json: each line is a JSON object.

    Raises:
        ConfigError: the app has no such binding, or there is no DATA_DIR.
    """
    bindings = {each.unique_key: each.name for each in find_project(settings.app).bindings}
    wanted = None
    if binding is not None:
        wanted = frozenset(key for key, name in bindings.items() if name == binding)
        if not wanted:
            known = ", ".join(sorted(bindings.values())) or "none"
            raise ConfigError(
                f"the app has no binding {binding!r}", remedy=f"Its bindings are: {known}."
            )
    if not settings.data_dir.is_dir():
        raise ConfigError(
            "there is no such folder",
            where=str(settings.data_dir),
            remedy="Set DATA_DIR, or --data-dir, to that of the cluster.",
        )
    for each in objects(settings.data_dir, wanted):
        namespace = bindings.get(each.unique_key, each.unique_key)
        yield _json(each, namespace) if as_json else _text(each, namespace)


def _json(each: Listed, namespace: str) -> str:
    return json.dumps({
        "namespace": namespace, "id": each.object_id, "name": each.name,
        "alarm_ms": each.alarm_ms, "size_bytes": each.size_bytes, "file": each.path,
    })  # fmt: skip


def _text(each: Listed, namespace: str) -> str:
    # A name may hold anything, a line's end too.
    name = "-" if each.name is None else json.dumps(each.name, ensure_ascii=False)
    alarm = ""
    if each.alarm_ms is not None:
        due = dt.datetime.fromtimestamp(each.alarm_ms / 1000, dt.UTC)
        alarm = f"  alarm {due:%Y-%m-%dT%H:%M:%SZ}"
    return f"{namespace}  {each.object_id}  {_size(each.size_bytes):>9}  {name}{alarm}"


def _size(count: int) -> str:
    size = float(count)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}"
        size /= 1024
    raise AssertionError
