"""Waits for disks: many files at once, one wait for many commits of a file.

The kernel does it by itself where it can (:mod:`shard.storage.kernel_sync`): for the second and any
further sync of an open log. Threads do the rest: the first one, which syncs folders too,
checkpoints, and everything where the kernel cannot.

While a file is being synced, further commits of it gather; the next sync is for all of them. So a
busy object has as many commits in one wait as arrive during one, and a slow disk costs its objects
latency, nobody throughput, and the event loop nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final, Protocol, TypeAlias

import structlog

from shard.storage.kernel_sync import AsyncSyncs, KernelSyncs, RefusedError

log = structlog.get_logger(__name__)

Synced: TypeAlias = Callable[[BaseException | None], None]

_STOP: Final = None


class SyncedFile(Protocol):
    """A file that is only appended to. Compared by identity."""

    path: str

    def sync(self, end_bytes: int) -> None:
        """Make the first *end_bytes* bytes durable; on a thread.

        Raises:
            OSError: they may not be.
        """

    @property
    def plain_fd(self) -> int | None:
        """If just an ``fdatasync`` of this descriptor is needed now: it, else ``None``."""

    def synced(self, end_bytes: int) -> None:
        """An ``fdatasync`` of :attr:`plain_fd` has succeeded; on the loop.

        Raises:
            OSError: the first *end_bytes* bytes may not be durable all the same.
        """


class _Queue:
    """The commits of one file that are not durable yet."""

    __slots__ = ("file", "next", "underway")

    def __init__(self, file: SyncedFile) -> None:
        self.file = file
        self.underway: list[Synced] = []
        self.next: list[tuple[int, Synced]] = []


class Syncer:
    """Makes files durable, and runs what blocks on a bounded pool of threads.

    Used from one event loop.

    Args:
        loop: where outcomes are told.
        threads: how many there may be; with 0 there are none, and the loop itself waits: for tests
            on virtual time.
        kernel: makes what syncs without a thread; raises ``OSError`` where there is no such thing.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        kernel: Callable[[asyncio.AbstractEventLoop], AsyncSyncs] = KernelSyncs,
    ) -> None:
        self._loop = loop
        self._make_kernel = kernel
        self._kernel: AsyncSyncs | None = None
        self._tries_kernel = threads > 0
        self._max_threads = threads
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._queues: dict[SyncedFile, _Queue] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: deque[Callable[[], None]] = deque()
        self._telling = False
        self._lock = threading.Lock()
        self._closed = False

    # --- on the loop ---------------------------------------------------------------------------

    def sync(self, file: SyncedFile, end_bytes: int, synced: Synced) -> None:
        """Call *synced* on the loop once the first *end_bytes* of *file* last, or with why not.

        The calls for one file come in order; after one with an error all have one.
        """
        queue = self._queues.get(file)
        if queue is None:
            queue = self._queues[file] = _Queue(file)
            queue.next.append((end_bytes, synced))
            self._start(queue)
        else:
            queue.next.append((end_bytes, synced))

    def run(self, work: Callable[[], None], done: Synced) -> None:
        """Run blocking *work* on a thread, then *done* on the loop, with its exception if any."""

        def job() -> None:
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:
                error = raised
            self._tell(lambda: done(error))

        if self._max_threads:
            self._submit(job)
        else:
            job()  # at once: whoever waits for it would wait for the loop that it blocks

    def is_waiting_for(self, file: SyncedFile | None) -> bool:
        """That file is not durable yet."""
        return file in self._queues

    @property
    def busy(self) -> bool:
        """Some file is not durable yet."""
        return bool(self._queues)

    def close(self) -> None:
        """Finish what is under way and end the threads. Outcomes may not be told any more."""
        self._closed = True
        if self._kernel is not None:
            self._kernel.close()
        for _ in self._threads:
            self._jobs.put(_STOP)
        for thread in self._threads:
            thread.join()

    def _start(self, queue: _Queue) -> None:
        batch, queue.next = queue.next, []
        queue.underway = [synced for _, synced in batch]
        end_bytes = batch[-1][0]
        fd = queue.file.plain_fd
        if fd is None or not self._kernel_takes(fd, queue, end_bytes):
            self._start_on_thread(queue, end_bytes)

    def _start_on_thread(self, queue: _Queue, end_bytes: int) -> None:
        def job() -> None:
            error: BaseException | None = None
            try:
                queue.file.sync(end_bytes)
            except Exception as raised:
                error = raised
            self._tell(lambda: self._synced(queue, error))

        self._submit(job)

    def _kernel_takes(self, fd: int, queue: _Queue, end_bytes: int) -> bool:
        if not self._tries_kernel:
            return False
        if self._kernel is None:
            try:
                self._kernel = self._make_kernel(self._loop)
            except OSError as error:
                self._do_without_kernel(error)
                return False
        if not self._kernel.has_room:
            return False
        self._kernel.start(fd, partial(self._kernel_synced, queue, end_bytes))
        return True

    def _kernel_synced(self, queue: _Queue, end_bytes: int, error: OSError | None) -> None:
        if isinstance(error, RefusedError):
            self._do_without_kernel(error)
            self._start_on_thread(queue, end_bytes)
            return
        if error is None:
            try:
                queue.file.synced(end_bytes)
            except OSError as raised:
                error = raised
        self._synced(queue, error)

    def _do_without_kernel(self, error: OSError) -> None:
        if self._tries_kernel:
            self._tries_kernel = False
            log.info("storage.syncs_on_threads", reason=str(error))

    def _synced(self, queue: _Queue, error: BaseException | None) -> None:
        waiting, queue.underway = queue.underway, []
        if error is not None:
            waiting += [synced for _, synced in queue.next]
            queue.next = []
        if queue.next:
            self._start(queue)
        else:
            del self._queues[queue.file]
        for synced in waiting:
            try:
                synced(error)
            except Exception:
                log.exception("storage.outcome_failed", file=queue.file.path)

    def _submit(self, job: Callable[[], None]) -> None:
        if not self._max_threads:
            self._loop.call_soon(job)
            return
        self._jobs.put(job)
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
                return
        if len(self._threads) < self._max_threads:
            thread = threading.Thread(
                target=self._work, name=f"limpet-sync-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    # --- on the threads ------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _STOP:
            job()
            with self._lock:
                self._idle += 1

    def _tell(self, result: Callable[[], None]) -> None:
        with self._lock:
            self._results.append(result)
            if self._telling:
                return
            self._telling = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._closed and not self._loop.is_closed():
                raise

    def _deliver(self) -> None:
        with self._lock:
            results, self._results = self._results, deque()
            self._telling = False
        for result in results:
            result()
