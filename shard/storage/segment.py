"""A segment: what a checkpoint replaced, so that each commit of its log can be gone back to.

It has the pages of the log's frames in their order, and *images*: each page that the log has
changed, as it was before. Undoing the images of the newest segment, then of the one before, and so
on, gives the state a log began with; its frames lead from there to any of its commits.

::

    head       fixed size, written last: number and salts of the log, sizes, checksums
    frames     pages, compressed as one stream (versions of one page are much alike)
    images     pages, likewise
    index      which pages these are, the points, checksums of the pages before and after

Reading and writing of one segment; which segments there are is :mod:`shard.storage.history`'s.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

import msgpack

from shard.storage.log_frames import read_frames, read_salts
from shard.storage.meta_page import META_PAGE
from shard.storage.points import Point, PointReader
from shard.storage.schema import PAGE_BYTES

_MAGIC: Final = b"LPH1"
_HEAD: Final = struct.Struct(">4sQ8sQQQQQIII")
HEAD_BYTES: Final = _HEAD.size + 4

_LEVEL: Final = 1
"""Of compression: a checkpoint holds its object up, so it must be quick."""
_SAMPLE_BYTES: Final = 32 * 1024
_WORTHWHILE: Final = 0.8
"""What does not shrink to this part of itself is stored as it is."""
_WRITE_BYTES: Final = 256 * 1024
_RUN_GAP_PAGES: Final = 8
_PAGES_AT_ONCE: Final = 256


class HistoryDamaged(Exception):  # noqa: N818 - what happened
    """What the history holds cannot be used. Says why."""


class BaseImage:
    """The database as it was before the log, read page by page.

    Args:
        fd: open on the database file.
        pages: how many it has.
        kept: pages that are no longer in the file, by number.
    """

    def __init__(self, fd: int, pages: int, kept: Mapping[int, bytes]) -> None:
        self.pages = pages
        self._fd = fd
        self._kept = kept

    def read(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """Read those of the pages that there are."""
        found: dict[int, bytes] = {}
        for first, last in _runs(n for n in numbers if n <= self.pages and n not in self._kept):
            data = os.pread(self._fd, (last - first + 1) * PAGE_BYTES, (first - 1) * PAGE_BYTES)
            for nth in range(last - first + 1):
                found[first + nth] = data[nth * PAGE_BYTES : (nth + 1) * PAGE_BYTES]
        wanted = {n: self._kept[n] for n in numbers if n in self._kept}
        return {**found, **wanted}

    def moved_images(self) -> Iterable[tuple[int, bytes]]:
        """The pages that may have been overwritten in the file since."""
        return self._kept.items()


@dataclass(frozen=True, slots=True)
class Index:
    """What a segment has.

    Attributes:
        base: the state the log began with.
        points: those after its commits.
        frames: the page of each frame that was kept.
        images: the pages that were changed or cut off, and existed before; ascending.
        after: checksum of each of them after the log; of no meaning if it was cut off.
    """

    base: Point
    points: list[Point]
    frames: array[int]
    images: array[int]
    after: array[int]


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment in a file.

    Attributes:
        path, offset: where it is.
        number: of its log.
        salts: of its log.
        first_ms, last_ms: times of its first and its last point.
        size: bytes, with its head.
    """

    path: str
    offset: int
    number: int
    salts: bytes
    first_ms: int
    last_ms: int
    _sizes: tuple[int, int, int]
    _checks: tuple[int, int, int]

    @property
    def size(self) -> int:
        return HEAD_BYTES + sum(self._sizes)

    def moved(self, path: str, offset: int) -> Segment:
        """The same segment at another place."""
        return Segment(
            path, offset, self.number, self.salts, self.first_ms, self.last_ms, self._sizes,
            self._checks,
        )  # fmt: skip

    def check(self) -> None:
        """Read all of it.

        Raises:
            HistoryDamaged: it is not whole.
        """
        for part in range(3):
            for _ in self._read(part):
                pass

    def index(self) -> Index:
        """Read what it has.

        Raises:
            HistoryDamaged, OSError: it cannot be read.
        """
        try:
            data = zlib.decompress(b"".join(self._read(2)))
            base, points, frames, images, after = msgpack.unpackb(data)
            return Index(
                Point(*base), [Point(*each) for each in points],
                _numbers(frames), _numbers(images), _numbers(after),
            )  # fmt: skip
        except (zlib.error, ValueError, TypeError, msgpack.UnpackException) as error:
            raise HistoryDamaged(f"{self.path}: the index at {self.offset}: {error}") from None

    def frames(self, index: Index, count: int) -> Iterator[tuple[int, bytes]]:
        """The first *count* frames that were kept: page numbers and contents."""
        return zip(index.frames[:count], self._pages(0), strict=False)

    def images(self, index: Index) -> Iterator[tuple[int, bytes]]:
        """The pages that were changed, as they were before."""
        return zip(index.images, self._pages(1), strict=True)

    def _pages(self, part: int) -> Iterator[bytes]:
        inflate = zlib.decompressobj()
        rest = b""
        for data in self._read(part):
            try:
                rest += inflate.decompress(data)
            except zlib.error as error:
                raise HistoryDamaged(f"{self.path}: {error}") from None
            whole = len(rest) // PAGE_BYTES * PAGE_BYTES
            for start in range(0, whole, PAGE_BYTES):
                yield rest[start : start + PAGE_BYTES]
            rest = rest[whole:]

    def _read(self, part: int) -> Iterator[bytes]:
        """The bytes of a part; an error at the end if they are not what was written."""
        at = self.offset + HEAD_BYTES + sum(self._sizes[:part])
        end = at + self._sizes[part]
        check = 0
        fd = os.open(self.path, os.O_RDONLY)
        try:
            while at < end:
                data = os.pread(fd, min(_WRITE_BYTES, end - at), at)
                if not data:
                    break
                at += len(data)
                check = zlib.crc32(data, check)
                yield data
        finally:
            os.close(fd)
        if at < end or check != self._checks[part]:
            raise HistoryDamaged(f"{self.path}: the segment at {self.offset} is not whole")


def read_segment(fd: int, path: str, offset: int) -> Segment | None:
    """The segment that begins at *offset*; ``None`` if none does."""
    data = os.pread(fd, HEAD_BYTES, offset)
    if len(data) < HEAD_BYTES or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:]):
        return None
    magic, number, salts, first, last, *rest = _HEAD.unpack(data[:-4])
    if magic != _MAGIC:
        return None
    sizes, checks = tuple(rest[:3]), tuple(rest[3:])
    return Segment(path, offset, number, salts, first, last, sizes, checks)


def write_segment(
    fd: int, path: str, offset: int, number: int, log_fd: int, count: int, base: BaseImage
) -> Segment:
    """Write what a checkpoint of the first *count* frames of a log will replace.

    Nothing is durable when it returns.

    Raises:
        OSError: there is no room, or the disk fails.
    """
    out = _Writer(fd, offset + HEAD_BYTES)
    reader = PointReader(base.read([META_PAGE]).get(META_PAGE, b""), base.pages)
    points: list[Point] = []
    frames = array("I")
    changed: set[int] = set()
    after: dict[int, int] = {}
    for several in read_frames(log_fd, count):
        olds = base.read(sorted({each.page for each in several} - after.keys()))
        contents: list[bytes] = []
        for frame in several:
            page, content = frame.page, frame.content
            old = None if page in after else olds.get(page)
            if old is None or old != content:
                frames.append(page)
                contents.append(content)
                after[page] = zlib.crc32(content)
                if old is not None:
                    changed.add(page)
            if (point := reader.read(frame, len(frames))) is not None:
                points.append(point)
        out.compress(b"".join(contents))
    out.end_part()
    left = points[-1].pages if points else base.pages
    changed.update(range(left + 1, base.pages + 1))  # cut off, and never written for that
    images = array("I", sorted(changed))
    for first in range(0, len(images), _PAGES_AT_ONCE):
        numbers = images[first : first + _PAGES_AT_ONCE]
        found = base.read(numbers)
        out.compress(b"".join([found[each] for each in numbers]))
    out.end_part()
    out.compress(msgpack.packb((
        astuple(reader.base), [astuple(each) for each in points], frames.tobytes(),
        images.tobytes(), array("I", [after.get(each, 0) for each in images]).tobytes(),
    )))  # fmt: skip
    out.end_part()
    times = [each.at_ms for each in points] or [reader.base.at_ms]
    head = _HEAD.pack(
        _MAGIC, number, read_salts(log_fd), times[0], times[-1], *out.sizes, *out.checks
    )
    write_all(fd, head + zlib.crc32(head).to_bytes(4), offset)
    written = read_segment(fd, path, offset)
    assert written is not None
    return written


class _Writer:
    """Writes the parts of a segment, compressed."""

    def __init__(self, fd: int, at: int) -> None:
        self.sizes: list[int] = []
        self.checks: list[int] = []
        self._fd = fd
        self._at = at
        self._begin()

    def _begin(self) -> None:
        self._deflate: zlib._Compress | None = None
        self._size = self._check = 0

    def compress(self, data: bytes) -> None:
        if self._deflate is None:
            self._deflate = zlib.compressobj(_level(data))
        self._write(self._deflate.compress(data))

    def end_part(self) -> None:
        self.compress(b"")
        assert self._deflate is not None
        self._write(self._deflate.flush())
        self.sizes.append(self._size)
        self.checks.append(self._check)
        self._begin()

    def _write(self, data: bytes) -> None:
        write_all(self._fd, data, self._at)
        self._at += len(data)
        self._size += len(data)
        self._check = zlib.crc32(data, self._check)


def _level(data: bytes) -> int:
    middle = max(0, (len(data) - _SAMPLE_BYTES) // 2)
    sample = data[middle : middle + _SAMPLE_BYTES]
    small = len(zlib.compress(sample, _LEVEL)) < _WORTHWHILE * len(sample)
    return _LEVEL if small or not sample else 0


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write *data*, all of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as few runs, with small gaps in them."""
    first = last = 0
    for number in numbers:
        if not first:
            first = last = number
        elif number - last > _RUN_GAP_PAGES or number - first >= _PAGES_AT_ONCE:
            yield first, last
            first = last = number
        else:
            last = number
    if first:
        yield first, last


def _numbers(data: bytes) -> Any:
    numbers = array("I")
    numbers.frombytes(data)
    return numbers
