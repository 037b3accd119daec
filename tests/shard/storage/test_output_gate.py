"""The output gate as a machine, against a plain model; and at work in an object (§3.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import StorageError
from shard.storage.output_gate import OutputGate
from tests.shard.storage.support import ForgetfulDisk, Home
from workers.storage import DurableObjectStorage as Storage


class GateMachine(RuleBasedStateMachine):
    """What has left, and in which order, is what the rule says: no more and no less."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = OutputGate()
        self.left: list[int] = []
        self.dropped: list[int] = []
        self.sent: list[tuple[int, int]] = []  # number, the run it needs
        self.run = 1
        self.needed = 0
        self.committed: set[int] = set()
        self.durable: set[int] = set()
        self.failed = False

    @property
    def watermark(self) -> int:
        run = 0
        while run + 1 in self.durable:
            run += 1
        return run

    @precondition(lambda self: not self.failed)
    @rule()
    def write(self) -> None:
        self.gate.hold()
        self.needed = self.run

    @rule()
    def end_run(self) -> None:
        assert self.gate.end_run() == self.run
        self.committed.add(self.run)
        self.run += 1

    @precondition(lambda self: self.committed - self.durable)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.committed - self.durable)))
        self.durable.add(run)
        self.gate.settled(run)

    @rule(again=st.booleans())
    def send(self, again: bool) -> None:
        """Send something; with *again*, its release sends something more."""
        number = len(self.sent)
        self.sent.append((number, self.needed))
        if not self.gate.held:
            self.left.append(number)
            return

        def release() -> None:
            self.left.append(number)
            if again:
                self.send(False)

        self.gate.push(release, lambda error: self.dropped.append(number))

    @precondition(lambda self: not self.failed)
    @rule()
    def fail(self) -> None:
        self.failed = True
        self.gate.fail(ValueError())

    @invariant()
    def what_left_was_allowed_and_in_order(self) -> None:
        assert self.left == sorted(self.left)
        assert len({*self.left, *self.dropped}) == len(self.left) + len(self.dropped)
        if not self.failed:
            assert not self.dropped
            allowed = [number for number, needs in self.sent if needs <= self.watermark]
            assert self.left == allowed
            assert self.gate.held == (self.needed > self.watermark)
        else:
            assert self.gate.held
            assert sorted(self.left + self.dropped) == [number for number, _ in self.sent]


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_waiting_for_everything_does_not_hold_outputs() -> None:
    gate = OutputGate()
    told: list[str] = []
    run = gate.end_run()
    gate.wait(lambda: told.append("durable"), lambda error: told.append("lost"), open_run=False)
    assert not gate.held
    assert told == []
    gate.settled(run)
    assert told == ["durable"]


# --- at work in an object ----------------------------------------------------------------------


@pytest.fixture
def slow(home: Home) -> Home:
    """An object whose disk has not finished yet."""
    home.run(lambda s: s.kv.put("warm", 1))
    home.settle()
    home.waiting = []  # type: ignore[attr-defined]
    home.engine.syncer._submit = home.waiting.append  # type: ignore[method-assign,attr-defined]
    return home


def finish(home: Home) -> None:
    while home.waiting:  # type: ignore[attr-defined]
        home.waiting.pop(0)()  # type: ignore[attr-defined]
        home.turn(3)


def test_nothing_is_held_by_reading(slow: Home) -> None:
    slow.run(lambda s: s.kv.get("warm"))
    assert not slow.gate.held


def test_a_write_holds_what_comes_after_it_until_it_is_durable(slow: Home) -> None:
    sent: list[str] = []

    def body(s: Storage) -> None:
        assert not slow.gate.held
        s.kv.put("a", 1)
        assert slow.gate.held
        slow.gate.push(lambda: sent.append("one"))

    slow.run(body)
    slow.run(lambda s: slow.gate.push(lambda: sent.append("two")))
    slow.turn(5)
    assert sent == []
    finish(slow)
    assert sent == ["one", "two"]
    assert not slow.gate.held


def test_an_unconfirmed_write_holds_nothing(slow: Home) -> None:
    def body(s: Storage) -> None:
        s.put("a", 1, allowUnconfirmed=True)
        s.put({"b": 1}, {"allowUnconfirmed": True})
        s.delete("a", allow_unconfirmed=True)
        s.setAlarm(2_000_000_000_000, {"allowUnconfirmed": True})
        assert not slow.gate.held
        s.kv.put("c", 1)
        assert slow.gate.held

    slow.run(body)
    finish(slow)


def test_sync_waits_for_unconfirmed_writes_too_and_lets_others_in(slow: Home) -> None:
    async def body(s: Storage) -> str:
        s.put("a", 1, allowUnconfirmed=True)
        await s.sync()
        return "durable"

    outcome = slow.start(body)
    assert slow.run(lambda s: s.kv.get("a")) == 1
    slow.turn(10)
    assert outcome == []
    finish(slow)
    assert outcome == ["durable"]
    slow.run(lambda s: s.sync())


def test_sync_does_not_suspend_when_everything_is_durable(home: Home) -> None:
    async def body(s: Storage) -> None:
        await s.sync()

    assert home.run(body) is None


def test_a_transaction_holds_outputs_only_from_its_commit_on(slow: Home) -> None:
    async def body(s: Storage) -> None:
        async def closure(txn: Any) -> None:
            await txn.put("a", 1)
            assert not slow.gate.held
            await asyncio.sleep(0)
            assert not slow.gate.held

        await s.transaction(closure)
        assert slow.gate.held

    slow.run(body)
    finish(slow)


def test_what_a_rolled_back_transaction_wrote_holds_nothing(slow: Home) -> None:
    async def body(s: Storage) -> None:
        def closure(txn: Any) -> None:
            txn.put("a", 1)
            txn.rollback()

        await s.transaction(closure)

    slow.run(body)
    slow.turn(3)
    finish(slow)
    assert not slow.gate.held


def test_a_failed_commit_drops_what_waits_and_resets_the_object(tmp_path: Any) -> None:
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk)
    home.run(lambda s: s.kv.put("a", 1))
    home.settle()
    disk.error = OSError(5, "Input/output error")
    sent: list[str] = []
    lost: list[BaseException] = []

    def body(s: Storage) -> None:
        s.kv.put("a", 2)
        home.gate.push(lambda: sent.append("frame"), lost.append)

    home.run(body)
    home.turn(10)
    assert sent == []
    assert isinstance(lost[0], StorageError)
    assert not lost[0].retryable
    assert str(home.path) in str(lost[0])
    assert lost[0].durableObjectReset  # type: ignore[attr-defined]
    disk.error = None
    # What was not acknowledged is gone, and what was is there: the disk works again.
    assert home.run(lambda s: s.kv.get("a")) == 1
    assert home.lives == 2
    home.run(lambda s: s.kv.put("a", 3))
    home.settle()
    assert home.run(lambda s: s.kv.get("a")) == 3
    home.close()


def test_a_new_life_tells_nothing_of_what_the_last_one_has_not_made_durable(slow: Home) -> None:
    slow.run(lambda s: s.kv.put("a", 1))
    slow.turn(3)
    slow.slot.reset(ValueError())
    assert slow.run(lambda s: s.kv.get("a")) == 1
    assert slow.gate.held
    finish(slow)
    assert not slow.gate.held


def test_normal_durability_waits_for_no_disk(tmp_path: Any) -> None:
    disk = ForgetfulDisk()
    home = Home(tmp_path / "data", disk, durability="normal")
    home.durability = "normal"
    home.run(lambda s: s.kv.put("a", 1))
    assert not home.gate.held
    assert disk.syncs == 0
    home.crash()
    assert home.run(lambda s: s.kv.get("a")) == 1
    home.close()
