"""Syncs that the kernel waits for by itself: asynchronous ``fdatasync`` of Linux, io_submit(2).

A thread that waits for a disk costs far more than its wait: whenever it comes back it has to get
the interpreter from the event loop's thread, and both fall asleep over it several times. Here no
thread waits: one system call hands over the files of a whole turn of the loop, and one descriptor
tells that some of them are done. (io_uring could do the same; containers usually forbid it.)

The kernel calls the same function on the same open file as ``fdatasync`` does, so an outcome means
the same, and an error that it reports is not reported again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

Done: TypeAlias = Callable[[OSError | None], None]

SYNCS_AT_ONCE: Final = 64

_NUMBERS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Of the system calls io_setup, io_destroy, io_getevents and io_submit."""

# struct iocb and struct io_event of <linux/aio_abi.h>
_IOCB: Final = struct.Struct("<QIiHhIQQqQII")
_EVENT: Final = struct.Struct("<QQqq")
_FDSYNC: Final = 3
_TELL_DESCRIPTOR: Final = 1

_long = ctypes.c_long


class RefusedError(OSError):
    """The kernel has not taken a sync, so nothing has been tried."""


class AsyncSyncs(Protocol):
    """Syncs without a thread; used from one event loop."""

    @property
    def has_room(self) -> bool:
        """One more can be started."""

    def start(self, fd: int, done: Done) -> None:
        """Make the contents of *fd* durable; *done* is called on the loop, in a later turn.

        With ``None`` they last; with a :class:`RefusedError` nothing was tried; with another error
        they do not last. The caller keeps *fd* open until the end of this turn.
        """

    def close(self) -> None:
        """Wait for what is under way. It may not be told any more."""


class KernelSyncs:
    """See the module and :class:`AsyncSyncs`.

    Args:
        loop: told when some are done.
        count: how many can be under way.

    Raises:
        OSError: this system has no such thing, or forbids it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int = SYNCS_AT_ONCE) -> None:
        numbers = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
        if numbers is None or sys.byteorder != "little" or ctypes.sizeof(_long) != 8:
            raise OSError("known only of Linux on x86-64 and ARM64")
        setup, self._io_destroy, self._io_getevents, self._io_submit = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = _long
        self._loop = loop
        self._count = count
        self._blocks = ctypes.create_string_buffer(count * _IOCB.size)
        self._events = ctypes.create_string_buffer(count * _EVENT.size)
        self._list = (ctypes.c_void_p * count)()
        self._free = list(range(count))
        self._under_way: dict[int, Done] = {}
        self._asked: list[int] = []
        self._context = ctypes.c_void_p(0)
        self._call(setup, _long(count), ctypes.byref(self._context))
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self._fd, self._some_done)

    @property
    def has_room(self) -> bool:
        """See :class:`AsyncSyncs`."""
        return bool(self._free)

    def start(self, fd: int, done: Done) -> None:
        """See :class:`AsyncSyncs`."""
        place = self._free.pop()
        _IOCB.pack_into(
            self._blocks,
            place * _IOCB.size,
            *(place, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, _TELL_DESCRIPTOR, self._fd),
        )
        self._under_way[place] = done
        if not self._asked:
            self._loop.call_soon(self._submit)
        self._asked.append(place)

    def close(self) -> None:
        """See :class:`AsyncSyncs`."""
        if self._fd >= 0:
            self._submit()
            self._loop.remove_reader(self._fd)
            self._call(self._io_destroy, self._context)
            os.close(self._fd)
            self._fd = -1

    def _submit(self) -> None:
        """Hand over what this turn has asked for."""
        asked, self._asked = self._asked, []
        base = ctypes.addressof(self._blocks)
        while asked:
            for number, place in enumerate(asked):
                self._list[number] = base + place * _IOCB.size
            try:
                count = self._call(self._io_submit, self._context, _long(len(asked)), self._list)
            except OSError as error:
                # It is about the first; those behind it are tried again.
                refused = RefusedError(error.errno, error.strerror)
                self._loop.call_soon(self._finish, asked[0], refused)
                count = 1
            asked = asked[count:]

    def _some_done(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        count = self._call(
            *(self._io_getevents, self._context, _long(0), _long(self._count)), self._events, None
        )
        for place, error in outcomes(self._events.raw[: count * _EVENT.size]):
            self._finish(place, error)

    def _finish(self, place: int, error: OSError | None) -> None:
        done = self._under_way.pop(place)
        self._free.append(place)
        done(error)

    def _call(self, number: int, *arguments: object) -> int:
        result: int = self._syscall(_long(number), *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result


def outcomes(events: bytes) -> Iterator[tuple[int, OSError | None]]:
    """What io_getevents(2) has written: which are done, and how."""
    for place, _, result, _ in _EVENT.iter_unpack(events):
        yield place, None if result >= 0 else OSError(-result, os.strerror(-result))
