"""Answers that are on their way: dropped, awaited once, awaited by several."""

from __future__ import annotations

import asyncio

import pytest

from local.virtual_time import on_virtual_time
from shard.promise import Promise
from tests.shard.kit import turns


@on_virtual_time
async def test_an_answer_that_is_there_costs_no_future() -> None:
    promise: Promise[int] = Promise()
    promise.settle(7, None)
    coroutine = promise.__await__()
    with pytest.raises(StopIteration) as ended:
        next(coroutine)
    assert ended.value.value == 7


@on_virtual_time
async def test_it_may_be_awaited_before_and_again_after() -> None:
    promise: Promise[int] = Promise()
    asyncio.get_running_loop().call_later(1, promise.settle, 7, None)
    assert not promise.done
    assert await promise == 7
    assert promise.done
    assert await promise == 7


@on_virtual_time
async def test_an_error_is_raised_at_each_await_and_at_none_if_it_is_dropped() -> None:
    promise: Promise[int] = Promise()
    promise.settle(None, KeyError("no"))
    for _ in range(2):
        with pytest.raises(KeyError):
            await promise
    dropped: Promise[int] = Promise()
    dropped.settle(None, KeyError("nobody looks"))


@on_virtual_time
async def test_only_the_first_answer_counts() -> None:
    promise: Promise[int] = Promise()
    promise.settle(1, None)
    promise.settle(2, None)
    promise.settle(None, KeyError())
    assert await promise == 1


@on_virtual_time
async def test_one_waiters_cancellation_is_not_the_others() -> None:
    promise: Promise[int] = Promise()

    async def wait() -> int:
        return await promise

    one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    await turns(2)
    one.cancel()
    await turns(2)
    assert one.cancelled()
    promise.settle(7, None)
    assert await other == 7
    assert await promise == 7


@on_virtual_time
async def test_waiting_with_a_timeout_leaves_the_promise_as_it_was() -> None:
    promise: Promise[int] = Promise()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await promise
    promise.settle(7, None)
    assert await asyncio.wait_for(promise, 1) == 7
    assert list(await asyncio.gather(promise, promise)) == [7, 7]
