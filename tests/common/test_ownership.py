"""Ownership is tested with real processes: that the kernel keeps the rule is the point of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.errors import ConfigError, HeldElsewhere
from common.ids import PARTITION_COUNT, Partition
from common.limits import raise_descriptor_limit
from common.ownership import FlockOwnership, Generation, Ownership, claim_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.file_lock import FileLock
    from common.ownership import IndexedRole

ROOT = Path(__file__).resolve().parents[2]
ALL = [Partition(n) for n in range(PARTITION_COUNT)]
P0, P1, P2 = ALL[:3]

HOLD = """
import sys
from pathlib import Path
from common.ownership import FlockOwnership, claim_index
what, folder, numbers = sys.argv[1], Path(sys.argv[2]), list(map(int, sys.argv[3:]))
if what == "partitions":
    kept = FlockOwnership(folder)
    kept.acquire(numbers)
else:
    kept = [claim_index(folder, "shard", numbers[0])]
print("holding", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(what: str, folder: Path, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds something, from the moment the block begins to its own end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, what, str(folder), *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "holding\n"
            yield child
        finally:
            child.kill()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[FlockOwnership]:
    ownership = FlockOwnership(tmp_path / "data")
    yield ownership
    for partition in ownership.held():
        ownership.release(partition)


def test_it_is_an_ownership(owner: FlockOwnership) -> None:
    interface: Ownership = owner
    assert interface.held() == {}


def test_each_acquisition_has_a_higher_generation(owner: FlockOwnership) -> None:
    assert owner.acquire([P0, P1, P0]) == {P0: 1, P1: 1}
    owner.release(P0)
    assert owner.acquire([P0, P1]) == {P0: 2, P1: 1}
    assert owner.generation(P0) == 2
    assert owner.generation(P2) is None
    assert owner.held() == {P0: 2, P1: 1}


def test_releasing_what_is_not_held_has_no_effect(owner: FlockOwnership) -> None:
    owner.release(P0)
    assert owner.held() == {}


def test_the_files_are_where_the_documentation_says(tmp_path: Path, owner: FlockOwnership) -> None:
    owner.acquire([Partition(7)])
    assert (tmp_path / "data" / "0007" / "owner").is_file()


@pytest.mark.processes
def test_a_partition_held_by_another_process_is_refused(
    tmp_path: Path, owner: FlockOwnership
) -> None:
    with process("partitions", tmp_path / "data", 1) as child:
        with pytest.raises(HeldElsewhere) as caught:
            owner.acquire([P0, P1, P2])
        assert caught.value.partition == P1
        assert f"partition 1 is held by pid {child.pid}" in str(caught.value)
        assert caught.value.retryable
        # All or nothing: others may have what this attempt took first.
        assert owner.held() == {}
        other = FlockOwnership(tmp_path / "data")
        other.acquire([P0, P2])
        other.release(P0)
        other.release(P2)


@pytest.mark.processes
def test_a_failed_acquisition_keeps_what_was_held_before(
    tmp_path: Path, owner: FlockOwnership
) -> None:
    owner.acquire([P0])
    with process("partitions", tmp_path / "data", 1), pytest.raises(HeldElsewhere):
        owner.acquire([P0, P1])
    assert owner.held() == {P0: 1}


@pytest.mark.processes
def test_the_kernel_releases_what_a_killed_process_held(
    tmp_path: Path, owner: FlockOwnership
) -> None:
    with process("partitions", tmp_path / "data", 0, 1) as child:
        child.kill()
        child.wait()
        assert owner.acquire([P0, P1]) == {P0: 2, P1: 2}


@pytest.mark.processes
def test_a_started_program_does_not_keep_the_lock(tmp_path: Path, owner: FlockOwnership) -> None:
    owner.acquire([P0])
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        owner.release(P0)
        assert owner.acquire([P0]) == {P0: 2}


def test_all_partitions_are_acquired_in_well_under_100_ms(
    tmp_path: Path, owner: FlockOwnership
) -> None:
    assert raise_descriptor_limit() > 2 * PARTITION_COUNT
    # The very first start makes 1,024 files; how long that takes is the file system's own affair.
    earlier = FlockOwnership(tmp_path / "data")
    earlier.acquire(ALL)
    for partition in ALL:
        earlier.release(partition)
    # CPU time of this process, so that a busy machine does not fail it.
    started_at = time.process_time()
    owner.acquire(ALL)
    assert time.process_time() - started_at < 0.1
    assert len(owner.held()) == PARTITION_COUNT


def test_a_data_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        FlockOwnership(tmp_path / "data").acquire([P0])


def test_the_lowest_free_index_is_claimed(tmp_path: Path) -> None:
    with ExitStack() as held:

        def claim(role: IndexedRole) -> tuple[int, FileLock]:
            index, lock = claim_index(tmp_path, role, 3)
            held.callback(lock.release)
            return index, lock

        first, lock = claim("shard")
        assert (first, claim("shard")[0]) == (0, 1)
        lock.release()
        assert claim("shard")[0] == 0
        assert claim("shard")[0] == 2
        # The roles count apart.
        assert claim("gateway")[0] == 0


def test_a_wanted_index_is_claimed_or_refused(tmp_path: Path) -> None:
    index, lock = claim_index(tmp_path / "run", "shard", 3, wanted=2)
    assert index == 2
    assert (tmp_path / "run" / "shard-2.lock").is_file()
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    with pytest.raises(HeldElsewhere, match=rf"shard index 2 in .* is held by pid {os.getpid()} "):
        claim_index(tmp_path / "run", "shard", 3, wanted=2)
    lock.release()


@pytest.mark.processes
def test_an_index_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    with process("index", tmp_path, 1) as child:
        with pytest.raises(HeldElsewhere, match="each of the 1 shard indices"):
            claim_index(tmp_path, "shard", 1)
        child.kill()
        child.wait()
        index, lock = claim_index(tmp_path, "shard", 1)
        assert index == 0
        lock.release()


def test_a_full_disk_leaves_nothing_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner = FlockOwnership(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            owner.acquire([Partition(1)])
        with pytest.raises(ConfigError, match="No space left on device"):
            claim_index(tmp_path, "shard", 1)
    assert owner.acquire([Partition(1)])
    index, lock = claim_index(tmp_path, "shard", 1)
    assert index == 0
    lock.release()
    owner.release(Partition(1))


def test_a_partition_held_by_another_cluster_is_hinted_at(tmp_path: Path) -> None:
    first, second = FlockOwnership(tmp_path), FlockOwnership(tmp_path)
    first.acquire([Partition(1)])
    with pytest.raises(HeldElsewhere, match="another cluster use DATA_DIR=") as caught:
        second.acquire([Partition(1)])
    assert str(tmp_path) in str(caught.value)
    first.release(Partition(1))


class TwoShards(RuleBasedStateMachine):
    """Two owners of one data directory against a plain model of who has what."""

    partitions = st.sets(st.integers(0, 4).map(Partition), max_size=3)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.owners = [FlockOwnership(self.folder), FlockOwnership(self.folder)]
        self.holder: dict[Partition, int] = {}
        self.last: dict[Partition, int] = {}

    @rule(who=st.integers(0, 1), wanted=partitions)
    def acquire(self, who: int, wanted: set[Partition]) -> None:
        if any(self.holder.get(partition, who) != who for partition in wanted):
            with pytest.raises(HeldElsewhere):
                self.owners[who].acquire(sorted(wanted))
            # What it took before it failed was given back, at a higher generation.
            for partition in sorted(wanted):
                if self.holder.get(partition, who) != who:
                    break
                if partition not in self.holder:
                    self.last[partition] = self.last.get(partition, 0) + 1
            return
        generations = self.owners[who].acquire(sorted(wanted))
        for partition in wanted:
            if partition not in self.holder:
                self.holder[partition] = who
                self.last[partition] = self.last.get(partition, 0) + 1
            assert generations[partition] == self.last[partition]

    @rule(who=st.integers(0, 1), partition=st.integers(0, 4).map(Partition))
    def release(self, who: int, partition: Partition) -> None:
        self.owners[who].release(partition)
        if self.holder.get(partition) == who:
            del self.holder[partition]

    @invariant()
    def each_partition_has_the_holder_of_the_model(self) -> None:
        for who, owner in enumerate(self.owners):
            assert owner.held() == {
                partition: Generation(self.last[partition])
                for partition, holder in self.holder.items()
                if holder == who
            }

    def teardown(self) -> None:
        for owner in self.owners:
            for partition in owner.held():
                owner.release(partition)
        shutil.rmtree(self.folder)


TestTwoShards = TwoShards.TestCase
TestTwoShards.settings = hypothesis_settings(max_examples=40, deadline=None)
