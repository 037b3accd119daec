"""Which event loops the tests of this folder run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

ON_THE_NETWORK = ("test_outgoing_sockets", "test_outside")
"""Real sockets, whose transports are not the same in both loops: shards run on uvloop."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    if item.path.stem in ON_THE_NETWORK:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
