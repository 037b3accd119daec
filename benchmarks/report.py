"""Results as a Markdown page. Pure: text in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import (
    METRIC_TITLES,
    Metric,
    Results,
    Rounds,
    middle,
    ratio,
    spread,
    total_errors,
    typical,
    typical_by_role,
)
from benchmarks.goals import BASE_PEER, Goal, Verdict
from benchmarks.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
BESIDE = f"{TIMES} {BASE_PEER}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def figure(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separators, or a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def times(value: float | None) -> str:
    """Return a ratio, as `2.31` and the sign."""
    if value is None:
        return NOTHING
    return f"{value:.2f}{TIMES}" if value >= 1 else f"{value:.3f}{TIMES}"


def milliseconds(microseconds: float | None) -> str:
    """Return so many microseconds, in milliseconds."""
    return figure(None if microseconds is None else microseconds / 1000, 2)


def absolute(metric: Metric, value: float) -> str:
    """Return a value in the unit of its metric."""
    if metric == "bytes_per_connection":
        return f"{value / 1024:.1f} KiB"
    return f"{value / 1000:.1f} ms"


def with_spread(rounds: Rounds, metric: Metric) -> str:
    """Return the median with the least and greatest of the rounds, as `1,200 (1,100 to 1,300)`."""
    ends = spread(rounds, metric)
    if ends is None or len(rounds) < 2:
        return figure(typical(rounds, metric))
    return f"{figure(typical(rounds, metric))} ({figure(ends[0])} to {figure(ends[1])})"


def roles(rounds: Rounds) -> str:
    """Return the split of the CPU time by process role, as `gateway 5.1, shard 4.2`."""
    by_role = {role: us for role, us in typical_by_role(rounds).items() if us >= 0.05}
    if len(by_role) < 2:
        return NOTHING
    return ", ".join(f"{role} {us:.1f}" for role, us in by_role.items())


def load_section(scenario: Scenario, by_peer: dict[str, Rounds]) -> list[str]:
    """Return the table of a scenario that counts operations."""
    base = by_peer.get(BASE_PEER, ())
    head = [
        "peer",
        f"{scenario.heading or scenario.counter}/s",
        BESIDE,
        "p50 µs",
        "p99 µs",
        f"CPU µs a {scenario.operation}",
        BESIDE,
        "split",
        "generator",
        "errors",
    ]
    rows = [
        [
            peer,
            with_spread(rounds, "per_second"),
            times(ratio(rounds, base, "per_second")),
            figure(typical(rounds, "p50_us")),
            figure(typical(rounds, "p99_us")),
            figure(typical(rounds, "cpu_us"), 1),
            times(ratio(rounds, base, "cpu_us")),
            roles(rounds),
            f"{100 * (middle(s.generator_cpu_share for s in rounds) or 0):.0f} %",
            str(total_errors(rounds)),
        ]
        for peer, rounds in by_peer.items()
    ]
    return table(head, rows)


def memory_section(by_peer: dict[str, Rounds]) -> list[str]:
    """Return the table of a scenario that holds idle connections."""
    base = by_peer.get(BASE_PEER, ())
    rows = []
    for peer, rounds in by_peer.items():
        value = typical(rounds, "bytes_per_connection")
        rows.append(
            [
                peer,
                figure(value / 1024 if value is not None else None, 1),
                times(ratio(rounds, base, "bytes_per_connection")),
                str(total_errors(rounds)),
            ]
        )
    return table(["peer", "KiB a connection", BESIDE, "errors"], rows)


def lag_section(by_peer: dict[str, Rounds]) -> list[str]:
    """Return the table of a scenario that watches the event loop of a shard."""
    head = ["peer", "echoes/s", "p50 µs", "p99 µs", "puts/s"]
    head += ["lag p50 ms", "lag p99 ms", "lag max ms", "errors"]
    rows = [
        [
            peer,
            figure(typical(rounds, "per_second")),
            figure(typical(rounds, "p50_us")),
            figure(typical(rounds, "p99_us")),
            figure(middle(sample.puts_per_second for sample in rounds)),
            milliseconds(middle(sample.lag_p50_us for sample in rounds)),
            milliseconds(typical(rounds, "lag_p99_us")),
            milliseconds(max((sample.lag_max_us or 0 for sample in rounds), default=None)),
            str(total_errors(rounds)),
        ]
        for peer, rounds in by_peer.items()
    ]
    return table(head, rows)


def first_errors(by_peer: dict[str, Rounds]) -> list[str]:
    """One line for each peer that had errors: the first one's own words."""
    lines = []
    for peer, rounds in by_peer.items():
        words = next((sample.first_error for sample in rounds if sample.first_error), None)
        if words:
            lines.append(f"- {peer}: {words}")
    return lines


def bound(goal: Goal) -> str:
    """Return a goal's bound, as `≥ 2.20` times or `≤ 5.0 KiB`."""
    sign = "≥" if goal.direction == "at_least" else "≤"
    shown = absolute(goal.metric, goal.bound) if goal.absolute else f"{goal.bound:.2f}{TIMES}"
    return f"{sign} {shown}"


def outcome(verdict: Verdict) -> tuple[str, str]:
    """Return what was measured for a goal and the word for it."""
    if verdict.value is None:
        return NOTHING, verdict.reason
    goal = verdict.goal
    measured = absolute(goal.metric, verdict.value) if goal.absolute else times(verdict.value)
    return measured, "met" if verdict.met else "**missed**"


def goals_section(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the goals next to what was measured, and before them in one line how it went."""
    rows = []
    for verdict in verdicts:
        measured, word = outcome(verdict)
        goal = verdict.goal
        title = f"{SCENARIOS[goal.scenario].title}: {METRIC_TITLES[goal.metric]}"
        rows.append([title, verdict.peer, bound(goal), measured, word])
    return [in_short(verdicts), "", *table(["goal", "peer", "wanted", "measured", ""], rows)]


def in_short(verdicts: Sequence[Verdict]) -> str:
    """Return how many goals were met, and the names of the missed ones."""
    met = sum(verdict.met is True for verdict in verdicts)
    missed = [verdict for verdict in verdicts if verdict.met is False]
    names = dict.fromkeys(
        f"`{each.goal.scenario}` {METRIC_TITLES[each.goal.metric]} ({each.peer})" for each in missed
    )
    text = f"{met} of {len(verdicts)} verdicts: met. Missed: {', '.join(names) or 'none'}."
    unknown = len(verdicts) - met - len(missed)
    return text + (f" Not measured, or with errors: {unknown}." if unknown else "")


def markdown(
    results: Results, verdicts: Sequence[Verdict], notes: Sequence[str], skipped: Sequence[str]
) -> str:
    """Return the page. `notes` describe the run, `skipped` which peers are missing and why."""
    lines = ["# Benchmark results", "", *(f"- {note}" for note in (*notes, *skipped)), ""]
    lines += ["![Ratios to the base peer](latest.svg)", ""]
    if verdicts:
        lines += ["## Goals", "", *goals_section(verdicts), ""]
    for name, rounds_of_peer in results.items():
        scenario, by_peer = SCENARIOS[name], dict(rounds_of_peer)
        if scenario.measures_memory:
            section = memory_section(by_peer)
        elif scenario.measures_lag:
            section = lag_section(by_peer)
        else:
            section = load_section(scenario, by_peer)
        lines += [f"## {scenario.title} (`{name}`)", "", *section, ""]
        if errors := first_errors(by_peer):
            lines += [*errors, ""]
    return "\n".join(lines)
