"""Turns: a handler that does not suspend costs no task, and none can tell it from plain asyncio.

asyncio is the app's concurrency, so each of the scenarios below runs as a plain task of a plain
loop, as a handler's turn on the same loop, as a turn on uvloop, and as a turn on another task's
stack. The result must be the same.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from asyncio import current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestServer

from local import virtual_time
from local.virtual_time import on_virtual_time
from shard.gate import InputGate, Section, current_section
from shard.turn import CLEANUP_S, Carrier, TurnRunner, current_owner, task_factory
from tests.shard.kit import turns

Handler = Callable[[], Coroutine[Any, Any, Any]]


class OneOwner:
    """An owner that counts the tasks that carry something for it."""

    def __init__(self) -> None:
        self.gate = InputGate(lambda: None)
        self.free = True
        self.dead = False
        self.death: BaseException = RuntimeError("dead")
        self.held_up = 0
        self.streams = 0
        self.stirred = False
        self.carriers: set[Carrier] = set()
        self.steps = 0
        self.started = 0
        self.context = copy_context()
        self.context.run(current_owner.set, self)

    def task_started(self, carrier: Carrier) -> None:
        self.started += 1
        self.carriers.add(carrier)

    def task_ended(self, carrier: Carrier) -> None:
        self.carriers.discard(carrier)

    def step_ended(self) -> None:
        self.steps += 1
        self.free = True

    def end(self) -> None:
        self.dead = True
        for carrier in list(self.carriers):
            carrier.cut(self.death)


class Stage:
    """An owner and its runner in the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(task_factory)
        self.owner = OneOwner()
        self.runner = TurnRunner(self.owner, self.loop)

    def start(self, handler: Handler) -> asyncio.Future[Any]:
        """Begin a turn where it stands; a future of how it ends."""
        outcome: asyncio.Future[Any] = self.loop.create_future()

        def done(value: Any, error: BaseException | None) -> None:
            assert not outcome.done(), "told twice"
            outcome.set_result((value, error))

        self.runner.finish(handler(), done)
        return outcome

    async def play(self, handler: Handler) -> Any:
        """Run a turn as an event does: from a callback of the loop, in which no task is current."""
        outcome: asyncio.Future[Any] = self.loop.create_future()

        def begin() -> None:
            self.start(handler).add_done_callback(lambda done: outcome.set_result(done.result()))

        self.loop.call_soon(begin)
        value, error = await outcome
        if error is not None:
            raise error
        return value

    async def close(self) -> None:
        self.runner.close()
        await turns(5)
        self.loop.set_task_factory(None)


def on_stage(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Give a test a stage, on virtual time."""

    @on_virtual_time
    async def run() -> None:
        stage = Stage()
        try:
            await test(stage)
        finally:
            await stage.close()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


# --- the same as in plain asyncio -----------------------------------------------------------------

SCENARIOS: dict[str, tuple[Handler, Any]] = {}


def scenario(expected: Any) -> Callable[[Handler], Handler]:
    """What the decorated handler gives, as its value or as the name of its exception."""

    def add(handler: Handler) -> Handler:
        SCENARIOS[handler.__name__] = handler, expected
        return handler

    return add


@scenario([True, True, True])
async def one_task_from_the_first_line_to_the_last() -> Any:
    first = current_task()
    same = [first is not None]
    await asyncio.sleep(0)
    same.append(current_task() is first)
    await asyncio.sleep(0.01)
    return [*same, current_task() is first]


@scenario("done")
async def nothing_to_wait_for() -> Any:
    return "done"


@scenario(5)
async def a_future_that_is_done_already() -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_result(5)
    return await future


@scenario("KeyError")
async def a_future_that_has_failed_already() -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(KeyError("no"))
    await future


@scenario("KeyError")
async def an_exception_at_once() -> Any:
    raise KeyError("no")


@scenario("KeyError")
async def an_exception_later() -> Any:
    await asyncio.sleep(0.001)
    raise KeyError("no")


@scenario(["a1", "b1", "a2", "b2"])
async def sleep_0_yields_once() -> Any:
    said = []

    async def other() -> None:
        said.append("b1")
        await asyncio.sleep(0)
        said.append("b2")

    task = asyncio.create_task(other())
    said.append("a1")
    await asyncio.sleep(0)
    said.append("a2")
    await task
    return said


@scenario(["a1", "b1", "a2", "b2"])
async def sleep_0_yields_once_also_later() -> Any:
    await asyncio.sleep(0)
    return await sleep_0_yields_once()


@scenario("late")
async def timeout_from_the_first_line() -> Any:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        return "late"


@scenario("late")
async def timeout_of_0() -> Any:
    try:
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return "late"


@scenario(["inner", "outer"])
async def timeout_in_a_timeout() -> Any:
    late = []
    try:
        async with asyncio.timeout(None) as outer:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            except TimeoutError:
                late.append("inner")
            # Not before: on a busy machine both would be over at once.
            outer.reschedule(asyncio.get_running_loop().time() + 0.01)
            await asyncio.sleep(10)
    except TimeoutError:
        late.append("outer")
    return late


@scenario([0, 1, 2])
async def task_group() -> Any:
    async def child(number: int) -> int:
        await asyncio.sleep(0.001 * (3 - number))
        return number

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child(number)) for number in range(3)]
    return [task.result() for task in tasks]


@scenario(["sibling cancelled", "ValueError"])
async def task_group_with_a_failing_child() -> Any:
    seen = []

    async def patient() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("sibling cancelled")
            raise

    async def failing() -> None:
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(patient())
            group.create_task(failing())
    except* ValueError as errors:
        seen.append(type(errors.exceptions[0]).__name__)
    return seen


@scenario(["a in", "a out", "b in", "b out"])
async def lock() -> Any:
    mutex = asyncio.Lock()
    said = []

    async def enter(name: str) -> None:
        async with mutex:
            said.append(f"{name} in")
            await asyncio.sleep(0.001)
            said.append(f"{name} out")

    await asyncio.gather(enter("a"), enter("b"))
    return said


@scenario("set")
async def event() -> Any:
    happened = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, happened.set)
    await happened.wait()
    return "set"


@scenario([1, "ValueError"])
async def gather_with_exceptions() -> Any:
    async def fine() -> int:
        return 1

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError

    one, other = await asyncio.gather(fine(), failing(), return_exceptions=True)
    return [one, type(other).__name__]


@scenario("TimeoutError")
async def wait_for_too_long() -> Any:
    await asyncio.wait_for(asyncio.sleep(10), 0.01)


@scenario([3, True])
async def wait_for_in_time() -> Any:
    async def quick() -> int:
        await asyncio.sleep(0)
        return 3

    return [await asyncio.wait_for(quick(), 1), current_task() is not None]


@scenario([True, 4])
async def shield() -> Any:
    async def work() -> int:
        await asyncio.sleep(0.01)
        return 4

    task = asyncio.create_task(work())
    try:
        async with asyncio.timeout(0.001):
            await asyncio.shield(task)
    except TimeoutError:
        return [not task.cancelled(), await task]


@scenario("from a thread")
async def to_thread() -> Any:
    return await asyncio.to_thread(lambda: "from a thread")


@scenario([0, 1, "closed"])
async def async_generator() -> Any:
    seen: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            seen.append("closed")

    stream = numbers()
    async for number in stream:
        seen.append(number)
        if number == 1:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return seen


@scenario("CancelledError")
async def cancels_itself_and_waits() -> Any:
    task = current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


@scenario("CancelledError")
async def cancels_itself_later_and_waits() -> Any:
    await asyncio.sleep(0)
    task = current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


@scenario(["cancelled", 1, "goes on"])
async def survives_its_own_cancellation() -> Any:
    task = current_task()
    assert task is not None
    task.cancel()
    seen: list[Any] = []
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        seen += ["cancelled", task.cancelling()]
        task.uncancel()
    await asyncio.sleep(0.001)
    return [*seen, "goes on"]


@scenario(["child cancelled", "parent cancelled"])
async def what_it_waits_for_is_cancelled_with_it() -> Any:
    task = current_task()
    assert task is not None
    seen = []

    async def child() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("child cancelled")
            raise

    waited_for = asyncio.create_task(child())
    # The very next callback after its first step: nothing is between them.
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await waited_for
    except asyncio.CancelledError:
        seen.append("parent cancelled")
    return seen


@scenario(["why"])
async def a_cancellation_keeps_its_message() -> Any:
    task = current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.001, lambda: task.cancel("why"))
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError as error:
        return list(error.args)


@scenario("RuntimeError")
async def yields_what_is_no_future() -> Any:
    class Strange:
        def __await__(self) -> Generator[Any, Any, Any]:
            yield "strange"

    await Strange()


@scenario([True, False, "ValueError"])
async def anyio_cancel_scopes() -> Any:
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(10)
    with anyio.move_on_after(10) as other:
        await anyio.lowlevel.checkpoint()
    seen = [scope.cancelled_caught, other.cancelled_caught]
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 10)
            raise ValueError("body")
    except* ValueError as errors:
        return_value = type(errors.exceptions[0]).__name__
    return [*seen, return_value]


@scenario(["inner", "after"])
async def anyio_cancels_from_the_first_line() -> Any:
    seen = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(10)
        finally:
            seen.append("inner")
    return [*seen, "after"]


@scenario("late")
async def anyio_fail_after() -> Any:
    try:
        with anyio.fail_after(0.01):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
    except TimeoutError:
        return "late"


@scenario(["child sees", "parent keeps"])
async def context_variables_go_down_and_not_up() -> Any:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("parent")
    seen = []

    async def child() -> None:
        if variable.get() == "parent":
            seen.append("child sees")
        variable.set("child")

    await asyncio.create_task(child())
    if variable.get() == "parent":
        seen.append("parent keeps")
    return seen


async def outcome_of(run: Awaitable[Any]) -> Any:
    try:
        return await run
    except asyncio.CancelledError:
        return "CancelledError"
    except Exception as error:
        return getattr(error, "name", None) or type(error).__name__


@pytest.mark.parametrize("name", SCENARIOS)
def test_plain_asyncio_does_so(name: str) -> None:
    handler, expected = SCENARIOS[name]

    async def main() -> Any:
        return await outcome_of(asyncio.create_task(handler()))

    assert virtual_time.run(main(), check_leftovers=True) == expected


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("loop", ["virtual", "uvloop"])
@pytest.mark.parametrize("parked", [False, True], ids=["fresh", "parked"])
def test_a_turn_does_the_same(name: str, loop: str, parked: bool) -> None:
    handler, expected = SCENARIOS[name]

    async def main() -> Any:
        stage = Stage()
        if parked:
            await stage.play(nothing_to_wait_for)
            await turns(2)  # the spare has begun to wait for work
        result = await outcome_of(stage.play(handler))
        # The runner is as good as new afterwards: the next handler notices nothing.
        assert await outcome_of(stage.play(one_task_from_the_first_line_to_the_last)) == [True] * 3
        await turns(5)
        assert not stage.owner.carriers
        await stage.close()
        return result

    if loop == "uvloop":
        assert uvloop.run(main()) == expected
    else:
        assert virtual_time.run(main(), check_leftovers=True) == expected


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_turn_within_another_task_does_the_same(name: str) -> None:
    """An object calls another one in the same process: the callee runs on the caller's stack."""
    handler, expected = SCENARIOS[name]

    async def main() -> Any:
        stage = Stage()
        mine = current_task()
        outcome = stage.start(handler)
        assert current_task() is mine
        value, error = await outcome
        await stage.close()
        return value if error is None else getattr(error, "name", None) or type(error).__name__

    assert virtual_time.run(main(), check_leftovers=True) == expected


def test_the_aiohttp_client_works_in_a_handler() -> None:
    """Its time-outs need a current task from the first line on."""

    async def main() -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=await request.text())

        application = web.Application()
        application.router.add_post("/", answer)
        async with TestServer(application) as server:
            stage = Stage()

            async def handler() -> str:
                timeout = aiohttp.ClientTimeout(total=5)
                url = server.make_url("/")
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.post(url, data="hello") as response,
                ):
                    return await response.text()

            assert await stage.play(handler) == "hello"
            await stage.close()

    uvloop.run(main())


# --- what it costs --------------------------------------------------------------------------------


@on_stage
async def test_a_handler_that_does_not_suspend_costs_no_task(stage: Stage) -> None:
    """DESIGN §6: one spare task serves all handlers that finish at once."""
    tasks = set()

    async def handler() -> int:
        tasks.add(current_task())
        return 7

    assert [await stage.play(handler) for _ in range(5)] == [7] * 5
    assert len(tasks) == 1
    assert stage.owner.started == 0


@on_stage
async def test_the_spare_of_a_handler_that_suspends_is_its_task(stage: Stage) -> None:
    tasks = []

    async def handler() -> None:
        tasks.append(current_task())
        await asyncio.sleep(0)

    await stage.play(handler)
    await stage.play(handler)
    assert len(set(tasks)) == 2, "no two handlers share a task"
    assert stage.owner.started == 2


@on_stage
async def test_two_handlers_that_wait_have_different_tasks(stage: Stage) -> None:
    async def handler() -> Any:
        task = current_task()
        await asyncio.sleep(0.01)
        assert current_task() is task
        return task

    one, other = await asyncio.gather(stage.play(handler), stage.play(handler))
    assert one is not other


@on_stage
async def test_a_spare_dies_with_its_runner(stage: Stage) -> None:
    async def handler() -> weakref.ref[Any]:
        task = current_task()
        assert task is not None
        return weakref.ref(task)

    reference = await stage.play(handler)
    stage.runner.close()
    await turns()
    gc.collect()
    assert reference() is None


# --- cancellation ---------------------------------------------------------------------------------


@on_stage
async def test_a_handler_that_cancels_itself_harms_no_other(stage: Stage) -> None:
    """Neither before the spare has run for the first time nor after."""

    async def cancels_itself() -> str:
        task = current_task()
        assert task is not None
        task.cancel()
        return "done all the same"

    async def innocent() -> str:
        await asyncio.sleep(0.01)
        return "unharmed"

    def burst() -> list[asyncio.Future[Any]]:
        return [stage.start(each) for each in (cancels_itself, innocent, cancels_itself, innocent)]

    for _ in range(2):
        outcomes = [await each for each in burst()]
        expected = [("done all the same", None), ("unharmed", None)] * 2
        assert outcomes == expected
        await stage.play(nothing_to_wait_for)
        await turns()  # now the spare is parked


@on_stage
async def test_a_cancelled_handler_is_an_error_of_its_caller_not_a_cancellation(
    stage: Stage,
) -> None:
    with pytest.raises(Exception, match="the handler was cancelled") as caught:
        await stage.play(cancels_itself_and_waits)
    assert caught.value.name == "CancelledError"  # type: ignore[attr-defined]
    task = current_task()
    assert task is not None
    assert task.cancelling() == 0


@on_stage
async def test_an_app_may_cancel_a_handler_that_waits(stage: Stage) -> None:
    waiting: list[asyncio.Task[Any]] = []
    cleaned = []

    async def handler() -> None:
        task = current_task()
        assert task is not None
        waiting.append(task)
        try:
            await asyncio.sleep(10)
        finally:
            cleaned.append(True)

    outcome = stage.start(handler)
    await turns()
    waiting[0].cancel()
    _, error = await outcome
    assert getattr(error, "name", "") == "CancelledError"
    assert cleaned == [True]


# --- context variables ----------------------------------------------------------------------------

variable: ContextVar[str] = ContextVar("variable", default="unset")


@on_stage
async def test_what_a_handler_sets_the_next_one_does_not_see(stage: Stage) -> None:
    """As between the tasks of plain asyncio, although they share a spare."""

    async def set_it(wait: bool) -> str:
        variable.set("set")
        if wait:
            await asyncio.sleep(0)
        return variable.get()

    async def get_it() -> str:
        return variable.get()

    for wait in (False, True):
        assert await stage.play(lambda wait=wait: set_it(wait)) == "set"  # type: ignore[misc]
        assert await stage.play(get_it) == "unset"
    assert variable.get() == "unset"


@on_stage
async def test_a_handler_keeps_what_it_has_set_across_a_suspension(stage: Stage) -> None:
    async def handler() -> list[str]:
        variable.set("mine")
        child = asyncio.create_task(reads())
        await asyncio.sleep(0.01)
        return [variable.get(), await child]

    async def reads() -> str:
        return variable.get()

    async def other() -> None:
        variable.set("other")
        await asyncio.sleep(0.02)

    one = stage.start(handler)
    two = stage.start(other)
    assert (await one)[0] == ["mine", "mine"]
    await two


# --- the end of an object -------------------------------------------------------------------------


@on_stage
async def test_who_waits_for_a_handler_of_a_dead_object_is_told_at_once(stage: Stage) -> None:
    """L7: all calls in flight fail with the reason; of the code only ``finally`` runs."""
    ran = []

    async def handler() -> None:
        try:
            await asyncio.sleep(10)
            ran.append("goes on")
        finally:
            ran.append("cleans up")

    outcome = stage.start(handler)
    await turns()
    stage.owner.end()
    assert outcome.result() == (None, stage.owner.death)
    await turns()
    assert ran == ["cleans up"]
    assert not stage.owner.carriers


@on_stage
async def test_a_handler_that_ends_its_own_object_and_returns_is_told_the_reason(
    stage: Stage,
) -> None:
    async def handler() -> str:
        stage.owner.end()
        return "as if nothing had happened"

    assert await stage.start(handler) == (None, stage.owner.death)


@on_stage
async def test_a_handler_that_ends_its_own_object_does_not_go_on(stage: Stage) -> None:
    ran = []

    async def handler() -> None:
        stage.owner.end()
        try:
            await asyncio.sleep(0)
            ran.append("goes on")
        finally:
            ran.append("cleans up")

    outcome = stage.start(handler)
    assert outcome.result() == (None, stage.owner.death)
    await turns()
    assert ran == ["cleans up"]


@on_stage
async def test_tasks_of_a_dead_object_end_too(stage: Stage) -> None:
    """And those that its clean-up starts never begin."""
    ran = []
    late_tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ran.append("background cleans up")
            late_tasks.append(asyncio.create_task(late()))

    async def late() -> None:
        ran.append("late")

    async def handler() -> None:
        stage.owner.context.run(lambda: asyncio.create_task(background()))

    await stage.play(handler)
    await turns()
    stage.owner.end()
    await turns()
    assert ran == ["background cleans up"]
    assert not stage.owner.carriers


@on_stage
async def test_a_dead_object_may_clean_up_with_await_but_not_for_ever(stage: Stage) -> None:
    ran = []

    async def closes_its_connection() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(CLEANUP_S / 2)
            ran.append("closed")

    async def never_gives_up() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                ran.append("ignored")

    outcomes = [stage.start(closes_its_connection), stage.start(never_gives_up)]
    await turns()
    stage.owner.end()
    await asyncio.sleep(CLEANUP_S + 2)
    assert "closed" in ran
    assert not stage.owner.carriers
    await asyncio.gather(*outcomes)


# --- the gate -------------------------------------------------------------------------------------


@on_stage
async def test_no_step_of_a_handler_or_of_its_tasks_passes_a_closed_gate(stage: Stage) -> None:
    """G3; also of tasks that third-party code starts, and whatever they waited for."""
    steps = []
    released = asyncio.Event()

    async def third_party() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stepping, "anyio")

    async def stepping(name: str) -> None:
        await released.wait()
        steps.append(name)
        await asyncio.sleep(1)
        steps.append(name)

    async def handler() -> None:
        tasks = [asyncio.create_task(stepping("own")), asyncio.create_task(third_party())]
        await stepping("handler")
        await asyncio.gather(*tasks)

    outcome = stage.start(handler)
    await turns()
    section = Section(None, lambda: None)
    stage.owner.gate.block(section)
    stage.owner.gate.begin(section)
    released.set()
    await asyncio.sleep(5)
    assert steps == []
    stage.owner.gate.finish(section)
    await outcome
    assert sorted(steps) == ["anyio", "anyio", "handler", "handler", "own", "own"]


@on_stage
async def test_a_task_belongs_to_the_section_of_its_context(stage: Stage) -> None:
    """Not to that of whoever happens to make the task object."""
    section = Section(None, lambda: None)
    stage.owner.gate.block(section)
    stage.owner.gate.begin(section)
    context = stage.owner.context.copy()
    context.run(current_section.set, section)
    inside = stage.loop.create_task(asyncio.sleep(0, "inside"), context=context)
    outside = stage.loop.create_task(
        asyncio.sleep(0, "outside"), context=stage.owner.context.copy()
    )
    await turns()
    assert inside.done()
    assert not outside.done()
    stage.owner.gate.finish(section)
    assert await outside == "outside"


@on_stage
async def test_an_exception_that_waited_at_the_gate_is_still_raised(stage: Stage) -> None:
    future = stage.loop.create_future()

    async def handler() -> str:
        try:
            await future
        except ValueError:
            return "caught"
        return "lost"

    outcome = stage.start(handler)
    await turns()
    section = Section(None, lambda: None)
    stage.owner.gate.block(section)
    stage.owner.gate.begin(section)
    future.set_exception(ValueError())
    await turns()
    assert not outcome.done()
    stage.owner.gate.finish(section)
    assert await outcome == ("caught", None)


@on_stage
async def test_a_timeout_while_the_gate_holds_is_told_afterwards(stage: Stage) -> None:
    async def handler() -> str:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(100)
        except TimeoutError:
            return "late"
        return "in time"

    outcome = stage.start(handler)
    await turns()
    section = Section(None, lambda: None)
    stage.owner.gate.block(section)
    stage.owner.gate.begin(section)
    await asyncio.sleep(5)
    assert not outcome.done()
    stage.owner.gate.finish(section)
    assert await outcome == ("late", None)


@on_stage
async def test_while_a_step_runs_its_object_is_not_free(stage: Stage) -> None:
    """So no answer of another object can re-enter it in the middle of its own line."""
    free = []

    async def handler() -> None:
        await asyncio.sleep(0)
        free.append(stage.owner.free)
        await asyncio.sleep(0)
        free.append(stage.owner.free)

    await stage.start(handler)
    assert free == [False, False]
    assert stage.owner.free


# --- for whoever looks at tasks -------------------------------------------------------------------


@on_stage
async def test_a_task_shows_the_coroutine_that_it_carries(stage: Stage) -> None:
    async def named_handler() -> None:
        await asyncio.sleep(1)

    outcome = stage.start(named_handler)
    await turns()
    (carrier,) = stage.owner.carriers
    assert carrier.task is not None
    assert inspect.getcoroutinestate(carrier.task.get_coro()) == "CORO_SUSPENDED"  # type: ignore[arg-type]
    assert "named_handler" in repr(carrier.task)
    await outcome


@on_stage
async def test_create_task_takes_any_awaitable_in_an_app(stage: Stage) -> None:
    """``asyncio.create_task(stub.fetch(url))``, as with Cloudflare's own stubs."""

    class Answer:
        def __await__(self) -> Iterator[Any]:
            return asyncio.sleep(0, "answer").__await__()

    async def handler() -> Any:
        return await asyncio.create_task(Answer())  # type: ignore[arg-type]

    assert await stage.play(handler) == "answer"
    with pytest.raises(TypeError):
        await asyncio.create_task(Answer())  # type: ignore[arg-type]


def test_outside_an_app_tasks_are_plain() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(task_factory)
        task = asyncio.create_task(asyncio.sleep(0), name="plain")
        assert not isinstance(task.get_coro(), Carrier)
        assert task.get_name() == "plain"
        await task
        asyncio.get_running_loop().set_task_factory(None)

    virtual_time.run(main())
