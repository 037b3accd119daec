"""Any schedule of events, ends and crashes of one shard's objects, against a model of plain lists.

Rules of :mod:`shard.slot` and :mod:`shard.lifecycle`, with everything around them real but the
gateway:

* each call is started at most once, by the life that is there, and ends exactly once: with its own
  result, or with an error;
* nothing begins while a section of its object holds events back;
* calls of one object start in the order in which they were made, frames of one client in the order
  in which they were sent, however their object sleeps, fails to wake or waits for its turn;
* a client that the shard has not closed loses no frame;
* an object is told of a client's end exactly once, unless it was reset: its clients are closed;
* at every moment the gateway knows each client of which a frame has not been handled to its end,
  and no others when all is quiet.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local.virtual_time import VirtualTimeLoop
from shard.lifecycle import STEPS, Action, Cause, State
from shard.slot import Slot
from tests.shard.kit import Client, Solo, solo, turns, until
from workers import DurableObject, Response, WebSocketPair

NAMES = ("a", "b", "c")
NAME = st.sampled_from(NAMES)
IDLE_S = 10.0
WAKE_SLICE_S = 0.01


class World:
    """What the objects have done, and what they shall do."""

    def __init__(self) -> None:
        self.lives: dict[str, int] = {}
        self.log: list[tuple[str, Any]] = []  # object, what has begun
        self.sections: dict[str, tuple[int, int]] = {}  # object -> life, call
        self.handled: set[Any] = set()  # frames, to their end
        self.gates: dict[Any, asyncio.Future[None]] = {}
        self.failing = False
        self.waking_takes_s = 0.0

    def begin(self, room: Room, what: Any) -> None:
        assert room.life == self.lives[room.name], "something runs in a life that is over"
        section = self.sections.get(room.name)
        assert section is None or section[0] != room.life, "something runs beside a section"
        self.log.append((room.name, what))

    def gate(self, what: Any) -> asyncio.Future[None]:
        gate = self.gates[what] = asyncio.get_running_loop().create_future()
        return gate

    def begun(self, name: str) -> list[Any]:
        return [what for each, what in self.log if each == name]


class Room(DurableObject):
    world: World

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.name = ctx.id.name
        world = self.world
        asyncio.get_running_loop()._now_s += world.waking_takes_s  # type: ignore[attr-defined]
        self.life = world.lives[self.name] = world.lives.get(self.name, 0) + 1
        if world.failing:
            raise ValueError("cannot be constructed")

    def fetch(self, request: Any) -> Response:
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        return Response(None, status=101, web_socket=client)

    def work(self, number: int, how: str) -> Any:
        self.world.begin(self, number)
        if how == "raise":
            raise KeyError(number)
        if how == "abort":
            self.ctx.abort("as asked")
        if how == "block":
            return self.ctx.blockConcurrencyWhile(lambda: self._section(number))
        return self._go_on(number) if how == "suspend" else number

    async def _section(self, number: int) -> int:
        self.world.sections[self.name] = self.life, number
        await self._go_on(number)
        del self.world.sections[self.name]
        return number

    def webSocketMessage(self, ws: Any, message: str) -> Any:
        client, number, how = message.split()
        what = (int(client), int(number))
        self.world.begin(self, what)
        if how == "suspend":
            return self._go_on(what)
        self.world.handled.add(what)
        return None

    async def _go_on(self, what: Any) -> Any:
        await self.world.gate(what)
        assert self.life == self.world.lives[self.name]
        self.world.handled.add(what)
        return what

    def webSocketClose(self, ws: Any, code: int, reason: str, was_clean: bool) -> None:
        self.world.begin(self, ("close", code))


class Member:
    """A client of a room."""

    def __init__(self, name: str, client: Client, number: int) -> None:
        self.name = name
        self.client = client
        self.number = number
        self.sent = 0
        self.left = False
        self.in_doubt = False  # its object left with frames of it

    @property
    def code(self) -> int:
        """By which its close event is known."""
        return 3000 + self.number


class SlotMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.world = Room.world = World()
        self.calls: dict[int, tuple[str, asyncio.Task[Any]]] = {}
        self.members: list[Member] = []
        self.context = solo(Room, idle_timeout_s=IDLE_S, wake_slice_s=WAKE_SLICE_S)
        self.one: Solo = self.run(self.context.__aenter__())

    def run(self, what: Any) -> Any:
        return self.loop.run_until_complete(what)

    def slot(self, name: str) -> Slot | None:
        namespace = self.one.shard.namespaces["ROOM"]
        return namespace.slots.get(namespace.ids.from_name(name).raw)

    # --- events --------------------------------------------------------------------------------

    @rule(
        names=st.lists(NAME, min_size=1, max_size=5),
        how=st.sampled_from(["return", "return", "suspend", "block", "raise", "abort"]),
    )
    def call(self, names: list[str], how: str) -> None:
        async def go() -> None:
            for name in names:
                number = len(self.calls)
                promise = self.one.stub("ROOM", name).work(number, how)
                self.calls[number] = name, asyncio.ensure_future(_outcome(promise))

        self.run(go())

    @precondition(lambda self: len(self.members) < 6)
    @rule(name=NAME)
    def join(self, name: str) -> None:
        async def go() -> None:
            await turns(5)
            if self.world.sections.get(name, (0, 0))[0] == self.world.lives.get(name):
                return  # its answer would have to wait
            gateway = self.one.gateway
            target = self.one.target("ROOM", name)
            answer = gateway.ask(target=target, headers=[["Upgrade", "websocket"]])
            await until(lambda: answer.is_there)
            if not answer.failures:
                assert answer.socket is not None
                client = gateway.attach(answer.socket[1])
                self.members.append(Member(name, client, len(self.members)))
                await turns(5)

        self.run(go())

    def present(self) -> list[Member]:
        return [each for each in self.members if not each.left and not each.client.closes]

    @precondition(lambda self: self.present())
    @rule(data=st.data(), count=st.integers(1, 3), how=st.sampled_from(["return", "suspend"]))
    def say(self, data: st.DataObject, count: int, how: str) -> None:
        for _ in range(count):
            member = data.draw(st.sampled_from(self.present()))
            member.sent += 1
            member.client.send(f"{member.number} {member.sent} {how}")
        self.run(turns(data.draw(st.integers(0, 4))))

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.present()))
        member.left = True
        member.client.close(member.code)

    # --- time ----------------------------------------------------------------------------------

    @precondition(lambda self: self.world.gates)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(sorted(self.world.gates, key=str)))
        gate = self.world.gates.pop(what)
        if not gate.done():
            gate.set_result(None)

    @rule(count=st.integers(1, 10))
    def turn(self, count: int) -> None:
        self.run(turns(count))

    @rule()
    def time_passes(self) -> None:
        self.run(asyncio.sleep(IDLE_S + 3))

    @rule(failing=st.booleans())
    def constructors_fail(self, failing: bool) -> None:
        self.world.failing = failing

    @rule(seconds=st.sampled_from([0.0, WAKE_SLICE_S / 2, 2 * WAKE_SLICE_S]))
    def waking_takes(self, seconds: float) -> None:
        self.world.waking_takes_s = seconds

    @rule(name=NAME, after=st.sampled_from([0, 0, 5]))
    def the_object_leaves(self, name: str, after: int) -> None:
        """As all do when their shard ends."""
        self.run(turns(after))
        slot = self.slot(name)
        if slot is None:
            return
        unhandled = {each.connection for each in slot.sockets if each.is_unhandled}
        for member in self.members:
            member.in_doubt |= member.client.connection in unhandled
        self.run(_soon(slot.evict))

    # --- what holds ----------------------------------------------------------------------------

    @invariant()
    def nothing_begins_twice_or_out_of_order(self) -> None:
        for name in NAMES:
            begun = self.world.begun(name)
            assert len(begun) == len(set(begun)), "an event was delivered twice"
            calls = [each for each in begun if isinstance(each, int)]
            assert calls == sorted(calls)
            for member in self.members:
                frames = [n for each, n in filter(_is_pair, begun) if each == member.number]
                if not member.in_doubt:
                    assert frames == list(range(1, len(frames) + 1))
                else:
                    assert frames == sorted(frames)

    @invariant()
    def who_may_have_lost_something_is_known(self) -> None:
        doubtful = self.one.gateway.may_have_lost()
        for member in self.present():
            sent = {(member.number, n + 1) for n in range(member.sent)}
            assert sent <= self.world.handled or member.client.connection in doubtful

    @invariant()
    def state_and_memory_agree(self) -> None:
        for slot in self.one.shard.namespaces["ROOM"].slots.values():
            awake = slot.activation is not None
            assert awake == (slot.state is State.AWAKE)
            assert (slot.state is State.DUE) <= bool(slot.pending)
            assert slot.state is not State.ASLEEP or not slot.pending
            assert slot.pending_bytes == sum(each.size for each in slot.pending)

    def teardown(self) -> None:
        """Left alone, everything comes to its end."""
        try:
            self.world.failing = False
            for _ in range(20):
                for gate in self.world.gates.values():
                    if not gate.done():
                        gate.set_result(None)
                self.run(turns(50))
            self.check_the_end()
        finally:
            self.run(self.context.__aexit__(None, None, None))
            self.run(turns())
            left = self.loop.leftovers()
            self.loop.close()
        assert left == []

    def check_the_end(self) -> None:
        self.nothing_begins_twice_or_out_of_order()
        for number, (name, task) in self.calls.items():
            assert task.done(), f"call {number} never ended"
            if task.result() == number:
                assert number in self.world.begun(name)
        for member in self.members:
            begun = self.world.begun(member.name)
            closes = begun.count(("close", member.code))
            assert closes <= 1
            if member.in_doubt:
                continue  # it would be closed with 1012
            assert not self.one.gateway.open[member.client.connection]
            if 1011 in [code for code, _ in member.client.closes]:
                continue  # its object was reset
            assert [n for each, n in filter(_is_pair, begun) if each == member.number] == list(
                range(1, member.sent + 1)
            )
            assert closes == member.left
            assert member.client.closes == ([(member.code, "")] if member.left else [])
        for name in NAMES:
            if any(each.in_doubt for each in self.members if each.name == name):
                continue
            here = [each for each in self.present() if each.name == name]
            slot = self.slot(name)
            held = 0 if slot is None or slot.held is None else len(slot.held)
            assert held == len(here), "closed sockets are listed, or open ones are not"
            assert slot is None or len(slot.sockets) == held


def _is_pair(what: Any) -> bool:
    return isinstance(what, tuple) and what[0] != "close"


async def _outcome(promise: Any) -> Any:
    try:
        return await promise
    except Exception as error:
        return repr(error)


async def _soon(function: Any) -> None:
    function()
    await turns(3)


TestSlots = SlotMachine.TestCase
TestSlots.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_every_state_is_reached_and_can_be_left() -> None:
    assert {step.state for step in STEPS.values()} == set(State)
    for state in State:
        assert STEPS[state, Cause.LEAVE].state is State.ASLEEP
    assert {step.action for step in STEPS.values()} == set(Action)
