"""Regular sockets between an object and a gateway (spec: websocket.md §3, §5 and §7)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.close_reasons import LOST_TEXT
from local import virtual_time
from local.virtual_time import on_virtual_time
from shard.slot import EVENT_OVERHEAD_BYTES
from shard.socket_end import MAX_UNATTACHED_BYTES
from shard.sockets import ATTACH_TIMEOUT_S
from tests.shard.kit import Client, Solo, solo, turns, until
from workers import DurableObject, Response, WebSocketPair
from workers.websocket import MAX_FRESH_INBOX_BYTES

KIB = 1024


class Server(DurableObject):
    """Accepts every socket; ``setup`` says what it does with it."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.sockets: list[Any] = []
        self.log: list[Any] = []
        self.go = asyncio.Event()

    def fetch(self, request: Any) -> Any:
        client, server = WebSocketPair()
        self.sockets.append(server)
        self.setup(server, request)
        return Response(None, status=101, web_socket=client)

    def setup(self, ws: Any, request: Any) -> None:
        ws.accept()
        ws.addEventListener("message", self.on_message)
        ws.addEventListener("close", self.on_close)
        ws.addEventListener("error", self.on_error)

    def on_message(self, event: Any) -> Any:
        self.log.append(event.data)
        event.target.send(event.data)

    def on_close(self, event: Any) -> Any:
        self.log.append((event.code, event.reason, event.wasClean))

    def on_error(self, event: Any) -> Any:
        self.log.append(f"error {event.message}")

    def block(self, seconds: float) -> None:
        self.ctx.blockConcurrencyWhile(lambda: asyncio.sleep(seconds))


async def connect(one: Solo, binding: str = "SERVER") -> Client:
    return await one.gateway.upgrade(target=one.target(binding))


def instance(one: Solo, binding: str = "SERVER") -> Any:
    return one.instance(binding)


# --- messages -------------------------------------------------------------------------------------


@on_virtual_time
async def test_text_and_bytes_arrive_as_what_they_are_and_in_order() -> None:
    """G4."""
    async with solo(Server) as one:
        client = await connect(one)
        sent: list[str | bytes] = ["a", b"b", "", b"", "ü\0", "x" * 200_000, b"y" * 200_000, "z"]
        for message in sent:
            client.send(message)
        await until(lambda: len(client.received) == len(sent))
        assert client.received == sent
        assert [type(each) for each in client.received] == [type(each) for each in sent]


class Early(Server):
    def setup(self, ws: Any, request: Any) -> None:
        super().setup(ws, request)
        ws.send("one")
        ws.send(b"two")
        ws.close(3000, "at once")


@on_virtual_time
async def test_what_is_sent_before_the_101_follows_it_in_order() -> None:
    """§7: sends + close inside fetch."""
    async with solo(Early) as one:
        client = await connect(one, "EARLY")
        await turns()
        assert client.received == ["one", b"two"]
        assert client.closes == [(3000, "at once")]
        client.close(3000)
        await turns()
        assert instance(one, "EARLY").log == [(3000, "", True)]
        assert one.is_empty()


class TooMuch(Server):
    def setup(self, ws: Any, request: Any) -> None:
        super().setup(ws, request)
        self.ws = ws

    def pour(self) -> int:
        for _ in range(17):
            self.ws.send(b"x" * (1 << 20))
        return int(self.ws.readyState)


@on_virtual_time
async def test_what_waits_for_the_gateway_is_bounded() -> None:
    """G6: 16 MiB, then the socket is lost."""
    assert MAX_UNATTACHED_BYTES == 16 << 20
    async with solo(TooMuch) as one:
        answer = await one.gateway.request(
            target=one.target("TOOMUCH"), headers=[["Upgrade", "websocket"]]
        )
        assert await one.stub("TOOMUCH").pour() == 3
        assert len(one.shard.sockets) == 0
        assert answer.socket is not None
        client = one.gateway.attach(answer.socket[1])
        await turns()
        assert [code for code, _ in client.closes] == [1012]
        assert instance(one, "TOOMUCH").log[0][0] == 1006


class Late(Server):
    """Accepts only when told to."""

    def setup(self, ws: Any, request: Any) -> None: ...

    def accept(self) -> None:
        super().setup(self.sockets[0], None)


@on_virtual_time
async def test_what_comes_before_accept_is_kept_in_order() -> None:
    """§7: accept() 300 ms after the response."""
    async with solo(Late) as one:
        client = await connect(one, "LATE")
        client.send("one")
        client.send("two")
        client.close(1000, "bye")
        await turns()
        assert instance(one, "LATE").log == []
        await one.stub("LATE").accept()
        await turns()
        assert instance(one, "LATE").log == ["one", "two", (1000, "bye", True)]
        instance(one, "LATE").sockets[0].send("too late")
        await turns()
        assert client.received == [], "its connection may be somebody else's by now"
        assert one.is_empty()


@on_virtual_time
async def test_a_socket_that_nobody_accepts_goes_with_its_client() -> None:
    """§4: the fd must not stay; its Close is answered by the shard."""
    for code, answered in ((1005, None), (3001, 3001)):
        async with solo(Late) as one:
            client = await connect(one, "LATE")
            client.close(code)
            await turns()
            assert client.closes == [(answered, "")]
            assert one.is_empty()
    async with solo(Late) as one:
        client = await connect(one, "LATE")
        client.vanish()
        await turns()
        assert one.is_empty()


@on_virtual_time
async def test_what_waits_for_accept_is_bounded() -> None:
    """G6: 1 MiB, small messages with what they cost; then 1013, and one close event if accepted."""
    for size in (0, 100 * KIB):
        async with solo(Late, socket_buffer_bytes=1 << 30) as one:
            client = await connect(one, "LATE")
            for _ in range(MAX_FRESH_INBOX_BYTES // (size + EVENT_OVERHEAD_BYTES) + 2):
                client.send(b"x" * size)
            await turns()
            assert [code for code, _ in client.closes] == [1013]
            assert one.is_empty()
            await one.stub("LATE").accept()
            await turns()
            (event,) = instance(one, "LATE").log
            assert (event[0], event[2]) == (1006, False)


@on_virtual_time
async def test_a_reset_reaches_sockets_that_were_accepted_after_the_response() -> None:
    async with solo(Late) as one:
        client = await connect(one, "LATE")
        await turns()  # the gateway has attached
        await one.stub("LATE").accept()
        one.slot("LATE").reset(ValueError("reset"))
        await turns()
        assert client.closes == [(1011, "Durable Object was reset")]
        assert one.is_empty()


# --- closing --------------------------------------------------------------------------------------


class Closer(Server):
    """Closes in its close listener as the request's URL says."""

    def setup(self, ws: Any, request: Any) -> None:
        super().setup(ws, request)
        self.how = request.url.rpartition("/")[2]

    def on_close(self, event: Any) -> Any:
        super().on_close(event)
        ws = event.target
        match self.how:
            case "echo":
                ws.close(event.code, "Durable Object is closing WebSocket")
            case "other":
                ws.send("last words")
                ws.close(4000, "mine")
            case "raise":
                raise ValueError("in a close listener")
            case "later":
                return self.close_later(ws)
            case _:
                pass
        return None

    async def close_later(self, ws: Any) -> None:
        await asyncio.sleep(1)
        ws.close(4001, "later")


async def closing(how: str, code: int = 1000) -> tuple[Client, Any, Solo]:
    async with solo(Closer) as one:
        client = await one.gateway.upgrade(f"http://x/{how}", target=one.target("CLOSER"))
        client.close(code, "bye")
        await asyncio.sleep(2)
        assert one.is_empty()
        return client, instance(one, "CLOSER").log, one


@pytest.mark.parametrize(
    ("how", "code", "answer"),
    [
        ("nothing", 1000, (1000, "")),
        ("nothing", 4999, (4999, "")),
        ("nothing", 1005, (None, "")),
        ("raise", 1001, (1001, "")),
        ("later", 1000, (4001, "later")),
        ("other", 1000, (4000, "mine")),
        ("echo", 1000, (1000, "Durable Object is closing WebSocket")),
        ("echo", 3999, (3999, "Durable Object is closing WebSocket")),
        ("echo", 1005, (None, "")),
    ],
)
def test_the_apps_own_close_wins_else_the_clients_code_is_answered(
    how: str, code: int, answer: tuple[int | None, str]
) -> None:
    """§3, §7 as decided; close(code just received) never throws: 1005 is an empty Close."""

    async def main() -> None:
        client, log, _ = await closing(how, code)
        assert client.closes == [answer]
        assert log == [(code, "bye", True)]
        assert client.received == (["last words"] if how == "other" else [])

    virtual_time.run(main(), check_leftovers=True)


@on_virtual_time
async def test_close_1006_in_the_listener_of_a_lost_socket_just_ends() -> None:
    """§3: the count goes down for every way a client can leave."""
    async with solo(Closer) as one:
        client = await one.gateway.upgrade("http://x/echo", target=one.target("CLOSER"))
        client.vanish(LOST_TEXT)
        await turns()
        assert client.closes == [(1006, "")]
        assert instance(one, "CLOSER").log == [(1006, LOST_TEXT, False)]
        assert instance(one, "CLOSER").sockets[0].readyState == 3
        assert one.is_empty()


@on_virtual_time
async def test_after_our_close_messages_are_delivered_until_the_clients_close() -> None:
    """§7, last row."""
    async with solo(Server) as one:
        client = await connect(one)
        ws = instance(one).sockets[0]
        ws.removeEventListener("message", instance(one).on_message)
        ws.addEventListener("message", lambda event: instance(one).log.append(event.data))
        ws.close(1000, "enough")
        assert ws.readyState == 2
        client.send("one more")
        client.close(1000)
        await turns()
        assert instance(one).log == ["one more", (1000, "", True)]
        assert client.closes == [(1000, "enough")]
        assert ws.readyState == 3
        assert one.is_empty()


@on_virtual_time
async def test_exactly_one_close_event_however_often_the_end_is_told() -> None:
    """G5."""
    async with solo(Server) as one:
        client = await connect(one)
        client.close(1000)
        client.close(1000)
        client.vanish()
        await turns()
        client.vanish()
        await one.cut()
        assert instance(one).log == [(1000, "", True)]


@on_virtual_time
async def test_a_client_that_vanishes_after_our_close_gives_one_close_event() -> None:
    async with solo(Server) as one:
        client = await connect(one)
        instance(one).sockets[0].close(1000)
        client.vanish("gone")
        await turns()
        assert instance(one).log == [(1006, "gone", False)]
        assert one.is_empty()


class Held(Server):
    """The same with hibernatable sockets."""

    def setup(self, ws: Any, request: Any) -> None:
        self.ctx.acceptWebSocket(ws)

    def webSocketMessage(self, ws: Any, message: Any) -> None:
        self.log.append(message)
        ws.send(message)

    def webSocketClose(self, ws: Any, code: int, reason: str, was_clean: bool) -> None:
        self.log.append((code, reason, was_clean))


@pytest.mark.parametrize("binding", ["SERVER", "HELD"])
@pytest.mark.parametrize("busy", [False, True])
@on_virtual_time
async def test_what_came_before_the_end_is_answered(binding: str, busy: bool) -> None:
    """websocket.md §2; the gateway is told behind the answers, for it waits (gateway.closing)."""
    async with solo(Server, Held) as one:
        client = await connect(one, binding)
        if busy:
            await one.stub(binding).block(1)
        for number in range(10):
            client.send(str(number))
        client.vanish(LOST_TEXT)
        await turns()
        if busy:
            assert not client.received
            assert not client.closes
            await asyncio.sleep(2)
        answers = [str(number) for number in range(10)]
        assert client.received == answers
        assert client.closes == [(1006, "")]
        assert instance(one, binding).log == [*answers, (1006, LOST_TEXT, False)]
        assert one.is_empty()


@pytest.mark.parametrize("binding", ["SERVER", "HELD"])
@on_virtual_time
async def test_the_gateway_goes_while_a_lost_client_is_still_answered(binding: str) -> None:
    async with solo(Server, Held) as one:
        client = await connect(one, binding)
        await one.stub(binding).block(1)
        client.send("x")
        client.vanish(LOST_TEXT)
        await turns()
        await one.cut()
        await asyncio.sleep(2)
        assert instance(one, binding).log == ["x", (1006, LOST_TEXT, False)]
        assert one.is_empty()


@on_virtual_time
async def test_send_after_the_client_is_lost_is_dropped() -> None:
    """§7."""
    async with solo(Server) as one:
        client = await connect(one)
        client.vanish()
        await turns()
        instance(one).sockets[0].send("into the void")
        await turns()
        assert client.received == []


# --- listeners that fail --------------------------------------------------------------------------


class Failing(Server):
    def setup(self, ws: Any, request: Any) -> None:
        super().setup(ws, request)
        ws.addEventListener("message", lambda event: self.log.append("second listener"))

    def on_message(self, event: Any) -> Any:
        event.target.send("before")
        if event.data == "sync":
            raise ValueError("boom")
        if event.data == "async":
            return self.fail_later()
        return None

    async def fail_later(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("boom later")


@on_virtual_time
async def test_a_listener_that_raises_ends_that_connection_only() -> None:
    """§5 (c): 1011, behind what was sent before; the second listener runs; one error event."""
    async with solo(Failing) as one:
        client, other = await connect(one, "FAILING"), await connect(one, "FAILING")
        client.send("sync")
        await turns()
        assert client.received == ["before"]
        assert [code for code, _ in client.closes] == [1011]
        assert instance(one, "FAILING").log == [
            "second listener",
            "error Uncaught ValueError: boom",
        ]
        client.close(1011)
        other.send("hello")
        await turns()
        assert other.received == ["before"]
        assert other.closes == []
        assert instance(one, "FAILING").log[2:] == [(1011, "", True), "second listener"]


@on_virtual_time
async def test_a_coroutine_listener_that_raises_is_only_logged() -> None:
    """§5 (c), second row."""
    async with solo(Failing) as one:
        client = await connect(one, "FAILING")
        client.send("async")
        await turns()
        client.send("hello")
        await turns()
        assert client.received == ["before", "before"]
        assert client.closes == []


# --- attaching ------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_gateway_that_never_attaches_is_waited_for_10_s() -> None:
    async with solo(Server) as one:
        headers = [["Upgrade", "websocket"]]
        answer = await one.gateway.request(target=one.target("SERVER"), headers=headers)
        await asyncio.sleep(ATTACH_TIMEOUT_S - 0.5)
        assert instance(one).log == []
        await asyncio.sleep(1)
        assert instance(one).log == [(1006, LOST_TEXT, False)]
        assert one.is_empty()
        assert answer.socket is not None
        late = one.gateway.attach(answer.socket[1])
        await turns()
        assert [code for code, _ in late.closes] == [1012]
    assert ATTACH_TIMEOUT_S == 10


@on_virtual_time
async def test_a_socket_whose_response_nobody_waits_for_is_withdrawn() -> None:
    class Slow(Server):
        async def fetch(self, request: Any) -> Any:
            await asyncio.sleep(1)
            return super().fetch(request)

    async with solo(Slow) as one:
        answer = one.gateway.ask(target=one.target("SLOW"), headers=[["Upgrade", "websocket"]])
        await asyncio.sleep(0.5)
        one.gateway.cancel(answer)
        await asyncio.sleep(1)
        assert instance(one, "SLOW").log == [(1006, LOST_TEXT, False)]
        assert one.is_empty()


@on_virtual_time
async def test_a_gateway_that_goes_takes_its_clients_along() -> None:
    """Each gets its close event, those of other gateways nothing."""
    async with solo(Server) as one:
        await connect(one)
        await connect(one)
        other = await one.connect(1)
        stays = await other.upgrade(target=one.target("SERVER"))
        first_line = one.network.lines["shard-0"][0]
        first_line[0].cut()
        await turns()
        assert instance(one).log == [(1006, LOST_TEXT, False)] * 2
        stays.send("still here")
        await turns()
        assert stays.received == ["still here"]
        assert len(one.shard.sockets) == 1


@on_virtual_time
async def test_nothing_of_a_closed_socket_stays() -> None:
    async with solo(Server) as one:
        clients = [await connect(one) for _ in range(5)]
        server = instance(one)
        references = [weakref.ref(ws) for ws in server.sockets]
        for number, client in enumerate(clients):
            client.send("hello")
            client.close(1000) if number % 2 else client.vanish()
        await turns()
        assert one.is_empty()
        assert not one.slot("SERVER").sockets
        assert not one.activation("SERVER").regular_sockets
        server.sockets.clear()
        gc.collect()
        assert [each() for each in references] == [None] * 5


# --- flow control and what is not handled yet -----------------------------------------------------


class Slow(Server):
    def on_message(self, event: Any) -> Any:
        return self.handle(event)

    async def handle(self, event: Any) -> None:
        self.log.append(len(event.data))
        await self.go.wait()


@on_virtual_time
async def test_a_slow_handler_stops_its_own_client_and_no_other() -> None:
    """G6: PAUSE beyond SOCKET_BUFFER_BYTES of unhandled messages, RESUME at half of it."""
    async with solo(Slow, socket_buffer_bytes=64 * KIB) as one:
        client, other = await connect(one, "SLOW"), await connect(one, "SLOW")
        for _ in range(6):
            client.send(b"x" * 10 * KIB)
        other.send("small")
        await turns()
        assert not client.paused
        client.send(b"x" * 10 * KIB)
        await turns()
        assert client.paused
        assert not other.paused
        instance(one, "SLOW").go.set()
        await turns()
        assert not client.paused


@on_virtual_time
async def test_messages_that_wait_for_a_busy_object_count_as_well() -> None:
    async with solo(Server, socket_buffer_bytes=64 * KIB) as one:
        client = await connect(one)
        await one.stub("SERVER").block(5)
        for _ in range(7):
            client.send(b"x" * 10 * KIB)
        await turns()
        assert client.paused
        await asyncio.sleep(6)
        assert not client.paused
        assert len(client.received) == 7


@on_virtual_time
async def test_empty_messages_are_not_free_of_charge() -> None:
    async with solo(Slow, socket_buffer_bytes=4 * KIB) as one:
        client = await connect(one, "SLOW")
        for _ in range(100):
            client.send("")
        await turns()
        assert client.paused
        instance(one, "SLOW").go.set()
        await turns()


@on_virtual_time
async def test_an_overloaded_object_closes_with_1013_and_loses_nothing_silently() -> None:
    """G6: nothing that came after a dropped message is delivered; the close event is."""
    async with solo(Server, max_pending_bytes=100 * KIB) as one:
        client, other = await connect(one), await connect(one)
        await one.stub("SERVER").block(5)
        for number in range(12):
            client.send(f"{number} " + "x" * 10 * KIB)
        await turns()
        client.send("after the gap")
        other.close(1000)
        await asyncio.sleep(6)
        assert [code for code, _ in client.closes] == [1013]
        log = instance(one).log
        told = [each if isinstance(each, tuple) else each.split()[0] for each in log]
        delivered = [each for each in told if isinstance(each, str)]
        assert delivered == [str(number) for number in range(len(delivered))]
        assert "after" not in delivered
        assert (1000, "", True) in told
        assert [each for each in told if each[0] == 1006] == [
            (1006, "The Durable Object is overloaded.", False)
        ]
        assert one.is_empty()


class Script(Server):
    """Its listener does what each message says, and knows which frames are not handled yet."""

    def setup(self, ws: Any, request: Any) -> None:
        if request.url.endswith("late"):
            return
        super().setup(ws, request)

    def accept_all(self) -> None:
        for ws in self.sockets:
            if ws.mode == 0:
                super().setup(ws, None)

    def on_message(self, event: Any) -> Any:
        number, what, seconds = event.data.split()
        if what == "sync":
            self.log.append(number)
            return None
        return self.later(number, float(seconds))

    async def later(self, number: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.log.append(number)

    def on_close(self, event: Any) -> Any: ...


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 2), st.sampled_from(["sync", "async"])),
    st.tuples(st.just("block"), st.integers(0, 2), st.just("")),
    st.tuples(st.just("sleep"), st.integers(0, 3), st.just("")),
    st.tuples(st.just("accept"), st.just(0), st.just("")),
    st.tuples(st.just("turn"), st.integers(1, 5), st.just("")),
)


@given(actions=st.lists(ACTIONS, max_size=30))
@settings(max_examples=60)
def test_the_gateway_always_knows_whose_frames_are_not_handled(
    actions: list[tuple[str, int, str]],
) -> None:
    """G7: unsettled or unacknowledged ⊇ not fully handled, at every turn; in the end nothing."""

    async def main() -> None:
        async with solo(Script) as one:
            gateway = one.gateway
            clients = [
                await gateway.upgrade(url, target=one.target("SCRIPT"))
                for url in ("http://x/a", "http://x/late", "http://x/b")
            ]
            script = instance(one, "SCRIPT")
            sent: dict[str, Client] = {}

            def check() -> None:
                handled = set(script.log)
                open_frames = {c.connection for n, c in sent.items() if n not in handled}
                assert open_frames <= gateway.may_have_lost()

            async def watched(count: int) -> None:
                for _ in range(count):
                    check()
                    await asyncio.sleep(0)

            for what, number, how in actions:
                match what:
                    case "send":
                        name = str(len(sent))
                        sent[name] = clients[number]
                        clients[number].send(f"{name} {how} {number}")
                    case "block":
                        one.stub("SCRIPT").block(number)
                    case "sleep":
                        for _ in range(number * 4):
                            await asyncio.sleep(0.25)
                            check()
                    case "accept":
                        one.stub("SCRIPT").accept_all()
                    case _:
                        await watched(number)
                check()
            await one.stub("SCRIPT").accept_all()
            for _ in range(100):
                await asyncio.sleep(0.5)
                check()
            assert sorted(script.log) == sorted(sent)
            assert gateway.unsettled == set()

    virtual_time.run(main(), check_leftovers=True)
