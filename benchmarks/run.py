"""The command line: prepare the peers, interleave the rounds, write the report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine, plot, report, tools
from benchmarks.goals import judge_all
from benchmarks.measuring import failed, measure
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import PEERS, Peer, ServerFailedError, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.figures import Sample

RESULTS = Path(__file__).resolve().parent / "results"
MAX_SECONDS, MAX_ROUNDS = 60.0, 50


def names_from(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return an argument type for a comma-separated list of known names."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return parse


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options; exit with 2 and a clear line where they do not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Limpet and its peers side by side, in one run.",
    )
    peers, scenarios = list(PEERS), list(SCENARIOS)
    parser.add_argument(
        "--peers", type=names_from(peers), default=peers, help="default: " + ",".join(peers)
    )
    parser.add_argument(
        "--scenarios",
        type=names_from(scenarios),
        default=scenarios,
        help="default: " + ",".join(scenarios),
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="counted time a round (4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; figures are medians (3)")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory for the report")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 1.0, 1
    if not 0.1 <= options.seconds <= MAX_SECONDS:
        parser.error(f"--seconds: wanted 0.1 to {MAX_SECONDS:.0f}")
    if not 1 <= options.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds: wanted 1 to {MAX_ROUNDS}")
    return options


def say(text: str) -> None:
    """Progress goes to stderr; stdout carries the report alone."""
    print(text, file=sys.stderr, flush=True)


def prepare(names: Sequence[str]) -> tuple[list[Peer], list[str]]:
    """Return the peers that can run, and one line for each that cannot."""
    ready: list[Peer] = []
    skipped: list[str] = []
    for name in names:
        try:
            PEERS[name].prepare()
            ready.append(PEERS[name])
        except tools.MissingToolError as missing:
            skipped.append(f"{name} is skipped: {missing}")
            say(f"benchmarks: {skipped[-1]}")
    return ready, skipped


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    """Return the peers, beginning with another one each round, so that none is always first."""
    by %= len(peers)
    return [*peers[by:], *peers[:by]]


def one_sample(generator: Path, scenario: Scenario, peer: Peer, seconds: float) -> Sample:
    """One round of one scenario on a fresh server; a failure is a sample with an error."""
    try:
        with running(peer, scenario.app) as server:
            return measure(generator, scenario, server, seconds)
    except (ServerFailedError, tools.MissingToolError) as error:
        return failed(str(error))


def line_of(scenario: Scenario, peer: Peer, round_number: int, sample: Sample) -> str:
    """One line of progress."""
    if sample.bytes_per_connection is not None:
        what = f"{sample.bytes_per_connection / 1024:.1f} KiB a connection"
    elif sample.lag_p99_us is not None:
        what = f"lag p99 {sample.lag_p99_us / 1000:.1f} ms, {sample.per_second or 0:,.0f}/s"
    else:
        what = f"{sample.per_second or 0:,.0f}/s, {sample.cpu_us or 0:.1f} µs CPU each"
    trouble = f", {sample.errors} errors: {sample.first_error}" if sample.errors else ""
    return f"{scenario.name:16} round {round_number + 1} {peer.name:10} {what}{trouble}"


def is_able(peer: Peer, scenario: Scenario) -> bool:
    """Whether the peer has what the scenario measures."""
    if scenario.peers is not None:
        return peer.name in scenario.peers
    return peer.apps is None or scenario.app in peer.apps


def run_all(
    generator: Path,
    scenarios: Sequence[Scenario],
    peers: Sequence[Peer],
    options: argparse.Namespace,
) -> dict[str, dict[str, list[Sample]]]:
    """Scenario by scenario, round by round, peer by peer."""
    results: dict[str, dict[str, list[Sample]]] = {}
    for scenario in scenarios:
        able = [peer for peer in peers if is_able(peer, scenario)]
        by_peer: dict[str, list[Sample]] = {peer.name: [] for peer in able}
        results[scenario.name] = by_peer
        rounds = min(options.rounds, scenario.max_rounds or options.rounds)
        for round_number in range(rounds if able else 0):
            for peer in rotated(able, round_number):
                sample = one_sample(generator, scenario, peer, options.seconds)
                by_peer[peer.name].append(sample)
                say(line_of(scenario, peer, round_number, sample))
    return results


def write_report(
    directory: Path, page: str, picture: str | None, results: dict[str, dict[str, list[Sample]]]
) -> None:
    """latest.md, latest.svg and latest.json (every sample of every round)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "latest.md").write_text(page + "\n")
    if picture is not None:
        (directory / "latest.svg").write_text(picture)
    raw = {
        scenario: {peer: [asdict(sample) for sample in rounds] for peer, rounds in by_peer.items()}
        for scenario, by_peer in results.items()
    }
    (directory / "latest.json").write_text(json.dumps(raw, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 1 where a goal was missed or a peer had errors, or 2 where nothing could run."""
    options = parse_arguments(arguments)
    machine.check()
    tools.raise_file_limit()
    load_before, disk_us = os.getloadavg()[0], machine.sync_us(tools.disk_folder())
    try:
        generator = tools.load_generator()
    except tools.MissingToolError as missing:
        say(f"benchmarks: {missing}")
        return 2
    peers, skipped = prepare(options.peers)
    if not peers:
        say("benchmarks: no peer can run")
        return 2
    began_at = time.monotonic()
    scenarios = [SCENARIOS[name] for name in options.scenarios]
    results = run_all(generator, scenarios, peers, options)
    limpets = tuple(peer.name for peer in peers if peer.name.startswith("limpet"))
    verdicts = judge_all(limpets, results)
    notes = [
        *machine.describe(load_before, disk_us),
        f"{options.rounds} interleaved rounds of {options.seconds:g} s; "
        f"the whole run took {time.monotonic() - began_at:.0f} s",
    ]
    page = report.markdown(results, verdicts, notes, skipped)
    picture = plot.svg(results, [peer.name for peer in peers])
    write_report(options.output, page, picture, results)
    print(page)
    errors = any(s.errors for by_peer in results.values() for r in by_peer.values() for s in r)
    return 1 if errors or any(verdict.met is False for verdict in verdicts) else 0
