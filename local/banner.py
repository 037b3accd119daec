"""What `limpet up` says once, when everything serves."""

from __future__ import annotations

import os

from common.settings import Settings
from common.wrangler import Project


def banner(settings: Settings, project: Project) -> str:
    """Return the few lines that a person needs: where, what, how many, and where the data are."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    rows = {
        "url": f"http://{host}:{settings.port}",
        "app": f"{project.name} ({project.root})",
        "gateways": str(settings.gateways),
        "shards": str(settings.shards),
        "data": str(settings.data_dir),
        "pid": f"{os.getpid()} (Ctrl-C stops the cluster)",
    }
    lines = [f"  {name:<9} {value}" for name, value in rows.items()]
    return "\n".join(["", "Limpet is ready", *lines, ""])
