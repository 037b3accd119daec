"""One round of one scenario: a run of the load generator against one fresh server."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks import meter, slow_disk
from benchmarks.figures import Sample
from benchmarks.scenarios import SLEEPERS
from benchmarks.servers import HOST, Server, ServerFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.scenarios import Scenario

OPEN_TIMEOUT_S = 30.0
SLACK_S = 30.0
"""How much longer than asked the generator may live before it is killed."""

WARM_UP = ("--clients", "8", "--warmup-s", "0", "--seconds", "0.5")
SETTLE_S = 1.0
"""How long a server is left alone before its memory is read."""
WRITERS_LEAD_S = 4.0
WRITERS_MARGIN_S = 8.0
"""How much longer than the counted seconds the writers write, and how much of that before."""
FALL_ASLEEP_S = 16.0
"""How long its objects are left alone: both sides let them go after 10 s."""


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


def measure_load(
    generator: Path,
    scenario: Scenario,
    server: Server,
    seconds: float,
    marked: Callable[[str], None] = lambda mark: None,
) -> Sample:
    """Operations, latency and the servers' CPU time over exactly the counted seconds.

    `marked` is called with `measuring` and `measured`, when these seconds begin and end.
    """
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
                marked(words)
        output = process.stdout.read()
    if not output:
        return failed(f"the load generator ended with {process.returncode}: {words}")
    result: dict[str, Any] = json.loads(output)
    if "measured" not in readings:
        return failed(str(result["first_error"]))
    used = meter.cpu_between(readings["measuring"], readings["measured"])
    return sample_from(result, scenario.counter, used, scenario.each)


def count_awake(server: Server) -> int:
    """How many of the sleepers are still in the life in which they got their messages."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=OPEN_TIMEOUT_S)
    awake = 0
    with contextlib.closing(connection):
        for number in range(SLEEPERS):
            connection.request("GET", f"/sleeper/{number}")
            awake += connection.getresponse().read() != b"0"
    return awake


def measure_memory(generator: Path, scenario: Scenario, server: Server) -> Sample:
    """Bytes of the server's memory for each connection that is open and idle, or asleep.

    The server has served a few connections before, so what it loads or allocates once does not
    count; each idle connection has exchanged one message, so it is known to reach its object.
    """
    where = [word for word in scenario.arguments[1:] if word != "--greet"]
    warm_up = generator_command(generator, ("echo", *where, *WARM_UP), server, scenario.expect)
    subprocess.run(
        warm_up,
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
    with process, bounded(process, OPEN_TIMEOUT_S + FALL_ASLEEP_S + SLACK_S):
        line = process.stdout.readline()
        if not line:
            return failed("the load generator gave no answer")
        ready: dict[str, Any] = json.loads(line)
        time.sleep(FALL_ASLEEP_S if scenario.measures_sleep else SETTLE_S)
        held = int(ready[scenario.counter])
        used = meter.read_pss_bytes(server.root_pid) - before
        awake = count_awake(server) if scenario.measures_sleep else 0
        process.stdin.close()
        process.wait(SLACK_S)
    lost = 1 if process.returncode and not ready["errors"] else 0
    if awake:
        return failed(f"{awake} of {SLEEPERS} objects did not leave memory")
    return Sample(
        bytes_per_connection=used / held if held else None,
        errors=int(ready["errors"]) + lost,
        first_error=ready["first_error"] or ("connections were lost while idle" if lost else None),
    )


def quantile(values: Sequence[float], fraction: float) -> float:
    """The least of the values that so large a fraction of them does not exceed."""
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def measure_lag(generator: Path, scenario: Scenario, server: Server, seconds: float) -> Sample:
    """What the echo clients see, and the lag of the shard's loop, while writers wait for the disk.

    The writers begin before and end after the counted seconds.
    """
    lags_s: list[float] = []

    def marked(mark: str) -> None:
        noted = slow_disk.read_lags_s(server.run_dir)
        if mark == "measured":
            lags_s.extend(noted)

    writers = generator_command(generator, slow_disk.WRITERS, server, "count ")
    lasting = ("--warmup-s", "0", "--seconds", str(seconds + WRITERS_MARGIN_S))
    with (
        subprocess.Popen(
            [*writers, *lasting], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
        bounded(process, seconds + WRITERS_MARGIN_S + SLACK_S),
    ):
        time.sleep(WRITERS_LEAD_S)
        sample = measure_load(generator, scenario, server, seconds, marked)
        output, _ = process.communicate()
    written: dict[str, Any] = json.loads(output)
    if not lags_s or not written["requests"]:
        return failed(f"nothing was written: {written['first_error']}")
    return replace(
        sample,
        lag_p50_us=quantile(lags_s, 0.5) * 1e6,
        lag_p99_us=quantile(lags_s, 0.99) * 1e6,
        lag_max_us=max(lags_s) * 1e6,
        puts_per_second=float(written["per_second"]),
        errors=sample.errors + int(written["errors"]),
        first_error=sample.first_error or written["first_error"],
    )


def measure(generator: Path, scenario: Scenario, server: Server, seconds: float) -> Sample:
    """One round of one scenario against one running server. Never raises for a bad server."""
    try:
        if scenario.measures_memory:
            return measure_memory(generator, scenario, server)
        if scenario.measures_lag:
            return measure_lag(generator, scenario, server, seconds)
        return measure_load(generator, scenario, server, seconds)
    except (ServerFailedError, subprocess.SubprocessError, OSError) as error:
        return failed(f"{type(error).__name__}: {error}")
