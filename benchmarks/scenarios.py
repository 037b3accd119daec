"""What is measured: each scenario is a run of the load generator against one fresh server. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ANSWER = "[Durable Object] currentlyConnectedWebSockets: "
RPC_CALLS = 4096
"""Calls that one object makes to the other for each request."""

SLEEPERS = 100
"""Objects over which the sleeping sockets are spread."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the comparison.

    `arguments` is what the generator gets beside host, port and times. `operation` is the word
    for what is counted, in the singular; `counter` its name in the generator's JSON.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    operation: str
    counter: str
    app: str = "websocket_server"
    expect: str = ANSWER
    peers: frozenset[str] | None = None
    """Those it is for, None for all that have the app."""
    max_rounds: int = 0
    """Rounds that say all there is to know; 0 for as many as are asked for."""
    each: int = 1
    """How many operations one of the generator's is; the server makes them among its objects."""
    heading: str = ""
    """The plural of `operation`, where it is not `counter`."""

    @property
    def measures_memory(self) -> bool:
        """Whether it holds idle connections instead of counting operations."""
        return self.arguments[0] == "idle"

    @property
    def measures_sleep(self) -> bool:
        """Whether its objects must have left memory when that is measured."""
        return self.app == "room" and self.measures_memory

    @property
    def measures_lag(self) -> bool:
        """Whether the shard's event loop is watched while writers wait for a slow disk."""
        return self.app == "slow_disk"


def echo(name: str, title: str, *arguments: str) -> Scenario:
    """Return a closed loop of messages; the reference program answers each with a short text."""
    return Scenario(name, title, ("echo", *arguments), "message", "messages")


def broadcast(name: str, title: str, rooms: int, members: int) -> Scenario:
    """Rooms of held sockets; the message of one member goes to all of its room."""
    size = ("--rooms", str(rooms), "--members", str(members))
    arguments = ("broadcast", *size, "--path", "/room/%d")
    return Scenario(
        name, title, arguments, "delivery", "deliveries", "room", expect="abc", heading="deliveries"
    )


def stored(name: str, title: str, verb: str, objects: int, clients: int) -> Scenario:
    """Requests, each of which has its object put or get one value."""
    arguments = (
        *("http", "--clients", str(clients)),
        *("--path", f"/{verb}/%d", "--keys", str(objects)),
    )
    return Scenario(name, title, arguments, "request", "requests", "store", expect="count ")


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        echo("echo-64", "Messages, 64 clients", "--clients", "64"),
        echo("echo-1000", "Messages, 1,000 clients", "--clients", "1000"),
        echo("echo-64k", "Messages of 64 KiB, 64 clients", "--clients", "64", "--size", "65536"),
        echo("echo-1", "Messages, one client", "--clients", "1"),
        Scenario(
            "connect",
            "Connect, one message, close; 16 at once",
            ("connect", "--clients", "16"),
            "cycle",
            "cycles",
        ),
        Scenario(
            "idle",
            "Memory of 5,000 idle connections",
            ("idle", "--clients", "5000", "--greet"),
            "connection",
            "held",
        ),
        Scenario(
            "asleep",
            "Memory of 5,000 held sockets of 100 objects that sleep",
            (
                *("idle", "--clients", "5000", "--greet"),
                *("--rooms", str(SLEEPERS), "--path", "/sleeper/%d"),
            ),
            "connection",
            "held",
            app="room",
            expect="abc",
            peers=frozenset({"limpet-1", "limpet-2", "workerd"}),
            max_rounds=1,
        ),
        broadcast("broadcast-10", "Broadcast to 10 clients", 1, 10),
        broadcast("broadcast-100", "Broadcast to 100 clients", 1, 100),
        broadcast("broadcast-1000", "Broadcast to 1,000 clients", 1, 1000),
        broadcast("broadcast-100x10", "Broadcast in 100 rooms of 10 clients", 100, 10),
        stored("put-1", "A durable put a request, one object, one client", "put", 1, 1),
        stored("put-1-64", "A durable put a request, one object, 64 clients", "put", 1, 64),
        stored("put-100", "A durable put a request, 100 objects, 64 clients", "put", 100, 64),
        stored("get-100", "A get a request, 100 objects, 64 clients", "get", 100, 64),
        Scenario(
            "slow-disk",
            "Echo beside writers whose disk takes 200 ms longer",
            ("echo", "--clients", "8", "--rooms", "8", "--path", "/echo/%d"),
            "message",
            "messages",
            app="slow_disk",
            expect="abc",
            peers=frozenset({"limpet-1"}),
        ),
        Scenario(
            "rpc",
            "Calls between two objects, 64 in flight",
            ("http", "--clients", "1", "--path", "/rpc"),
            "call",
            "requests",
            app="rpc",
            expect=f"{RPC_CALLS} calls",
            each=RPC_CALLS,
            heading="calls",
        ),
    )
}
