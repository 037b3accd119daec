"""What is measured: each scenario is a run of the load generator against one fresh server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import meter
from benchmarks.figures import Sample
from benchmarks.servers import HOST, Server, ServerFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ANSWER = "[Durable Object] currentlyConnectedWebSockets: "
OPEN_TIMEOUT_S = 30.0
SLACK_S = 30.0
"""How much longer than asked the generator may live before it is killed."""

RPC_CALLS = 4096
"""Calls that one object makes to the other for each request."""

WARM_UP_CONNECTIONS = 8
SETTLE_S = 1.0
"""How long a server is left alone before its memory is read."""


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
    each: int = 1
    """How many operations one of the generator's is; the server makes them among its objects."""
    heading: str = ""
    """The plural of `operation`, where it is not `counter`."""

    @property
    def measures_memory(self) -> bool:
        """Whether it holds idle connections instead of counting operations."""
        return self.arguments[0] == "idle"


def echo(name: str, title: str, *arguments: str) -> Scenario:
    """Return a closed loop of messages; the reference program answers each with a short text."""
    return Scenario(name, title, ("echo", *arguments), "message", "messages")


def broadcast(members: int) -> Scenario:
    """One room; the message of one member goes to all of them."""
    arguments = ("broadcast", "--rooms", "1", "--members", str(members), "--path", "/room/%d")
    title = f"Broadcast to {members:,} clients"
    name = f"broadcast-{members}"
    return Scenario(name, title, arguments, "delivery", "deliveries", app="room", expect="abc")


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
        broadcast(100),
        broadcast(1000),
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


def generator_command(
    generator: Path, arguments: Sequence[str], server: Server, expect: str
) -> list[str]:
    """Return the command line that every use of the generator begins with."""
    target = ("--host", HOST, "--port", str(server.port), "--expect", expect)
    return [str(generator), *arguments, *target, "--timeout-s", str(OPEN_TIMEOUT_S)]


@contextmanager
def bounded(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Kill the process if it lives longer than so many seconds."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()


def per_operation_us(cpu_s_by_role: dict[str, float], operations: int) -> dict[str, float]:
    """CPU seconds by role → microseconds per operation by role; empty without operations."""
    if not operations:
        return {}
    return {role: cpu_s / operations * 1e6 for role, cpu_s in cpu_s_by_role.items()}


def sample_from(
    result: dict[str, Any], counter: str, cpu_s_by_role: dict[str, float], each: int = 1
) -> Sample:
    """Return the sample that the generator's JSON and the server's CPU time amount to.

    Where one of the generator's operations is several (`each`), its latency says nothing of one.
    """
    operations = int(result[counter]) * each
    by_role = per_operation_us(cpu_s_by_role, operations)
    latency = result["latency_us"]
    return Sample(
        per_second=float(result["per_second"]) * each,
        p50_us=float(latency["p50"]) if operations and each == 1 else None,
        p99_us=float(latency["p99"]) if operations and each == 1 else None,
        cpu_us=sum(by_role.values()) if operations else None,
        cpu_us_by_role=by_role,
        generator_cpu_share=float(result["generator_cpu_share"]),
        errors=int(result["errors"]),
        first_error=result["first_error"],
    )


def failed(why: str) -> Sample:
    """Return a sample that says only that the peer could not be measured."""
    return Sample(errors=1, first_error=why)


def measure_load(generator: Path, scenario: Scenario, server: Server, seconds: float) -> Sample:
    """Operations, latency and the servers' CPU time over exactly the counted seconds."""
    warmup_s = min(1.0, seconds / 2)
    command = generator_command(generator, scenario.arguments, server, scenario.expect)
    command += ["--warmup-s", str(warmup_s), "--seconds", str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    readings: dict[str, meter.CpuReading] = {}
    words = ""
    with process, bounded(process, warmup_s + seconds + OPEN_TIMEOUT_S + SLACK_S):
        for line in process.stderr:
            words = line.strip()
            if words in ("measuring", "measured"):
                readings[words] = meter.read_cpu(server.root_pid)
        output = process.stdout.read()
    if not output:
        return failed(f"the load generator ended with {process.returncode}: {words}")
    result: dict[str, Any] = json.loads(output)
    if "measured" not in readings:
        return failed(str(result["first_error"]))
    used = meter.cpu_between(readings["measuring"], readings["measured"])
    return sample_from(result, scenario.counter, used, scenario.each)


def measure_memory(generator: Path, scenario: Scenario, server: Server) -> Sample:
    """Bytes of the server's memory for each connection that is open and idle.

    The server has served a few connections before, so what it loads or allocates once does not
    count; each idle connection has exchanged one message, so it is known to reach its object.
    """
    warm_up = generator_command(
        generator, ("echo", "--clients", str(WARM_UP_CONNECTIONS)), server, scenario.expect
    )
    subprocess.run(
        [*warm_up, "--warmup-s", "0", "--seconds", "0.5"],
        capture_output=True,
        timeout=OPEN_TIMEOUT_S + SLACK_S,
        check=True,
    )
    time.sleep(SETTLE_S)
    before = meter.read_pss_bytes(server.root_pid)
    process = subprocess.Popen(
        generator_command(generator, scenario.arguments, server, scenario.expect),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, bounded(process, OPEN_TIMEOUT_S + SETTLE_S + SLACK_S):
        line = process.stdout.readline()
        if not line:
            return failed("the load generator gave no answer")
        ready: dict[str, Any] = json.loads(line)
        time.sleep(SETTLE_S)
        held = int(ready[scenario.counter])
        used = meter.read_pss_bytes(server.root_pid) - before
        process.stdin.close()
        process.wait(SLACK_S)
    lost = 1 if process.returncode and not ready["errors"] else 0
    return Sample(
        bytes_per_connection=used / held if held else None,
        errors=int(ready["errors"]) + lost,
        first_error=ready["first_error"] or ("connections were lost while idle" if lost else None),
    )


def measure(generator: Path, scenario: Scenario, server: Server, seconds: float) -> Sample:
    """One round of one scenario against one running server. Never raises for a bad server."""
    try:
        if scenario.measures_memory:
            return measure_memory(generator, scenario, server)
        return measure_load(generator, scenario, server, seconds)
    except (ServerFailedError, subprocess.SubprocessError, OSError) as error:
        return failed(f"{type(error).__name__}: {error}")
