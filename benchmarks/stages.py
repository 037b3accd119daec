"""What each stage of one small message costs: `python -m benchmarks.stages`.

Each stage is run by itself in a loop, in one process and without sockets, so the figures say how
the time divides, not what a cluster does: system calls, cache misses and the turns of the event
loop come on top. See docs/one-message.md for the stages.
"""

from __future__ import annotations

import asyncio
import timeit
from collections.abc import Callable
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.link import hello
from common.link.records import FRAMES
from common.link.session import LinkSession
from common.link.wire import HEAD_BYTES, decode, encode
from gateway.frames import FrameParser, encode_message, small_text
from gateway.masking import apply_mask
from shard.activation import Activation
from shard.slot import Slot
from workers.events import MessageEvent
from workers.websocket import WebSocket, WebSocketPair

BATCH = 32
"""Messages that travel together, as with a few dozen busy clients."""
ROUNDS = 7
TEXT = "a message of 32 bytes, in ASCII."
ANSWER = "[Durable Object] currentlyConnectedWebSockets: 64"


def client_frame(text: str) -> bytes:
    """One masked text frame of less than 126 bytes."""
    key = b"\x12\x34\x56\x78"
    payload = bytearray(text.encode())
    apply_mask(key, payload)
    return bytes((0x81, 0x80 | len(payload))) + key + payload


def best_us(function: Callable[[], object], messages: int = 1) -> float:
    """Microseconds for each message, in the best of some rounds."""
    timer = timeit.Timer(function)
    count, _ = timer.autorange()
    return min(timer.repeat(ROUNDS, count)) / count / messages * 1e6


def queued(session: LinkSession) -> Callable[[], None]:
    """A batch of messages into the session; what it would encode is thrown away."""

    def run() -> None:
        for connection in range(BATCH):
            session.unicast(connection, TEXT)
        session._targets, session._payloads, session._filling_bytes = [], [], 0

    return run


class _Host:
    """A shard, as far as a slot asks."""

    max_pending_bytes = 1 << 20
    base_context = copy_context()
    enter_function = None

    def enter_context(self, context: Any, activation: Any) -> None: ...

    def socket_accepted(self, owner: Any, socket: Any) -> None: ...

    def slot_idle(self, slot: Any) -> None: ...

    def make_instance(self, activation: Any) -> Any:
        return object()


def handled(loop: asyncio.AbstractEventLoop, listener: Any) -> Callable[[], None]:
    """One message through an activation to a listener."""
    name = SimpleNamespace(name="bench", raw=b"")
    slot = Slot(cast(Any, name), "Bench", cast(Any, _Host()), loop)
    slot.call(lambda instance: (lambda: None, ()), lambda value, error: None)
    activation = cast(Activation, slot.activation)
    _, server = WebSocketPair()
    server.host = activation
    server.accept()
    server.divert(lambda message: None)
    server.addEventListener("message", listener(server))
    event = MessageEvent(TEXT, server)
    listeners = server.listeners("message")
    return lambda: activation.message(None, server, listeners, event)


def answering(server: WebSocket) -> Any:
    """The reference program's listener."""
    return lambda event: server.send(ANSWER)


def answering_async(server: WebSocket) -> Any:
    """The same as a coroutine that does not suspend."""

    async def on_message(event: Any) -> None:
        server.send(ANSWER)

    return on_message


async def stages() -> list[tuple[str, float]]:
    """Every stage's name, and what it costs."""
    loop = asyncio.get_running_loop()
    frame = client_frame(TEXT)
    records = [[FRAMES, list(range(BATCH)), [TEXT] * BATCH]]
    body = memoryview(b"".join(bytes(each) for each in encode(1, 1, records, [])))[HEAD_BYTES:]
    nothing = memoryview(b"")
    parser = FrameParser(1 << 20)
    session = LinkSession(hello("gateway"), lambda: None, prompt_acks=False)
    return [
        ("a frame becomes text, the fast way (small_text)", best_us(lambda: small_text(frame))),
        ("the same by the full parser (FrameParser.feed)", best_us(lambda: parser.feed(frame))),
        ("queue it for the link (LinkSession.unicast)", best_us(queued(session), BATCH)),
        ("pack a batch (wire.encode)", best_us(lambda: encode(1, 1, records, []), BATCH)),
        ("unpack and check it (wire.decode)", best_us(lambda: decode(body, nothing), BATCH)),
        ("run a plain listener that sends", best_us(handled(loop, answering))),
        ("run a coroutine listener that sends", best_us(handled(loop, answering_async))),
        ("make the frame of the answer (encode_message)", best_us(lambda: encode_message(ANSWER))),
    ]


def main() -> None:
    """Print the table."""
    print("| stage | µs a message |\n|---|--:|")
    for name, cost_us in asyncio.run(stages()):
        print(f"| {name} | {cost_us:.2f} |")
    print(f"\nBatches of {BATCH}, the best of {ROUNDS} rounds.")


if __name__ == "__main__":
    main()
