"""Alarms of one shard on virtual time: when they ring, what they are told, what becomes of them."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog

from common.ids import PARTITION_COUNT
from common.link.records import ADOPTED
from local import virtual_time
from local.cluster import LoopClock
from local.virtual_time import on_virtual_time
from shard.alarms import retries
from shard.storage.disk import Disk
from tests.shard.kit import Solo, solo, until
from workers import DurableObject, JsException

HOUR_MS = 3_600_000

runs: defaultdict[str, list[Any]] = defaultdict(list)
"""What the handlers have noted, by the name of their object."""
plans: dict[str, list[Any]] = {}
"""What the next handlers of an object are to do."""


@pytest.fixture(autouse=True)
def forget() -> None:
    runs.clear()
    plans.clear()


class Bell(DurableObject):
    """Its handler does what the test has planned."""

    async def alarm(self, info: Any) -> None:
        name = str(self.ctx.id.name)
        runs[name].append((info.scheduledTime, info.retryCount, info.isRetry))
        plan = plans.get(name)
        if plan:
            result = plan.pop(0)(self)
            if hasattr(result, "__await__"):
                await result

    async def set(self, due_ms: Any) -> Any:
        await self.ctx.storage.setAlarm(due_ms)
        return await self.ctx.storage.getAlarm()

    async def due(self) -> Any:
        return await self.ctx.storage.getAlarm()

    async def delete(self) -> None:
        await self.ctx.storage.deleteAlarm()

    def kept(self) -> Any:
        return dict(self.ctx.storage.kv.list())

    def do(self, what: Any = None) -> Any:
        return plans["do"].pop(0)(self)


@asynccontextmanager
async def ringing(*classes: type[Any], **settings: Any) -> AsyncIterator[Solo]:
    """A shard that serves, with a disk that no thread waits for."""
    async with solo(*classes, sync_threads=0, **settings) as one:
        one.gateway.link.send([ADOPTED, list(range(PARTITION_COUNT))])
        await until(lambda: one.shard.gateways.serving)
        yield one


def now_ms(one: Solo) -> int:
    return int(one.clock.wall_s() * 1000)


def fail(bell: Bell) -> None:
    raise ValueError("out of luck")


def times(name: str = "a") -> list[Any]:
    return [each[0] for each in runs[name]]


def counts(name: str = "a") -> list[Any]:
    return [each[1] for each in runs[name]]


# --- when it rings


@on_virtual_time
async def test_it_rings_once_at_its_time_and_is_gone() -> None:
    """A1, A5, A6: the handler is told when it was to ring; after it has ended there is no alarm."""
    async with ringing(Bell) as one:
        due_ms = now_ms(one) + 5_000
        assert await one.stub("BELL").set(due_ms) == due_ms
        rang_at: list[float] = []
        plans["a"] = [lambda bell: rang_at.append(one.clock.wall_s() * 1000)]
        await asyncio.sleep(4.99)
        assert not runs["a"]
        await asyncio.sleep(1)
        assert runs["a"] == [(due_ms, 0, False)]
        assert due_ms <= rang_at[0] < due_ms + 2
        assert await one.stub("BELL").due() is None
        await asyncio.sleep(3600)
        assert len(runs["a"]) == 1
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_it_wakes_a_sleeping_object_and_gives_it_its_name() -> None:
    """I12; and until then the object costs no slot."""
    async with ringing(Bell) as one:
        await one.stub("BELL").set(now_ms(one) + HOUR_MS)
        await asyncio.sleep(60)
        assert not one.shard.namespaces["BELL"].slots
        await asyncio.sleep(3600)
        assert len(runs["a"]) == 1


@on_virtual_time
async def test_the_last_set_wins() -> None:
    async with ringing(Bell) as one:
        stub = one.stub("BELL")
        for seconds in (10, 2, 5):
            await stub.set(now_ms(one) + seconds * 1000)
        due_ms = now_ms(one) + 5_000
        await asyncio.sleep(20)
        assert times() == [due_ms]


@on_virtual_time
async def test_a_time_in_the_past_is_now() -> None:
    """A1: and so `getAlarm` says."""
    async with ringing(Bell) as one:
        before = now_ms(one)
        assert await one.stub("BELL").set(5) == before
        await until(lambda: runs["a"])
        assert times() == [before]
        assert await one.stub("BELL", "b").set(before + 0.9) == before


@on_virtual_time
async def test_one_that_is_deleted_does_not_ring() -> None:
    async with ringing(Bell) as one:
        await one.stub("BELL").set(now_ms(one) + 1_000)
        await one.stub("BELL").delete()
        assert await one.stub("BELL").due() is None
        await asyncio.sleep(10)
        assert not runs["a"]
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_one_that_is_undone_with_its_transaction_does_not_ring() -> None:
    """A16."""
    async with ringing(Bell) as one:
        due_ms = now_ms(one) + 1_000

        def undone(bell: Bell) -> None:
            def body() -> None:
                bell.ctx.storage.setAlarm(due_ms)
                raise ValueError("undo it")

            with pytest.raises(ValueError, match="undo it"):
                bell.ctx.storage.transactionSync(body)

        async def rolled_back(bell: Bell) -> None:
            async def body(txn: Any) -> None:
                await txn.setAlarm(due_ms)
                txn.rollback()

            await bell.ctx.storage.transaction(body)

        plans["do"] = [undone, rolled_back]
        await one.stub("BELL").do()
        await one.stub("BELL").do()
        assert await one.stub("BELL").due() is None
        await asyncio.sleep(10)
        assert not runs["a"]


@on_virtual_time
async def test_a_wall_clock_that_jumps_neither_loses_nor_repeats_one() -> None:
    async with ringing(Bell) as one:
        stub = one.stub("BELL")
        due_ms = await stub.set(now_ms(one) + HOUR_MS)
        one.clock.jump(3600)
        await asyncio.sleep(1.5)
        assert times() == [due_ms]
        one.clock.jump(-3600)
        await asyncio.sleep(7200)
        assert times() == [due_ms]
        later_ms = await stub.set(now_ms(one) + 10_000)
        one.clock.jump(-3600)
        await asyncio.sleep(3600)
        assert times() == [due_ms]
        await asyncio.sleep(20)
        assert times() == [due_ms, later_ms]


@on_virtual_time
async def test_two_of_one_object_never_run_at_once_and_other_events_come_between() -> None:
    """A14."""
    async with ringing(Bell) as one:
        stub = one.stub("BELL")
        gate: asyncio.Event = asyncio.Event()
        under_way = most = 0

        async def slow(bell: Bell) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await gate.wait()
            under_way -= 1

        plans["a"] = [slow, slow]
        await stub.set(now_ms(one))
        await until(lambda: runs["a"])
        await stub.set(now_ms(one))
        await asyncio.sleep(5)
        assert len(runs["a"]) == 1
        assert await stub.due() is not None
        gate.set()
        await asyncio.sleep(1)
        assert (len(runs["a"]), most) == (2, 1)


@on_virtual_time
async def test_its_handler_keeps_the_object_in_memory() -> None:
    async with ringing(Bell) as one:
        plans["a"] = [lambda bell: asyncio.sleep(120)]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(110)
        assert one.lives("BELL")
        await asyncio.sleep(30)
        assert not one.lives("BELL")


@on_virtual_time
async def test_none_rings_before_the_shard_serves() -> None:
    """Its gateways hand back the sockets that its objects hold: an alarm may want to tell them."""
    async with solo(Bell, sync_threads=0, adopt_timeout_s=60) as one:
        await one.stub("BELL").set(1)
        await asyncio.sleep(50)
        assert not runs["a"]
        one.gateway.link.send([ADOPTED, list(range(PARTITION_COUNT))])
        await asyncio.sleep(1)
        assert len(runs["a"]) == 1


@on_virtual_time
async def test_a_partition_that_leaves_takes_its_alarms_along() -> None:
    """And when it comes back, they do: those that were due meanwhile ring."""
    async with ringing(Bell) as one:
        due_ms = {name: await one.stub("BELL", name).set(now_ms(one) + 60_000) for name in "ab"}
        partition = one.slot("BELL", "a").id.partition
        await asyncio.sleep(30)
        one.shard.alarms.leave([partition])
        await asyncio.sleep(120)
        assert (times("a"), times("b")) == ([], [due_ms["b"]])
        one.shard.alarms.take([partition])
        await asyncio.sleep(1)
        assert times("a") == [due_ms["a"]]


@on_virtual_time
async def test_one_whose_partition_leaves_while_it_waits_for_its_object_is_not_begun() -> None:
    async with ringing(Bell) as one:
        stub = one.stub("BELL")
        held = asyncio.Event()

        async def hold(bell: Bell) -> None:
            await bell.ctx.blockConcurrencyWhile(held.wait)

        plans["do"] = [hold]
        await stub.set(now_ms(one) + 5_000)
        call = asyncio.ensure_future(stub.do())
        await asyncio.sleep(10)
        assert one.shard.status()["alarms_running"] == 1
        one.shard.alarms.leave([one.slot("BELL").id.partition])
        held.set()
        await call
        await asyncio.sleep(10)
        assert not runs["a"]
        assert one.shard.status()["alarms"] == 0


# --- what the handler sees


@on_virtual_time
async def test_the_alarm_is_out_of_sight_while_it_rings() -> None:
    """A4, A6: unless it is set again inside; then it is a fresh one, even for the same time."""
    async with ringing(Bell) as one:
        seen: list[Any] = []

        async def look(bell: Bell) -> None:
            seen.append(await bell.ctx.storage.getAlarm())
            await asyncio.sleep(1)
            seen.append(await bell.ctx.storage.getAlarm())
            await bell.ctx.storage.setAlarm(runs["a"][0][0] + 10_000)
            seen.append(await bell.ctx.storage.getAlarm())

        plans["a"] = [look]
        due_ms = await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(30)
        assert seen == [None, None, due_ms + 10_000]
        assert runs["a"] == [(due_ms, 0, False), (due_ms + 10_000, 0, False)]


@on_virtual_time
async def test_a_transaction_that_is_undone_hides_it_again() -> None:
    async with ringing(Bell) as one:
        seen: list[Any] = []

        async def undone(bell: Bell) -> None:
            async def body(txn: Any) -> None:
                await txn.setAlarm(now_ms(one) + 10_000)
                seen.append(await txn.getAlarm() is not None)
                txn.rollback()

            await bell.ctx.storage.transaction(body)
            seen.append(await bell.ctx.storage.getAlarm())

        plans["a"] = [undone]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(60)
        assert seen == [True, None]
        assert len(runs["a"]) == 1
        assert await one.stub("BELL").due() is None


@on_virtual_time
async def test_a_plain_method_without_the_argument_will_do() -> None:
    class Plain(DurableObject):
        def alarm(self) -> None:
            runs[str(self.ctx.id.name)].append("rang")

        def set(self, due_ms: Any) -> None:
            self.ctx.storage.setAlarm(due_ms)

    async with ringing(Plain) as one:
        await one.stub("PLAIN").set(1)
        await until(lambda: runs["a"])
        await asyncio.sleep(3600)
        assert runs["a"] == ["rang"]


@on_virtual_time
async def test_what_cannot_be_a_time_is_refused() -> None:
    """A2, A3."""

    class Mute(DurableObject):
        def set(self) -> None:
            self.ctx.storage.setAlarm(5)

    async with ringing(Bell, Mute) as one:
        stub = one.stub("BELL")
        for value, text in (
            (0, "setAlarm() cannot be called with an alarm time <= 0"),
            (-5, "setAlarm() cannot be called with an alarm time <= 0"),
            (float("nan"), "The value cannot be converted because it is not a valid Date."),
            (float("inf"), "The value cannot be converted because it is not a valid Date."),
            (
                "soon",
                "Failed to execute 'setAlarm' on 'DurableObjectStorage': "
                "parameter 1 is not of type 'date'.",
            ),
            (
                None,
                "Failed to execute 'setAlarm' on 'DurableObjectStorage': "
                "parameter 1 is not of type 'date'.",
            ),
            (8_000_000_000_000, "This API doesn't support dates after 2189."),
        ):
            with pytest.raises(TypeError) as refused:
                await stub.set(value)
            assert str(refused.value) == text
        with pytest.raises(TypeError) as refused:
            await one.stub("MUTE").set()
        assert str(refused.value) == (
            "Your Durable Object class must have an alarm() handler in order to call setAlarm()"
        )


# --- when it fails


@on_virtual_time
async def test_a_failed_one_is_retried_six_times_and_given_up() -> None:
    """A7, A8: 2 to 64 s and up to a quarter more, from the end of the run; what it wrote stays."""
    async with ringing(Bell) as one:
        began: list[float] = []

        async def slowly(bell: Bell) -> None:
            began.append(one.clock.wall_s())
            bell.ctx.storage.kv.put(f"run {len(began)}", True)
            await asyncio.sleep(1)
            raise ValueError("out of luck")

        plans["a"] = [slowly] * 20
        stub = one.stub("BELL")
        due_ms = await stub.set(now_ms(one))
        await asyncio.sleep(100)
        assert await stub.due() == due_ms, "between retries it has its time"
        await asyncio.sleep(3600)
        assert runs["a"] == [(due_ms, count, count > 0) for count in range(7)]
        gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(began)]
        for gap, least in zip(gaps, (2, 4, 8, 16, 32, 64), strict=True):
            assert least <= gap < least * 1.25 + 0.01
        assert (
            len({gap / least for gap, least in zip(gaps, (2, 4, 8, 16, 32, 64), strict=True)}) > 3
        )
        assert await stub.due() is None
        assert len(await stub.kept()) == 7
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_one_that_fails_and_then_works_is_done() -> None:
    async with ringing(Bell) as one:
        plans["a"] = [fail, fail]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(3600)
        assert counts() == [0, 1, 2]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(3600)
        assert counts() == [0, 1, 2, 0]


@on_virtual_time
async def test_an_undone_transaction_is_no_new_alarm() -> None:
    """One that waits for its retry goes on waiting, and its tries are counted on."""
    async with ringing(Bell) as one:

        def undone(bell: Bell) -> None:
            def body() -> None:
                bell.ctx.storage.kv.put("a", 1)
                bell.ctx.storage.setAlarm(now_ms(one) + 5)
                raise ValueError("undo it")

            with pytest.raises(ValueError, match="undo it"):
                bell.ctx.storage.transactionSync(body)

        plans["a"] = [fail] * 99
        plans["do"] = [undone] * 10_000
        await one.stub("BELL").set(now_ms(one))
        for _ in range(300):
            await one.stub("BELL").do()
            await asyncio.sleep(1)
        assert counts() == list(range(7))


@on_virtual_time
async def test_a_retry_is_not_early_by_the_wall_clock_either() -> None:
    """It was set back by an hour after the first try."""
    async with ringing(Bell) as one:
        plans["a"] = [fail]
        due_ms = await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(1)
        one.clock.jump(-3600)
        await asyncio.sleep(3590)
        assert counts() == [0]
        await asyncio.sleep(20)
        assert runs["a"] == [(due_ms, 0, False), (due_ms, 1, True)]


@on_virtual_time
async def test_set_or_deleted_inside_there_is_no_retry() -> None:
    """A9."""

    def set_and_fail(bell: Bell) -> None:
        bell.ctx.storage.setAlarm(now_ms(one) + 60_000)
        raise ValueError("out of luck")

    def delete_and_fail(bell: Bell) -> None:
        bell.ctx.storage.deleteAlarm()
        raise ValueError("out of luck")

    async with ringing(Bell) as one:
        plans["a"] = [set_and_fail]
        plans["b"] = [delete_and_fail]
        start_ms = now_ms(one)
        await one.stub("BELL").set(start_ms)
        await one.stub("BELL", "b").set(start_ms)
        await asyncio.sleep(3600)
        assert counts() == [0, 0]
        assert times()[1] >= start_ms + 60_000
        assert counts("b") == [0]
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_an_abort_inside_counts_and_can_drop_the_alarm() -> None:
    """A10, L9: and what was not committed is undone."""

    def abort(bell: Bell) -> None:
        bell.ctx.storage.kv.put("lost", True)
        bell.ctx.abort("enough")

    def abort_for_good(bell: Bell) -> None:
        bell.ctx.abort("enough", {"retryAlarm": False})

    async def abort_later(bell: Bell) -> None:
        await asyncio.sleep(1)
        bell.ctx.abort("enough", retryAlarm=False)

    async with ringing(Bell) as one:
        plans.update(a=[abort, abort], b=[abort_for_good] * 9, c=[abort_later] * 9, d=[abort] * 20)
        for name in "abcd":
            await one.stub("BELL", name).set(now_ms(one) + 1_000)
        await asyncio.sleep(3600)
        assert counts("a") == [0, 1, 2]
        assert (counts("b"), counts("c")) == ([0], [0])
        assert counts("d") == list(range(7))
        assert await one.stub("BELL").kept() == {}
        for name in "abcd":
            assert await one.stub("BELL", name).due() is None
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_an_abort_elsewhere_keeps_the_alarm() -> None:
    async with ringing(Bell) as one:
        stub = one.stub("BELL")
        due_ms = await stub.set(now_ms(one) + 10_000)
        plans["do"] = [lambda bell: bell.ctx.abort("enough", {"retryAlarm": False})]
        with pytest.raises(JsException, match="enough"):
            await stub.do()
        assert await one.stub("BELL").due() == due_ms
        await asyncio.sleep(20)
        assert counts() == [0]


@on_virtual_time
async def test_a_failed_block_concurrency_while_inside_counts() -> None:
    async def block(bell: Bell) -> None:
        async def body() -> None:
            raise ValueError("out of luck")

        await bell.ctx.blockConcurrencyWhile(body)

    async with ringing(Bell) as one:
        plans["a"] = [block, block]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(3600)
        assert counts() == [0, 1, 2]


@on_virtual_time
async def test_one_that_takes_too_long_is_cut_and_tried_again() -> None:
    """A12: whatever the handler does about it."""

    async def stubborn(bell: Bell) -> None:
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                if not stubborn_may_go:
                    continue
                raise

    stubborn_may_go = True
    async with ringing(Bell, alarm_timeout_s=900) as one:
        plans["a"] = [stubborn]
        with structlog.testing.capture_logs() as log:
            await one.stub("BELL").set(now_ms(one))
            await asyncio.sleep(899)
            assert counts() == [0]
            await asyncio.sleep(10)
        assert counts() == [0, 1]
        (line,) = [each for each in log if each["event"] == "alarm.failed"]
        assert "took longer than 900 s (ALARM_TIMEOUT_S)" in line["error"]


@on_virtual_time
async def test_a_constructor_that_fails_does_not_count_and_is_tried_without_an_end() -> None:
    """A10: up to 1,024 s apart."""
    broken = False
    tried: list[float] = []

    class Fragile(Bell):
        def __init__(self, ctx: Any, env: Any) -> None:
            super().__init__(ctx, env)
            if broken:
                tried.append(one.clock.monotonic_s())
                raise RuntimeError("not today")

    async with ringing(Fragile) as one:
        await one.stub("FRAGILE").set(now_ms(one) + 60_000)
        await asyncio.sleep(30)
        broken = True
        await asyncio.sleep(3 * 3600)
        gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
        assert len(gaps) > 12
        for number, gap in enumerate(gaps):
            least = min(2 << number, 1024)
            assert least <= gap < least * 1.25 + 0.01
        broken = False
        await asyncio.sleep(2000)
        assert [each[1:] for each in runs["a"]] == [(0, False)]


class BrokenDisk(Disk):
    """Syncs nothing while it is broken."""

    broken = False

    def sync_data(self, fd: int, path: str) -> None:
        if self.broken:
            raise OSError(errno.EIO, "the disk is broken", path)


@pytest.mark.parametrize("suspends", [False, True])
def test_a_commit_that_fails_does_not_count_and_is_tried_without_an_end(suspends: bool) -> None:
    """A10: whether the handler had ended by then or not."""

    async def run() -> None:
        async def handler(bell: Bell) -> None:
            bell.ctx.storage.kv.put("ran", True)
            if suspends:
                await asyncio.sleep(1)

        async with ringing(Bell) as one:
            one.shard.storage.disk = disk = BrokenDisk()
            due_ms = await one.stub("BELL").set(now_ms(one) + 60_000)
            await asyncio.sleep(30)
            plans["a"] = [handler] * 99
            disk.broken = True
            await asyncio.sleep(2 * 3600)
            assert len(runs["a"]) > 9, "it was given up"
            disk.broken = False
            await asyncio.sleep(3600)
            assert set(runs["a"]) == {(due_ms, 0, False)}
            assert len(runs["a"]) < 20
            assert await one.stub("BELL").due() is None
            assert await one.stub("BELL").kept() == {"ran": True}
            assert one.shard.status()["alarms"] == 0

    virtual_time.run(run())


@on_virtual_time
async def test_a_class_without_a_handler_drops_it() -> None:
    """As when new code has none; it is logged."""

    class Changing(Bell):
        pass

    async with ringing(Changing) as one:
        await one.stub("CHANGING").set(now_ms(one) + 60_000)
        await asyncio.sleep(30)
        Changing.alarm = None  # type: ignore[assignment,method-assign]
        with structlog.testing.capture_logs() as log:
            await asyncio.sleep(3600)
        assert [each["event"] for each in log if each["event"].startswith("alarm")] == [
            "alarm.no_handler"
        ]
        assert one.shard.status()["alarms"] == 0


@on_virtual_time
async def test_a_handler_that_sets_and_suspends_has_kept_what_it_wrote() -> None:
    """The alarm goes with its last step: all that it wrote is there when it is gone."""
    async with ringing(Bell) as one:

        async def steps(bell: Bell) -> None:
            for step in range(3):
                bell.ctx.storage.kv.put(f"step {step}", True)
                await asyncio.sleep(1)

        plans["a"] = [steps]
        await one.stub("BELL").set(now_ms(one))
        await asyncio.sleep(10)
        assert len(await one.stub("BELL").kept()) == 3
        assert counts() == [0]


# --- many


class Many(DurableObject):
    """For very many of it. They have no names."""

    clock: LoopClock

    def alarm(self, info: Any) -> None:
        runs[str(self.ctx.id)].append((info.scheduledTime, self.clock.wall_s() * 1000))

    def set(self, due_ms: Any) -> None:
        self.ctx.storage.setAlarm(due_ms)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
@on_virtual_time
async def test_very_many_within_one_second(capsys: pytest.CaptureFixture[str], count: int) -> None:
    """None early, none lost, none twice; their index is made from their files.

    On virtual time, where work takes none: lateness is what the schedule itself adds.
    """
    patterns = 100
    # So many files: in memory, where there is a place for files in memory.
    memory = Path("/dev/shm")
    data = TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
    settings = {"data_dir": Path(data.name), "durability": "normal"}
    due_at: dict[str, int] = {}
    async with ringing(Many, **settings) as one:
        start_ms = now_ms(one) + 60_000
        namespace = one.shard.env.MANY
        for number in range(patterns):
            object_id = namespace.newUniqueId()
            due_at[str(object_id)] = start_ms + number * 10
            await namespace.get(object_id).set(start_ms + number * 10)
    multiply(one, list(due_at), count // patterns, due_at)
    async with ringing(Many, **settings) as one:
        one.clock.jump((start_ms - now_ms(one)) / 1000 - 60)
        await until(lambda: one.shard.status()["alarms"] == count)
        Many.clock = one.clock
        await asyncio.sleep(59.9)
        assert one.shard.status()["alarms"] == count
        assert not one.shard.namespaces["MANY"].slots, "they sleep"
        await asyncio.sleep(60)
        assert one.shard.status()["alarms"] == 0
        assert {name: len(each) for name, each in runs.items() if len(each) != 1} == {}
        assert {name: each[0][0] for name, each in runs.items()} == due_at
        rung_late = sorted(at - due for ((due, at),) in runs.values())
        assert rung_late[0] >= 0
    data.cleanup()
    with capsys.disabled():
        print(
            f"\n{count} alarms: late p50 {rung_late[count // 2]:.1f} ms, "
            f"p99 {rung_late[count * 99 // 100]:.1f} ms, at most {rung_late[-1]:.1f} ms"
        )


def multiply(one: Solo, patterns: list[str], times: int, due_at: dict[str, int]) -> None:
    """Make so many objects of each: their files are copies. Indexes are deleted."""
    namespace, engine = one.shard.namespaces["MANY"], one.shard.storage
    for pattern in patterns:
        own = namespace.ids.from_string(pattern)
        path = engine.path_of("test-Many", own)
        database, log = Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()
        for _ in range(times - 1):
            other = namespace.ids.unique()
            copy = engine.path_of("test-Many", other)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            Path(copy).write_bytes(database)
            Path(f"{copy}-wal").write_bytes(log)
            due_at[str(other)] = due_at[pattern]
    for index in engine.settings.data_dir.glob("*/alarms.index"):
        index.unlink()


def test_the_policy_is_the_references() -> None:
    assert (retries.MAX_RETRIES, retries.FIRST_DELAY_S, retries.MAX_DELAY_S) == (6, 2, 1024)
