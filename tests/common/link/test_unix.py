"""Links over real Unix sockets, on asyncio's loop and on uvloop."""

# ruff: noqa: ASYNC240 - a test may block

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from common.errors import LinkClosedByPeer, LinkDown, LinkError
from common.link.driver import Link
from common.link.records import Record
from common.link.session import Hello
from common.link.unix import MAX_PATH_BYTES, UnixTransport
from tests.common.link.support import Recorder, hello

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 20
Main = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    def run(main: Main) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await main()

        (asyncio.run if request.param == "asyncio" else uvloop.run)(bounded())

    return run


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


class Waiting(Recorder):
    """A recorder that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def told(self, event: str) -> None:
        await self.until(lambda: event in self.events)

    def link_up(self, link: Link, peer: Hello) -> None:
        super().link_up(link, peer)
        self.changed.set()

    def link_records(self, link: Link, records: list[Record]) -> None:
        super().link_records(link, records)
        self.changed.set()

    def link_writable(self, link: Link) -> None:
        super().link_writable(link)
        self.changed.set()

    def link_down(self, link: Link, error: LinkError) -> None:
        super().link_down(link, error)
        self.changed.set()


class Linked:
    """Both ends of a link in this process."""

    def __init__(
        self, shard: Waiting, gateway: Waiting, link: Link, shard_links: list[Link]
    ) -> None:
        self.shard, self.gateway = shard, gateway
        self.gateway_link, self.shard_links = link, shard_links


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[Linked]:
    shard, gateway, links = Waiting(), Waiting(), list[Link]()

    def accept() -> Link:
        links.append(Link(hello("shard"), shard, prompt_acks=True))
        return links[-1]

    transport = UnixTransport(folder)
    listener = await transport.listen("shard-0", accept)
    link = await transport.dial("shard-0", lambda: Link(hello(), gateway, prompt_acks=False))
    await gateway.told("up")
    await shard.told("up")
    try:
        yield Linked(shard, gateway, link, links)
    finally:
        link.close(LinkDown("test over"))
        await gateway.told("down")
        await shard.told("down")
        await listener.close()


def accept_nobody() -> Link:
    raise AssertionError("a link was made")


Run = Callable[[Main], None]


# --- messages ------------------------------------------------------------------------------------


def test_messages_of_all_sizes_cross_in_both_directions(run: Run, folder: Path) -> None:
    async def main() -> None:
        async with linked(folder) as line:
            sent: list[tuple[int, str | bytes]] = []
            for size in (0, 1, 125, 8191, 8192, 70_000, 300_000, 5_000_000):
                for payload in ("é" * (size // 2), os.urandom(size)):
                    sent.append((len(sent), payload))
            for message in sent:
                line.gateway_link.unicast(*message)
                line.shard_links[0].unicast(*message)
            await line.shard.until(lambda: len(line.shard.messages) == len(sent))
            await line.gateway.until(lambda: len(line.gateway.messages) == len(sent))
            assert line.shard.messages == line.gateway.messages == sent

    run(main)


def test_a_link_that_is_closed_says_why_to_the_other_process(run: Run, folder: Path) -> None:
    async def main() -> None:
        async with linked(folder) as line:
            line.gateway_link.unicast(1, "last words")
            line.gateway_link.close(LinkDown("upgrade"))
            await line.shard.told("down")
            assert line.shard.messages == [(1, "last words")]
            assert isinstance(line.shard.error, LinkClosedByPeer)
            assert str(line.shard.error) == "upgrade"

    run(main)


# --- who may -------------------------------------------------------------------------------------


def test_the_directory_is_made_for_its_owner_only(run: Run, folder: Path) -> None:
    async def main() -> None:
        async with linked(folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    run(main)


def test_a_directory_that_others_could_enter_is_closed_to_them(run: Run, folder: Path) -> None:
    async def main() -> None:
        folder.mkdir()
        folder.chmod(0o755)
        async with linked(folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    run(main)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SO_PEERCRED is Linux's")
def test_a_process_of_another_user_is_not_dialled(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        transport = UnixTransport(folder)
        listener = await transport.listen("shard-0", accept_nobody)
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        uid = os.getuid()
        with pytest.raises(LinkError, match=f"runs as uid {uid}, not 4242"):
            await transport.dial("shard-0", accept_nobody)
        await listener.close()

    run(main)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SO_PEERCRED is Linux's")
def test_a_process_of_another_user_is_not_let_in(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        transport = UnixTransport(folder)
        listener = await transport.listen("shard-0", accept_nobody)
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        reader, writer = await asyncio.open_unix_connection(str(transport.path("shard-0")))
        assert await reader.read() == b""  # not even greeted
        writer.close()
        await listener.close()

    run(main)


# --- the socket file -----------------------------------------------------------------------------


def test_a_socket_file_that_a_dead_process_left_is_replaced(run: Run, folder: Path) -> None:
    async def main() -> None:
        folder.mkdir()
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(folder / "shard-0.sock"))
        left.close()
        async with linked(folder) as line:
            assert line.gateway.events == ["up"]

    run(main)


def test_what_nobody_listens_on_is_told_with_its_path(run: Run, folder: Path) -> None:
    async def main() -> None:
        transport = UnixTransport(folder)
        with pytest.raises(LinkDown, match=r"run/shard-0\.sock: No such file"):
            await transport.dial("shard-0", accept_nobody)
        folder.mkdir()
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(folder / "shard-0.sock"))
        left.close()
        with pytest.raises(LinkDown, match=r"run/shard-0\.sock: Connection refused"):
            await transport.dial("shard-0", accept_nobody)

    run(main)


def test_a_listener_that_is_closed_removes_its_file_and_keeps_its_links(
    run: Run, folder: Path
) -> None:
    async def main() -> None:
        transport = UnixTransport(folder)
        shard, gateway = Waiting(), Waiting()
        listener = await transport.listen(
            "shard-0", lambda: Link(hello("shard"), shard, prompt_acks=True)
        )
        link = await transport.dial("shard-0", lambda: Link(hello(), gateway, prompt_acks=False))
        await gateway.told("up")
        await listener.close()
        await listener.close()
        assert list(folder.iterdir()) == []
        link.unicast(1, "still there")
        await shard.until(lambda: shard.messages == [(1, "still there")])
        link.close(LinkDown("test over"))
        await shard.told("down")
        await gateway.told("down")

    run(main)


def test_a_path_that_is_too_long_is_told_with_the_remedy(run: Run, folder: Path) -> None:
    async def main() -> None:
        longest = UnixTransport(folder / ("x" * (MAX_PATH_BYTES - len(f"{folder}//shard-0.sock"))))
        assert len(os.fsencode(longest.path("shard-0"))) == MAX_PATH_BYTES
        with pytest.raises(LinkError, match="set RUN_DIR to a shorter one"):
            longest.path("shard-10")
        with pytest.raises(LinkError, match="RUN_DIR"):
            await longest.listen("shard-10", accept_nobody)
        with pytest.raises(LinkError, match="RUN_DIR"):
            await longest.dial("shard-10", accept_nobody)
        listener = await longest.listen("shard-0", accept_nobody)  # this one just fits
        await listener.close()

    run(main)


def test_a_directory_that_cannot_be_made_is_an_error_with_its_path(run: Run, folder: Path) -> None:
    async def main() -> None:
        folder.write_text("a file")
        with pytest.raises(LinkError, match=r"cannot listen on .*shard-0\.sock: File exists"):
            await UnixTransport(folder).listen("shard-0", accept_nobody)

    run(main)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a full backlog waits elsewhere")
def test_a_listener_that_does_not_accept_is_an_error_and_no_link(run: Run, folder: Path) -> None:
    async def main() -> None:
        folder.mkdir()
        transport = UnixTransport(folder)
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
            busy.bind(str(transport.path("shard-0")))
            busy.listen(0)
            first.connect(str(transport.path("shard-0")))
            with pytest.raises(LinkDown, match=r"shard-0\.sock"):
                await transport.dial("shard-0", accept_nobody)

    run(main)


# --- processes -----------------------------------------------------------------------------------

OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from common.link.driver import Link
from common.link.unix import UnixTransport
from tests.common.link.support import Recorder, hello

async def main():
    await UnixTransport(Path(sys.argv[1])).listen(
        "shard-0", lambda: Link(hello("shard"), Recorder(), prompt_acks=True)
    )
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.processes
def test_a_peer_that_is_killed_is_noticed_at_once(
    run: Run, folder: Path, other_process: subprocess.Popen[str]
) -> None:
    async def main() -> None:
        gateway = Waiting()
        link = await UnixTransport(folder).dial(
            "shard-0", lambda: Link(hello(), gateway, prompt_acks=False)
        )
        await gateway.told("up")
        link.unicast(1, "x" * 100)
        killed_at = time.monotonic()
        other_process.send_signal(signal.SIGKILL)
        await gateway.told("down")
        assert time.monotonic() - killed_at < PATIENCE_S / 2
        assert type(gateway.error) is LinkDown
        assert gateway.events == ["up", "down"]

    run(main)


@pytest.mark.processes
def test_a_peer_that_is_stopped_is_left_when_too_much_waits_for_it(
    run: Run, folder: Path, other_process: subprocess.Popen[str]
) -> None:
    async def main() -> None:
        gateway = Waiting()
        link = await UnixTransport(folder).dial(
            "shard-0",
            lambda: Link(hello(), gateway, prompt_acks=False, max_queue_bytes=4 << 20),
        )
        await gateway.told("up")
        other_process.send_signal(signal.SIGSTOP)
        while link.is_open:
            link.unicast(1, bytes(100_000))
            await asyncio.sleep(0)
        await gateway.told("down")
        assert "the peer does not read" in str(gateway.error)

    run(main)
