"""One child process of the supervisor: started, known to be ready or not, stopped.

A child is told three things beside its settings, by descriptors it inherits:

* READY_FD: where it says, once, that it serves (or why it cannot);
* PARENT_FD: a pipe that closes when the supervisor is gone (`common.parent`);
* the run directory's lock, which it only has to hold (`local.rundir`).

Each child leads a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone
and the order of a stop stays the supervisor's. What the child started itself is killed with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from common.parent import PARENT_FD
from common.readiness import READY_FD, Failed, Report, Standby, read_report
from local.processes import describe_exit, kill_group


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A place in the cluster that one process after another fills."""

    role: str
    index: int

    def __str__(self) -> str:
        return f"{self.role} {self.index}"


class Child:
    """A running process. `start` makes one."""

    def __init__(
        self, member: Member, process: asyncio.subprocess.Process, ready_fd: int, parent_fd: int
    ) -> None:
        self.member = member
        self.process = process
        self._ready_fd = ready_fd
        self._parent_fd = parent_fd
        self._reader: asyncio.StreamReader | None = None
        self._pipe: asyncio.ReadTransport | None = None

    @classmethod
    async def start(
        cls, member: Member, command: Sequence[str], environ: Mapping[str, str], lock_fd: int
    ) -> Child:
        """Start `command` for `member`; its output is ours.

        Raises:
            OSError: the program cannot be started.
        """
        ready_fd, childs_ready_fd = os.pipe()
        childs_parent_fd, parent_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                env={
                    **environ,
                    READY_FD: str(childs_ready_fd),
                    PARENT_FD: str(childs_parent_fd),
                },
                pass_fds=(childs_ready_fd, childs_parent_fd, lock_fd),
                start_new_session=True,
            )
        except BaseException:
            os.close(ready_fd)
            os.close(parent_fd)
            raise
        finally:
            os.close(childs_ready_fd)
            os.close(childs_parent_fd)
        return cls(member, process, ready_fd, parent_fd)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    async def report(self, timeout_s: float) -> Report:
        """Return what the child says of its start: `Ready`, or `Failed` with a message for people.

        A child that ends without a word, or says nothing for `timeout_s` seconds, has failed too.
        After `Standby` there is another one to come.
        """
        if self._reader is None:
            reader = self._reader = asyncio.StreamReader()
            self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._ready_fd, "rb", 0)
            )
        said: Report | None = None
        try:
            async with asyncio.timeout(timeout_s):
                said = await read_report(self._reader)
                said = said or Failed(f"{await self.wait()} before it was ready")
        except TimeoutError:
            said = Failed(f"was not ready within {timeout_s:g} s")
        finally:
            if not isinstance(said, Standby):
                self._close_pipe()
        return said

    async def wait(self) -> str:
        """Wait for the process to end; return how it did, as words: "exited with code 1"."""
        return describe_exit(await self.process.wait())

    def terminate(self) -> None:
        """Ask the process to stop."""
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """End the process, and whatever it started in its session, at once."""
        kill_group(self.pid)

    def close(self) -> None:
        """Release the descriptors; the process has ended."""
        self._close_pipe()
        os.close(self._parent_fd)

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
