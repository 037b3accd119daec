"""The input gate at work in an object (specification §3.2, §3.3), and who may enter when."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local import virtual_time
from local.virtual_time import on_virtual_time
from shard.gate import MAX_DEPTH, Section, current_section
from tests.shard.kit import solo, turns
from workers import DurableObject

TOO_LONG = (
    "A call to blockConcurrencyWhile() in a Durable Object waited for too long. "
    "The call was canceled and the Durable Object was reset."
)


class Noted(DurableObject):
    """Notes what happens, in order; each test's class adds its methods."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env
        self.log: list[Any] = []

    def note(self, what: Any) -> list[Any]:
        self.log.append(what)
        return self.log

    def read(self) -> list[Any]:
        return self.log


class Blocker(Noted):
    async def block_for(self, name: str, seconds: float) -> str:
        async def callback() -> str:
            self.log.append(f"{name} in")
            await asyncio.sleep(seconds)
            self.log.append(f"{name} out")
            return name

        result: str = await self.ctx.blockConcurrencyWhile(callback)
        self.log.append(f"{name} awaited")
        return result

    async def wait(self, name: str, seconds: float) -> None:
        self.log.append(f"{name} waits")
        await asyncio.sleep(seconds)
        self.log.append(f"{name} goes on")

    async def sync_callback(self) -> Any:
        return await self.ctx.blockConcurrencyWhile(lambda: 7)

    async def issue(self) -> list[Any]:
        future = self.ctx.blockConcurrencyWhile(lambda: self.log.append("callback"))
        self.log.append("issued")
        await future
        return self.log

    async def nest(self, depth: int) -> int:
        async def level(left: int) -> int:
            if left == 0:
                return 0
            return 1 + await self.ctx.blockConcurrencyWhile(lambda: level(left - 1))

        deepest: int = await self.ctx.blockConcurrencyWhile(lambda: level(depth - 1))
        return deepest + 1

    async def swallow_nest(self) -> str:
        try:
            await self.nest(MAX_DEPTH + 1)
        except RecursionError:
            return "caught"
        return "not refused"

    async def fail_in_block(self) -> str:
        async def callback() -> None:
            raise ValueError("in the block")

        try:
            await self.ctx.blockConcurrencyWhile(callback)
        except ValueError:
            self.log.append("caught inside")
        return "went on"

    async def leave_a_section_behind(self) -> None:
        async def inner() -> None:
            self.log.append("inner in")
            await asyncio.sleep(5)
            self.log.append("inner out")

        def outer() -> None:
            self.ctx.blockConcurrencyWhile(inner)
            self.log.append("outer out")

        await self.ctx.blockConcurrencyWhile(outer)
        self.log.append("outer awaited")

    async def cancel_block(self) -> None:
        async def callback() -> None:
            raise asyncio.CancelledError

        await self.ctx.blockConcurrencyWhile(callback)

    async def wait_for_an_event(self) -> None:
        self.happened = asyncio.Event()
        await self.ctx.blockConcurrencyWhile(self.happened.wait)

    def happen(self) -> None:
        self.happened.set()


@on_virtual_time
async def test_the_callbacks_value_is_returned_and_it_may_be_a_plain_function() -> None:
    """B1."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        assert await stub.block_for("a", 1) == "a"
        assert await stub.sync_callback() == 7


@on_virtual_time
async def test_it_starts_on_a_later_turn() -> None:
    """B2."""
    async with solo(Blocker) as one:
        assert await one.stub("BLOCKER").issue() == ["issued", "callback"]


@on_virtual_time
async def test_two_calls_run_one_after_the_other() -> None:
    """B3: and the first one's awaiter goes on before the second starts."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        await stub.wait("warm", 0)
        first = stub.block_for("a", 2)
        second = stub.block_for("b", 1)
        await first
        await second
        log = [each for each in await stub.read() if not each.startswith("warm")]
        assert log == ["a in", "a out", "a awaited", "b in", "b out", "b awaited"]


class TwoBlocks(Noted):
    async def both(self) -> list[str]:
        def block(name: str) -> Any:
            async def callback() -> None:
                self.log.append(f"{name} in")
                await asyncio.sleep(1)
                self.log.append(f"{name} out")

            return self.ctx.blockConcurrencyWhile(callback)

        async def awaits(name: str) -> None:
            await block(name)
            self.log.append(f"{name} awaited")

        await asyncio.gather(awaits("a"), awaits("b"))
        return self.log


@on_virtual_time
async def test_two_blocks_of_one_handler_queue() -> None:
    """B3, asked for before the first has begun."""
    async with solo(TwoBlocks) as one:
        assert await one.stub("TWOBLOCKS").both() == [
            "a in", "a out", "a awaited", "b in", "b out", "b awaited",
        ]  # fmt: skip


@on_virtual_time
async def test_64_levels() -> None:
    """B4."""
    async with solo(Blocker) as one:
        assert await one.stub("BLOCKER").nest(MAX_DEPTH) == MAX_DEPTH


@on_virtual_time
async def test_65_levels_reset_the_object_even_if_the_error_is_caught() -> None:
    """§2.4: nesting > 64."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        await stub.note("before")
        with pytest.raises(RecursionError, match="nested too deeply") as caught:
            await stub.swallow_nest()
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert await one.stub("BLOCKER").read() == []


@on_virtual_time
async def test_while_it_runs_calls_wait_and_suspended_handlers_do_not_resume() -> None:
    """B5, G3: timers, messages and calls from outside wait."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        waiting = stub.wait("w", 1)
        blocking = stub.block_for("b", 5)
        await asyncio.sleep(0.5)
        from_outside = stub.note("call")
        await asyncio.gather(waiting, blocking, from_outside)
        log = await stub.read()
        assert log[:4] == ["w waits", "b in", "b out", "b awaited"]
        assert sorted(log[4:]) == ["call", "w goes on"]


@on_virtual_time
async def test_waiting_inside_for_an_outside_event_ends_after_30_s() -> None:
    """B6: the calls that wait fail too, all marked as reset and overloaded."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        calls = [stub.wait_for_an_event(), stub.happen(), stub.read()]
        for call in calls:
            with pytest.raises(Exception, match="waited for too long") as caught:
                await call
            assert str(caught.value) == TOO_LONG
            assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
            assert caught.value.overloaded is True  # type: ignore[attr-defined]
        assert loop.time() - began_at == pytest.approx(30, abs=0.1)
        assert await one.stub("BLOCKER").read() == []


@on_virtual_time
async def test_the_clock_of_a_block_that_failed_does_not_touch_the_next_life() -> None:
    async with solo(Blocker) as one:
        with pytest.raises(ValueError, match="in the block"):
            await one.stub("BLOCKER").fail_in_block()
        stub = one.stub("BLOCKER")
        await stub.note("alive")
        waiting = stub.wait("w", 40)
        await asyncio.sleep(35)
        assert await stub.read() == ["alive", "w waits"]
        await waiting


class Stubborn(Blocker):
    async def block_and_reset(self) -> None:
        async def callback() -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(100)

        await self.ctx.blockConcurrencyWhile(callback)


@on_virtual_time
async def test_a_block_that_ignores_its_end_does_not_time_out_the_next_life() -> None:
    async with solo(Stubborn) as one:
        await one.stub("STUBBORN").read()
        blocking = one.stub("STUBBORN").block_and_reset()
        await asyncio.sleep(25)
        one.slot("STUBBORN").reset(ValueError("reset"))
        with pytest.raises(ValueError, match="reset"):
            await blocking
        stub = one.stub("STUBBORN")
        await stub.note("next life")
        await asyncio.sleep(8)
        assert await stub.read() == ["next life"]
        await asyncio.sleep(100)


@on_virtual_time
async def test_a_failing_callback_resets_the_object_and_cannot_be_caught_inside() -> None:
    """§2.4, L8."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        log = await stub.note("before")
        with pytest.raises(ValueError, match="in the block") as caught:
            await stub.fail_in_block()
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]
        assert await one.stub("BLOCKER").read() == []
        assert "caught inside" not in log


@on_virtual_time
async def test_a_cancelled_callback_resets_the_object_but_cancels_nobody() -> None:
    async with solo(Blocker) as one:
        with pytest.raises(Exception, match="cancelled") as caught:
            await one.stub("BLOCKER").cancel_block()
        assert caught.value.durableObjectReset is True  # type: ignore[attr-defined]


@on_virtual_time
async def test_a_section_that_its_parent_left_behind_still_holds_everything() -> None:
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        await stub.read()
        leaving = stub.leave_a_section_behind()
        from_outside = stub.note("call")
        await asyncio.gather(leaving, from_outside)
        log = await stub.read()
        assert log[:3] == ["outer out", "inner in", "inner out"]
        assert sorted(log[3:]) == ["call", "outer awaited"]


class SlowStart(Noted):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        ctx.blockConcurrencyWhile(self.load)
        self.log.append("constructed")

    async def load(self) -> None:
        await asyncio.sleep(2)
        self.log.append("loaded")


@on_virtual_time
async def test_no_event_is_delivered_before_the_constructors_block_ends() -> None:
    """L2, E7: and then they come in order."""
    async with solo(SlowStart) as one:
        stub = one.stub("SLOWSTART")
        calls = [stub.note(number) for number in range(5)]
        await asyncio.gather(*calls)
        assert await stub.read() == ["constructed", "loaded", 0, 1, 2, 3, 4]


class Outer(Noted):
    """Its initialisation calls another object, which initialises itself in the same way."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        ctx.blockConcurrencyWhile(self.load)

    async def load(self) -> None:
        self.log.extend(await self.env.SLOWSTART.getByName("inner").note("called"))


@on_virtual_time
async def test_a_block_may_call_an_object_that_blocks_itself() -> None:
    """The sections of one object are nothing to another one's gate."""
    async with solo(Outer, SlowStart) as one:
        assert await one.stub("OUTER").read() == ["constructed", "loaded", "called"]


# --- §3.3: can another event run while the handler awaits X? --------------------------------------


class Awaits(Noted):
    async def run(self, what: str) -> list[Any]:
        self.log.append("begin")
        await getattr(self, what)()
        self.log.append("end")
        return self.log

    async def a_done_future(self) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        await future

    async def a_coroutine_that_does_not_suspend(self) -> None:
        async def inner() -> None: ...

        await inner()

    async def a_block(self) -> None:
        await self.ctx.blockConcurrencyWhile(lambda: asyncio.sleep(1))

    async def sleep_0(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def a_timer(self) -> None:
        await asyncio.sleep(1)

    async def another_object(self) -> None:
        await self.env.BLOCKER.getByName("other").wait("w", 1)

    async def a_thread(self) -> None:
        await asyncio.to_thread(lambda: None)

    async def a_task(self) -> None:
        await asyncio.create_task(asyncio.sleep(1))


@pytest.mark.parametrize(
    ("what", "others_run"),
    [
        ("a_done_future", False),
        ("a_coroutine_that_does_not_suspend", False),
        ("a_block", False),
        ("sleep_0", True),
        ("a_timer", True),
        ("another_object", True),
        ("a_thread", True),
        ("a_task", True),
    ],
)
def test_whether_others_run_while_a_handler_awaits(what: str, others_run: bool) -> None:
    """§3.3, the rows that need no storage."""

    async def main() -> None:
        async with solo(Awaits, Blocker) as one:
            stub = one.stub("AWAITS")
            await stub.read()
            running = stub.run(what)
            other = stub.note("other")
            await running
            await other
            log = await stub.read()
            assert log == (["begin", "other", "end"] if others_run else ["begin", "end", "other"])

    virtual_time.run(main(), check_leftovers=True)


@on_virtual_time
async def test_calls_overlap_at_their_awaits() -> None:
    """§3.3, last row: s1 s2 s3 e1 e2 e3."""
    async with solo(Blocker) as one:
        stub = one.stub("BLOCKER")
        await asyncio.gather(*(stub.wait(str(number), 1 + number) for number in range(3)))
        log = await stub.read()
        assert log == [f"{n} waits" for n in range(3)] + [f"{n} goes on" for n in range(3)]


class ThirdParty(Noted):
    async def work(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.tick)
            asyncio.get_running_loop().call_later(1, self.start_a_task)

    def start_a_task(self) -> None:
        self.late = asyncio.create_task(self.tick())

    async def tick(self) -> None:
        for _ in range(3):
            self.log.append("tick")
            await asyncio.sleep(1)

    async def block(self) -> None:
        async def callback() -> None:
            self.log.append("in")
            await asyncio.sleep(10)
            self.log.append("out")

        await self.ctx.blockConcurrencyWhile(callback)


@on_virtual_time
async def test_tasks_of_an_app_and_of_its_libraries_stay_under_the_gate() -> None:
    """Also those that a library starts from a callback of the loop."""
    async with solo(ThirdParty) as one:
        stub = one.stub("THIRDPARTY")
        working = stub.work()
        await asyncio.sleep(0.5)
        await asyncio.gather(stub.block(), working)
        await asyncio.sleep(10)
        log = await stub.read()
        assert log.index("out") == log.index("in") + 1
        assert log.count("tick") == 6


# --- re-entry -------------------------------------------------------------------------------------


class Caller(Noted):
    depth = 0

    async def call(self, suspended: bool) -> list[Any]:
        if suspended:
            await asyncio.sleep(0)
        self.log.append("line begins")
        self.depth += 1
        promise = self.env.CALLEE.getByName("b").call_back(self.ctx.id.name)
        self.depth -= 1
        self.log.append("line ends")
        await promise
        return self.log

    def call_in_a_plain_function(self) -> list[Any]:
        self.log.append("line begins")
        self.depth += 1
        self.promise = self.env.CALLEE.getByName("b").call_back(self.ctx.id.name)
        self.depth -= 1
        self.log.append("line ends")
        return self.log

    def entered(self) -> None:
        assert self.depth == 0, "entered in the middle of its own line"
        self.log.append("entered")


class Callee(Noted):
    def call_back(self, name: str) -> None:
        self.promise = self.env.CALLER.getByName(name).entered()


@pytest.mark.parametrize("suspended", [False, True])
def test_an_object_is_never_entered_in_the_middle_of_its_own_line(suspended: bool) -> None:
    """E9: A→B→A does not deadlock, and A's handler reads like any coroutine."""

    async def main() -> None:
        async with solo(Caller, Callee) as one:
            stub = one.stub("CALLER")
            await stub.call(suspended)
            await turns()
            assert await stub.read() == ["line begins", "line ends", "entered"]
            assert await stub.call_in_a_plain_function()
            await turns()
            assert (await stub.read())[3:] == ["line begins", "line ends", "entered"]

    virtual_time.run(main(), check_leftovers=True)


class Looker(Noted):
    def who(self) -> bool:
        return asyncio.current_task() is None

    def whose(self) -> str:
        return variable.get()

    async def ask(self) -> list[Any]:
        mine = asyncio.current_task()
        variable.set("the caller's")
        other = self.env.LOOKER.getByName("other")
        seen = [await other.who(), await other.whose()]
        return [*seen, asyncio.current_task() is mine]


variable: ContextVar[str] = ContextVar("variable", default="unset")


@on_virtual_time
async def test_a_plain_function_called_inline_sees_neither_task_nor_context_of_its_caller() -> None:
    async with solo(Looker) as one:
        assert await one.stub("LOOKER").ask() == [True, "unset", True]


class Setter(Noted):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        variable.set("by the constructor")

    def set_it(self) -> None:
        variable.set("by a handler")

    def get_it(self) -> str:
        return variable.get()

    async def get_it_later(self) -> str:
        await asyncio.sleep(0)
        return variable.get()


@on_virtual_time
async def test_what_the_constructor_sets_stays_and_what_a_handler_sets_goes() -> None:
    async with solo(Setter) as one:
        stub = one.stub("SETTER")
        await stub.set_it()
        assert await stub.get_it() == "by the constructor"
        assert await stub.get_it_later() == "by the constructor"
        assert variable.get() == "unset"


# --- any program ----------------------------------------------------------------------------------


@dataclass
class Sleep:
    seconds: int


@dataclass
class Block:
    steps: list[Any]
    awaited: bool


@dataclass
class Spawn:
    steps: list[Any]


STEPS = st.recursive(
    st.lists(st.builds(Sleep, st.integers(0, 2)), max_size=3),
    lambda inner: st.lists(
        st.one_of(
            st.builds(Sleep, st.integers(0, 2)),
            st.builds(Block, inner, st.booleans()),
            st.builds(Spawn, inner),
        ),
        max_size=4,
    ),
    max_leaves=12,
)


@dataclass
class Running:
    """A callback that has been asked for: the model's view of a section.

    It is over a turn of the loop after its last step: what its tasks ask for until then is its.
    """

    parent: Running | None
    number: int
    section: Section | None = None
    asked: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.section is not None and self.section.done


class Interpreter(DurableObject):
    """Runs a program and checks at each of its own steps that it may."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.outside = Running(None, 0)
        self.stack: list[Running] = []
        self.count = 0
        self.started = 0
        self.finished = 0
        self.faults: list[str] = []

    def innermost(self, section: Running) -> Running:
        while section.ended and section.parent is not None:
            section = section.parent
        return section

    def running(self) -> Running | None:
        self.stack = [each for each in self.stack if not each.ended]
        return self.stack[-1] if self.stack else None

    def check(self, section: Running, what: str) -> None:
        allowed = self.running()
        if allowed is not None and self.innermost(section) is not allowed:
            self.faults.append(f"{what} ran in section {section.number} under {allowed.number}")

    async def run_steps(self, steps: list[Any], section: Running) -> None:
        self.started += 1
        self.check(section, "first step")
        for step in steps:
            match step:
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Block(inner, awaited):
                    blocked = self.block(inner, section)
                    if awaited:
                        await blocked
                case Spawn(inner):
                    asyncio.create_task(self.run_steps(inner, section))  # noqa: RUF006
                case _:
                    raise AssertionError(step)
            self.check(section, "step")
        self.finished += 1

    def block(self, steps: list[Any], section: Running) -> Any:
        self.count += 1
        parent = self.innermost(section)
        mine = Running(parent, self.count)
        parent.asked.append(mine.number)

        async def callback() -> None:
            mine.section = current_section.get()
            parent.order.append(mine.number)
            top = self.running()
            if top is not None and top is not self.innermost(parent):
                self.faults.append(f"section {mine.number} began under {top.number}")
            self.stack.append(mine)
            await self.run_steps(steps, mine)
            if self.running() is not mine:
                self.faults.append(f"section {mine.number} ended out of turn")
            if parent.order != parent.asked[: len(parent.order)]:
                self.faults.append(f"sections of {parent.number} began as {parent.order}")

        return self.ctx.blockConcurrencyWhile(callback)

    async def interpret(self, number: int) -> int:
        if self.running() is not None:
            self.faults.append(f"event {number} was delivered inside a section")
        await self.run_steps(PROGRAMS[number], self.outside)
        return number


PROGRAMS: list[list[Any]] = []


@given(programs=st.lists(STEPS, min_size=1, max_size=4), gaps=st.lists(st.integers(0, 2)))
@settings(max_examples=75)
def test_any_program_keeps_the_rules_of_the_gate(
    programs: list[list[Any]], gaps: list[int]
) -> None:
    """One section at a time, no held coroutine steps, first come first served, nothing starves."""
    PROGRAMS[:] = programs

    async def main() -> None:
        async with solo(Interpreter, idle_timeout_s=3600.0) as one:
            stub = one.stub("INTERPRETER")
            calls = []
            for number in range(len(programs)):
                calls.append(stub.interpret(number))
                if number < len(gaps):
                    await asyncio.sleep(gaps[number])
            assert [await call for call in calls] == list(range(len(programs)))
            await asyncio.sleep(200)  # what was spawned or not awaited
            instance = one.instance("INTERPRETER")
            assert instance.faults == []
            assert instance.started == instance.finished
            assert instance.running() is None
            assert not one.activation("INTERPRETER").busy

    virtual_time.run(main(), check_leftovers=True)
