"""Virtual time: nothing waits, everything happens in the order of its time, nothing hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from local.virtual_time import (
    Deadlock,
    Leftovers,
    TimeLimitExceeded,
    VirtualTimeLoop,
    on_virtual_time,
    run,
)


def the_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def test_a_day_of_sleep_takes_no_time() -> None:
    async def main() -> float:
        began = the_loop().time()
        await asyncio.sleep(86_000)
        return the_loop().time() - began

    began = time.monotonic()
    assert run(main()) == 86_000
    assert time.monotonic() - began < 5


@on_virtual_time
async def test_timers_run_in_the_order_of_their_time_never_early() -> None:
    loop, ran = the_loop(), []

    async def sleeper(duration_s: float) -> None:
        due = loop.time() + duration_s
        await asyncio.sleep(duration_s)
        assert due <= loop.time() <= due + 1e-6
        ran.append(duration_s)

    durations = [3.0, 0.1, 1e-7, 3600.1, 0.3, 7.7, 86_000 / 7]
    await asyncio.gather(*map(sleeper, durations))
    assert ran == sorted(durations)


@on_virtual_time
async def test_the_clock_stands_still_while_something_can_run() -> None:
    began = the_loop().time()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert the_loop().time() == began


@on_virtual_time
async def test_a_timeout_strikes_at_its_time() -> None:
    began = the_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await asyncio.sleep(31)
    assert the_loop().time() - began == pytest.approx(30)


def test_a_deadlock_is_an_error_that_names_the_tasks_and_where_they_wait() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stuck(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one: .*stuck.*test_virtual_time\.py"):
        run(main())


def test_a_thread_that_never_comes_back_is_a_deadlock_too() -> None:
    async def main() -> None:
        loop = the_loop()
        with loop.hold():
            await asyncio.sleep(1)

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience_s=0.01)) as runner,
        pytest.raises(Deadlock, match=r"nothing came from outside within 0\.01 s"),
    ):
        runner.run(main())


def test_an_endless_run_is_an_error_at_its_limit() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - it is to be endless
            await asyncio.sleep(1)

    with pytest.raises(TimeLimitExceeded, match="more than 60 virtual seconds"):
        run(main(), limit_s=60)


def test_tasks_and_timers_left_behind_are_an_error_if_asked_for() -> None:
    async def main() -> None:
        the_loop().call_later(5, print)
        the_loop().call_later(6, print).cancel()
        task = asyncio.create_task(asyncio.sleep(7), name="forgotten")
        the_loop().main_task = task  # type: ignore[attr-defined]  # keeps it alive
        await asyncio.sleep(0)

    with pytest.raises(Leftovers) as caught:
        run(main(), check_leftovers=True)
    assert "task forgotten" in str(caught.value)
    assert str(caught.value).count("timer in") == 2  # the sleep's, and the one of 5 s
    run(main())


def test_what_main_returns_and_raises_comes_out() -> None:
    async def returns() -> str:
        return "value"

    async def raises() -> None:
        raise LookupError

    assert run(returns()) == "value"
    with pytest.raises(LookupError):
        run(raises())


@on_virtual_time
async def test_time_does_not_pass_while_a_thread_works() -> None:
    go = threading.Event()

    def work() -> None:
        go.wait()
        time.sleep(0.01)  # the work

    the_loop().call_soon(go.set)
    began = the_loop().time()
    async with asyncio.timeout(1):  # virtual: would strike at once
        await asyncio.to_thread(work)
    assert the_loop().time() == began


@on_virtual_time
async def test_a_thread_of_ones_own_is_waited_for_within_hold() -> None:
    done = asyncio.Event()
    loop = the_loop()

    def work() -> None:
        time.sleep(0.01)  # the work
        loop.call_soon_threadsafe(done.set)

    began = loop.time()
    thread = threading.Thread(target=work)
    thread.start()
    with loop.hold():
        async with asyncio.timeout(1):
            await done.wait()
    assert loop.time() == began
    thread.join()


@on_virtual_time
async def test_sockets_within_the_process_work() -> None:
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=one)
    _, far = await asyncio.open_connection(sock=other)
    far.write(b"hello")
    async with asyncio.timeout(1):
        assert await reader.readexactly(5) == b"hello"
    for end in (writer, far):
        end.close()
        await end.wait_closed()


def test_a_test_function_keeps_its_name_and_arguments() -> None:
    seen = []

    @on_virtual_time
    async def some_test(value: int) -> None:
        """Its rule."""
        seen.append(value)

    some_test(value=3)
    assert seen == [3]
    assert some_test.__name__ == "some_test"
    assert some_test.__doc__ == "Its rule."
