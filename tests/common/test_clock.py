from __future__ import annotations

import asyncio
import time

from common.clock import Clock, SystemClock


async def test_monotonic_time_is_that_of_the_event_loop() -> None:
    clock: Clock = SystemClock()
    before = asyncio.get_running_loop().time()
    assert before <= clock.monotonic_s() <= asyncio.get_running_loop().time()


def test_wall_time_is_unix_time() -> None:
    before = time.time()
    assert before <= SystemClock().wall_s() <= time.time()
