"""What one message costs on the link: `python -m benchmarks.link`.

Two measurements. *Session*: queue, encode, decode and acknowledge within one process, no I/O: the
CPU that the protocol itself takes on both sides together. *Socket*: two processes joined by a Unix
socket, one sends as fast as credit lets it and the other acknowledges, as a gateway and a shard do.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from common.errors import LinkDown, LinkError
from common.link.driver import Link
from common.link.records import BLOB_FRAME, FRAMES, Record
from common.link.session import Hello, LinkSession
from common.link.unix import UnixTransport
from common.link.wire import HEAD, HEAD_BYTES

TEXT = "a message of 20 byte"
BLOB = bytes(64 * 1024)
RECEIVERS = 1000
ROUNDS = 5

Queue = Callable[[LinkSession | Link, int], None]


def hello(role: str) -> Hello:
    return Hello(
        role=role,
        index=0,
        instance="0" * 16,
        window_bytes=8 << 20,
        max_batch_bytes=64 << 20,
        generations={},
    )


def unicast_text(out: LinkSession | Link, count: int) -> None:
    unicast, text = out.unicast, TEXT
    for connection in range(count):
        unicast(connection, text)


def multicast_text(out: LinkSession | Link, count: int) -> None:
    multicast, text = out.multicast, TEXT + ""
    for connection in range(count):
        multicast(connection, text)


def unicast_blob(out: LinkSession | Link, count: int) -> None:
    unicast, blob = out.unicast, memoryview(BLOB)
    for connection in range(count):
        unicast(connection, blob[:])  # an object of its own, as messages are that differ


# What is sent in one turn of the loop, and how often a run repeats it.
CASES: list[tuple[str, Queue, int, int]] = [
    ("unicast 20 B, 1 a turn", unicast_text, 1, 20_000),
    ("unicast 20 B, 64 a turn", unicast_text, 64, 4_000),
    (f"multicast 20 B to {RECEIVERS}", multicast_text, RECEIVERS, 500),
    ("blob 64 KiB, 8 a turn", unicast_blob, 8, 500),
]


# --- session -------------------------------------------------------------------------------------


def pass_on(one: LinkSession, other: LinkSession) -> None:
    data = memoryview(b"".join(one.take()))
    start = 0
    while start < len(data):
        body_bytes, blob_bytes = HEAD.unpack_from(data, start)
        body = start + HEAD_BYTES
        start = body + body_bytes + blob_bytes
        other.receive(data[body : body + body_bytes], data[body + body_bytes : start])


def session_us(queue: Queue, count: int, turns: int) -> float:
    """CPU microseconds of a message through session, wire and session; the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        gateway = LinkSession(hello("gateway"), lambda: None, prompt_acks=False)
        shard = LinkSession(hello("shard"), lambda: None, prompt_acks=True)
        gateway.greet()
        shard.greet()
        for _ in range(2):
            pass_on(gateway, shard)
            pass_on(shard, gateway)
        began = time.process_time()
        for _ in range(turns):
            queue(gateway, count)
            pass_on(gateway, shard)
            pass_on(shard, gateway)
        best = min(best, time.process_time() - began)
    return best / (turns * count) * 1e6


# --- socket --------------------------------------------------------------------------------------


class Sink:
    """Counts what comes."""

    def __init__(self) -> None:
        self.messages = 0
        self.down = asyncio.get_running_loop().create_future()

    def link_up(self, link: Link, peer: Hello) -> None: ...

    def link_records(self, link: Link, records: list[Record]) -> None:
        for record in records:
            if record[0] == FRAMES:
                for target in record[1]:
                    self.messages += 1 if type(target) is int else len(target)
            elif record[0] == BLOB_FRAME:
                self.messages += 1

    def link_writable(self, link: Link) -> None: ...

    def link_down(self, link: Link, error: LinkError) -> None:
        self.down.set_result(error)


class Source:
    """Sends so many turns, never more than credit allows."""

    def __init__(self, queue: Queue, count: int, turns: int) -> None:
        self._queue, self._count, self._turns = queue, count, turns
        self.last_seq = 0
        self.finished = asyncio.get_running_loop().create_future()
        self._stopped = False

    def link_up(self, link: Link, peer: Hello) -> None:
        self.began = time.perf_counter()
        self._turn(link)

    def _turn(self, link: Link) -> None:
        if self._turns and not link.session.congested:
            self._turns -= 1
            self._queue(link, self._count)
            self.last_seq = link.session.filling_seq
            asyncio.get_running_loop().call_soon(self._turn, link)
        elif not self._turns and not self._stopped:
            self._stopped = True
            self._await_ack(link)

    def _await_ack(self, link: Link) -> None:
        if link.session.acked_seq < self.last_seq:
            asyncio.get_running_loop().call_later(0.0005, self._await_ack, link)
        else:
            self.finished.set_result(time.perf_counter() - self.began)

    def link_records(self, link: Link, records: list[Record]) -> None: ...

    def link_writable(self, link: Link) -> None:
        self._turn(link)

    def link_down(self, link: Link, error: LinkError) -> None: ...


async def serve(run_dir: Path) -> None:
    """The other process: one link, then the end."""
    sink = Sink()
    listener = await UnixTransport(run_dir).listen(
        "sink", lambda: Link(hello("shard"), sink, prompt_acks=True)
    )
    print("ready", flush=True)
    await sink.down
    await listener.close()
    print(sink.messages, flush=True)


async def send(run_dir: Path, queue: Queue, count: int, turns: int) -> float:
    source = Source(queue, count, turns)
    link = await UnixTransport(run_dir).dial(
        "sink", lambda: Link(hello("gateway"), source, prompt_acks=False)
    )
    duration_s: float = await source.finished
    link.close(LinkDown("done"))
    await asyncio.sleep(0)
    return duration_s


def socket_per_s(queue: Queue, count: int, turns: int) -> float:
    """Messages a second from one process to another; the best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as run_dir:
            command = [sys.executable, "-m", "benchmarks.link", "--serve", run_dir]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
                assert other.stdout is not None
                assert other.stdout.readline() == "ready\n"
                duration_s = uvloop.run(send(Path(run_dir), queue, count, turns))
                arrived = int(other.stdout.readline())
        assert arrived == count * turns, f"{arrived} of {count * turns} messages arrived"
        best = max(best, arrived / duration_s)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=__doc__)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--no-socket", action="store_true", help="only the session")
    options = parser.parse_args()
    if options.serve is not None:
        uvloop.run(serve(options.serve))
        return
    print(f"{'':28}{'session':>14}{'' if options.no_socket else 'two processes':>20}")
    for name, queue, count, turns in CASES:
        line = f"{name:28}{session_us(queue, count, turns):11.3f} µs"
        if not options.no_socket:
            line += f"{socket_per_s(queue, count, turns):17,.0f}/s"
        print(line, flush=True)


if __name__ == "__main__":
    main()
