"""Clusters of real processes that scenarios share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningCluster, limpet_up


class ProcessPool:
    """One running cluster for each app and settings: starting one takes seconds."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, RunningCluster] = {}

    def cluster(self, app: Path, settings: dict[str, Any]) -> RunningCluster:
        """Return one that runs; it is stopped at the end of the session."""
        key = f"{app} {sorted(settings.items())}"
        if key not in self._running:
            self._running[key] = self._stack.enter_context(limpet_up(app, **settings))
        return self._running[key]


@pytest.fixture(scope="package")
def process_pool() -> Iterator[ProcessPool]:
    with ExitStack() as stack:
        yield ProcessPool(stack)
