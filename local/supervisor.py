"""The supervisor: keeps SHARDS shards and GATEWAYS gateways running, and stops them in order.

Theory of operation. Each member of the cluster has a keeper, a task that starts a process, waits
for its report, waits for its end, asks the restart policy (`local.restarts`) how long to wait, and
begins anew. Until every member has been ready once, a failure ends the whole start: a cluster that
cannot start says why and exits, and only one that has started is worth restarting. Stopping is a
walk over the roles in `STOP_ORDER`: gateways first, so that clients hear 1001 while the shards can
still take their closes, then shards.

A reload replaces the shards one after the other (`local.reload`): the successor is started beside
the old process and gets as far as it can; only then is the old one asked to make room.

Whatever happens to the supervisor itself, no child outlives it: see `local.child` and
`common.parent`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog

from common.errors import LimpetError
from common.ids import PARTITION_COUNT, Partition
from common.membership import changing_membership, membership_version
from common.placement import MAX_SHARDS, Placement, ShardIndex, moved
from common.process import STANDBY
from common.readiness import Failed
from common.settings import Settings
from local.child import Child, Member
from local.control import Control
from local.processes import with_import_path
from local.restarts import RestartPolicy, Restarts
from local.rundir import RunDir
from local.status import shard_states

STOP_ORDER = ("gateway", "shard")
START_TIMEOUT_S = 30.0
"""How long a process may take to say that it is ready; then it counts as failed and is ended."""

log = structlog.get_logger("supervisor")

STOP_MARGIN_S = 2.0
"""How much longer than STOP_TIMEOUT_S a process may take to end, before a reload ends it."""

SETTLE_LOOK_S = 0.02
"""How often to ask the shards whether their partitions are at rest."""
SCALE_PATIENCE = 8
"""How many drains a change of the number of shards may take: partitions go in batches."""

Command = Callable[[Member], Sequence[str]]


class StartError(LimpetError):
    """The cluster did not start. The message names the process and its reason."""


class ScaleError(LimpetError):
    """The number of shards could not be changed. The message says why, and what runs."""


class ReloadError(LimpetError):
    """The code could not be taken anew. The message names the process and its reason."""


def python_module(member: Member) -> Sequence[str]:
    """Return the command that runs a role's package with this interpreter.

    -P keeps the working directory out of the import path: a folder there that happens to be called
    `shard` must not be taken for ours.
    """
    return (sys.executable, "-P", "-m", member.role)


class Supervisor:
    """Runs one cluster until it is told to stop.

    Args:
        settings: handed to every process.
        command: how a member's process is started.
        prepare: called once the run directory is claimed and before any process is started; what it
            raises ends the run.
        on_ready: called once, when every process has said that it is ready.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Command = python_module,
        prepare: Callable[[], None] = lambda: None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._command = command
        self._prepare = prepare
        self._on_ready = on_ready
        self._policy = RestartPolicy(
            first_delay_s=settings.restart_backoff_min_s,
            max_delay_s=settings.restart_backoff_max_s,
            # Once it has lived as long as the longest wait, a death is an accident, not a habit.
            healthy_after_s=settings.restart_backoff_max_s,
        )
        self._children: dict[Member, Child] = {}
        self._keepers: dict[Member, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._lock_fd = -1
        self._successors: dict[Member, Child] = {}
        self._leaving: set[Member] = set()
        self._took_over: dict[Member, asyncio.Future[None]] = {}
        self._control = Control({"reload": self._reload_asked, "scale": self._scale_asked})
        self._shards = settings.shards
        self._reloading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start the cluster, keep it, and stop it on SIGTERM or SIGINT; SIGHUP reloads.

        Returns when every process has ended.

        Raises:
            ConfigError: the run directory cannot be claimed, or `prepare` found something wrong.
            StartError: a process did not become ready.
        """
        with RunDir.claim(
            self._settings.run_dir, patience_s=self._settings.stop_timeout_s
        ) as claimed:
            self._lock_fd = claimed.lock_fd
            self._prepare()
            self._set_members(self._shards)
            loop = asyncio.get_running_loop()
            handled = (signal.SIGTERM, signal.SIGINT)
            for number in handled:
                loop.add_signal_handler(number, self._on_signal, number)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            try:
                await self._start()
                if not self._stopping.is_set():
                    await self._control.start(self._settings.run_dir)
                    self._on_ready()
                await self._stopping.wait()
            finally:
                await self._control.close()
                await self._stop()
                for number in (*handled, signal.SIGHUP):
                    loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Begin to stop; `run` returns when it is done."""
        self._stopping.set()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("supervisor.stopping_at_once", signal=number.name)
            for child in self._children.values():
                child.kill()
        else:
            log.info("supervisor.stopping", signal=number.name)
            self.stop()

    # --------------------------------------------------------------- reload

    def _on_hangup(self) -> None:
        if self._control.busy:
            log.warning("reload.refused", reason="another command is under way")
        elif self._keepers and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.create_task(self._reload_logged(), name="reload")

    async def _reload_logged(self) -> None:
        try:
            await self.reload(lambda text: log.info("reload.progress", text=text))
        except LimpetError as error:
            log.error("reload.failed", error=str(error))

    async def _reload_asked(self, _: dict[str, object], say: Callable[[str], None]) -> None:
        await self.reload(say)

    async def reload(self, say: Callable[[str], None]) -> None:
        """Replace every shard by one that has loaded the app anew, one after the other.

        Raises:
            ReloadError: a successor could not be started; what ran goes on as it was.
        """
        for index in range(self._shards):
            member = Member("shard", index)
            began_at = time.monotonic()
            await self._replace(member)
            say(f"{member} runs the new code after {time.monotonic() - began_at:.2f} s")

    async def _replace(self, member: Member) -> None:
        environ = {**self._environ(member), STANDBY: "on"}
        successor = await Child.start(member, self._command(member), environ, self._lock_fd)
        try:
            report = await successor.report(START_TIMEOUT_S)
            if isinstance(report, Failed) or self._stopping.is_set():
                said = report.message if isinstance(report, Failed) else "the cluster stops"
                raise ReloadError(f"{member}: {said}\nThe old code keeps serving.")
        except BaseException:
            successor.kill()
            await successor.wait()
            successor.close()
            raise
        took_over = self._took_over[member] = asyncio.get_running_loop().create_future()
        self._successors[member] = successor
        old = self._children.get(member)
        if old is not None:
            old.terminate()
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s + STOP_MARGIN_S):
                await asyncio.shield(took_over)
        except TimeoutError:
            log.warning("process.cut_off", process=str(member))
            if old is not None:
                old.kill()
            await took_over
        finally:
            self._took_over.pop(member, None)

    # ---------------------------------------------------------------- scale

    async def _scale_asked(self, asked: dict[str, object], say: Callable[[str], None]) -> None:
        count = asked.get("shards")
        if type(count) is not int or not 1 <= count <= MAX_SHARDS:
            raise ScaleError(f"the number of shards must be 1 to {MAX_SHARDS}, not {count!r}")
        if self._reloading is not None and not self._reloading.done():
            raise ScaleError("a reload is under way")
        await self.scale(count, say)

    async def scale(self, count: int, say: Callable[[str], None]) -> None:
        """Have so many shards: start those that are missing, move partitions, end the surplus.

        Raises:
            ScaleError: a new shard could not be started, or partitions did not come to rest; what
                runs goes on.
        """
        before = self._shards
        if count == before:
            say(f"there are {count} shards already")
            return
        began_at = time.monotonic()
        joining = [Member("shard", index) for index in range(before, count)]
        try:
            await self._start_members(joining)
        except StartError as error:
            await self._end_members(joining)
            raise ScaleError(f"{error}\nThe cluster goes on with {before} shards.") from error
        for member in joining:
            say(f"{member} has started")
        self._shards = count
        self._set_members(count)
        await self._wait_settled(max(before, count))
        moved = len(moved_partitions(before, count))
        say(f"{moved} of {PARTITION_COUNT} partitions have moved")
        leaving = [Member("shard", index) for index in range(count, before)]
        await self._end_members(leaving)
        for member in leaving:
            say(f"{member} has left")
        say(f"{count} shards after {time.monotonic() - began_at:.2f} s")
        log.info("supervisor.scaled", before=before, shards=count)

    def _set_members(self, count: int) -> None:
        with changing_membership(self._settings.run_dir) as members:
            members.clear()
            members.update(range(count))

    async def _wait_settled(self, shards: int) -> None:
        """Until every partition is at home where it should be, with time for a drain and a crash.

        Raises:
            ScaleError: it takes too long.
        """
        limit_s = self._settings.drain_timeout_s * SCALE_PATIENCE + self._settings.stop_timeout_s
        give_up_at = time.monotonic() + limit_s
        version = membership_version(self._settings.run_dir)
        while True:
            states = await asyncio.to_thread(shard_states, self._settings.run_dir, range(shards))
            restless = [
                index
                for index, state in states.items()
                if not state.get("settled") or state.get("membership") != version
            ]
            if not restless or self._stopping.is_set():
                return
            if time.monotonic() >= give_up_at:
                names = ", ".join(f"shard {index}" for index in restless)
                raise ScaleError(f"after {limit_s:g} s partitions still move: {names}")
            await asyncio.sleep(SETTLE_LOOK_S)

    async def _end_members(self, members: Iterable[Member]) -> None:
        """Ask these to stop, and do not start them again."""
        ending: list[asyncio.Task[None]] = []
        for member in members:
            self._leaving.add(member)
            child = self._children.get(member)
            if child is not None:
                child.terminate()
            if member in self._keepers:
                ending.append(self._keepers.pop(member))
        if ending:
            limit_s = self._settings.stop_timeout_s + STOP_MARGIN_S
            _, late = await asyncio.wait(ending, timeout=limit_s)
            if late:
                for member in members:
                    if (child := self._children.get(member)) is not None:
                        child.kill()
                await asyncio.wait(late)
        self._leaving.difference_update(members)

    # ---------------------------------------------------------------- start

    async def _start(self) -> None:
        """Start every member; return when all are ready or a stop was asked for."""
        members = [Member("shard", i) for i in range(self._shards)]
        members += [Member("gateway", i) for i in range(self._settings.gateways)]
        await self._start_members(members)

    async def _start_members(self, members: Iterable[Member]) -> None:
        """Start these; return when all are ready or a stop was asked for.

        Raises:
            StartError: one of them did not become ready.
        """
        loop = asyncio.get_running_loop()
        readies: list[asyncio.Future[None]] = []
        for member in members:
            ready: asyncio.Future[None] = loop.create_future()
            readies.append(ready)
            keeper = asyncio.create_task(self._keep(member, ready), name=f"keep {member}")
            keeper.add_done_callback(partial(_fail_if_pending, ready, member))
            self._keepers[member] = keeper
        stopping = asyncio.create_task(self._stopping.wait())
        started = asyncio.gather(*readies)
        try:
            await asyncio.wait((started, stopping), return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        finally:
            stopping.cancel()
            started.cancel()
            with suppress(asyncio.CancelledError, StartError):
                await started

    async def _keep(self, member: Member, ready: asyncio.Future[None]) -> None:
        """Keep one member running. The first report, good or bad, resolves `ready`."""
        restarts = Restarts(self._policy)
        while not self._stopping.is_set() and member not in self._leaving:
            ended = await self._live(member, ready, restarts)
            if self._stopping.is_set() or not _succeeded(ready) or member in self._leaving:
                break
            if member in self._successors:
                continue  # it was asked to end
            # A random number that protects nothing: it only spreads restarts.
            restart = restarts.died(time.monotonic(), random.random())  # noqa: S311
            log.error(
                "process.died",
                process=str(member),
                how=ended,
                deaths=restart.deaths,
                restart_in_s=round(restart.delay_s, 3),
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(restart.delay_s):
                    await self._stopping.wait()

    async def _live(self, member: Member, ready: asyncio.Future[None], restarts: Restarts) -> str:
        """Start one process and see it through to its end; return what ended it, in words."""
        took_over = self._took_over.get(member)
        try:
            child = self._successors.pop(member, None) or await Child.start(
                member, self._command(member), self._environ(member), self._lock_fd
            )
        except OSError as error:
            said = f"could not be started: {error}"
            _fail(ready, f"{member} {said}")
            return said
        restarts.started()
        self._children[member] = child
        try:
            if self._stopping.is_set():
                child.terminate()
            report = await child.report(START_TIMEOUT_S)
            if isinstance(report, Failed):
                if self._stopping.is_set():
                    return await child.wait()
                _fail(ready, f"{member}: {report.message}")
                if took_over is not None and not took_over.done():
                    took_over.set_exception(ReloadError(f"{member}: {report.message}"))
                child.kill()
                await child.wait()
                return f"failed: {report.message}"
            restarts.ready(time.monotonic())
            if took_over is not None and not took_over.done():
                log.info("process.replaced", process=str(member), pid=child.pid)
                took_over.set_result(None)
            elif ready.done():
                log.info(
                    "process.back", process=str(member), pid=child.pid, restarts=restarts.total
                )
            else:
                ready.set_result(None)
            return await child.wait()
        finally:
            child.kill()
            child.close()
            del self._children[member]

    def _environ(self, member: Member) -> Mapping[str, str]:
        environ = {**os.environ, **self._settings.to_environ()}
        environ[f"{member.role.upper()}_INDEX"] = str(member.index)
        return with_import_path(environ)

    # ----------------------------------------------------------------- stop

    async def _stop(self) -> None:
        """Stop everything, role by role, within STOP_TIMEOUT_S; then end what is left."""
        self._stopping.set()
        if self._reloading is not None:
            self._reloading.cancel()
        for successor in self._successors.values():
            successor.kill()
        began_at = time.monotonic()
        for nth, role in enumerate(STOP_ORDER, start=1):
            share_s = self._settings.stop_timeout_s * nth / len(STOP_ORDER)
            await self._stop_role(role, began_at + share_s - time.monotonic())
        log.debug("supervisor.stopped", seconds=round(time.monotonic() - began_at, 3))

    async def _stop_role(self, role: str, timeout_s: float) -> None:
        keepers = {task for member, task in self._keepers.items() if member.role == role}
        if not keepers:
            return
        for child in self._of_role(role):
            child.terminate()
        _, late = await asyncio.wait(keepers, timeout=max(timeout_s, 0))
        if late:
            for child in self._of_role(role):
                log.warning("process.cut_off", process=str(child.member), pid=child.pid)
                child.kill()
        for result in await asyncio.gather(*keepers, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("supervisor.keeper_failed", exc_info=result)

    def _of_role(self, role: str) -> list[Child]:
        return [child for member, child in self._children.items() if member.role == role]


def moved_partitions(before: int, after: int) -> Mapping[Partition, object]:
    """The partitions whose home differs between two numbers of shards."""
    old, new = (Placement(map(ShardIndex, range(count))) for count in (before, after))
    return moved(old, new)


def _fail_if_pending(ready: asyncio.Future[None], member: Member, _: object) -> None:
    _fail(ready, f"{member} did not start")


def _fail(ready: asyncio.Future[None], message: str) -> None:
    if not ready.done():
        ready.set_exception(StartError(message))


def _succeeded(ready: asyncio.Future[None]) -> bool:
    return ready.done() and not ready.cancelled() and ready.exception() is None
