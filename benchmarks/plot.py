"""Results as one SVG: bars grouped by scenario, each a ratio to the base peer. Pure.

It is written by hand, without a plotting library, in colours that read on a light and on a dark
page; the text takes its colour from the reader's colour scheme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.figures import Metric, Results, ratio
from benchmarks.goals import BASE_PEER, GOALS, Goal
from benchmarks.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS = ("#0f8b8d", "#3fc1b0", "#d9822b", "#8a8fa3", "#b05a9b", "#5b7fd1")
BAR_WIDTH, BAR_GAP, GROUP_GAP, MARGIN_LEFT, MARGIN_RIGHT = 26, 3, 34, 46, 20
PLOT_HEIGHT, PANEL_TOP, PANEL_BOTTOM, LEGEND_HEIGHT = 180, 50, 46, 34

HEADROOM = 1.08
STEPS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
TIMES = "\N{MULTIPLICATION SIGN}"

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 14px; font-weight: 600; }
  .value { font-size: 10px; text-anchor: middle; }
  .group { text-anchor: middle; }
  .axis { text-anchor: end; font-size: 10px; }
  .grid { stroke: #8c959f; stroke-opacity: .3; }
  .one { stroke: #8c959f; stroke-dasharray: 4 3; }
  .goal { stroke: #cf222e; stroke-width: 2; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .goal { stroke: #ff7b72; } }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric of several scenarios: scenario → peer → ratio to the base peer."""

    title: str
    metric: Metric
    groups: Mapping[str, Mapping[str, float]]

    @property
    def axis(self) -> list[float]:
        """The grid lines: at most seven, evenly spaced, from 0 to above all bars and goals."""
        goals = [goal.bound for name in self.groups for goal in self.goals_of(name)]
        bars = [value for bars in self.groups.values() for value in bars.values()]
        greatest = max([max(bars) * HEADROOM, *goals])
        step = next((step for step in STEPS if greatest / step <= 6), greatest / 6)
        return [step * count for count in range(math.ceil(greatest / step) + 1)]

    def goals_of(self, scenario: str) -> list[Goal]:
        """Return the goals that this panel shows for a scenario."""
        return [
            goal
            for goal in GOALS
            if goal.scenario == scenario and goal.metric == self.metric and not goal.absolute
        ]


def panel(title: str, metric: Metric, results: Results) -> Panel | None:
    """Return the bars of one metric; None where no scenario has a base to compare with."""
    groups: dict[str, dict[str, float]] = {}
    for scenario, rounds_of_peer in results.items():
        base = rounds_of_peer.get(BASE_PEER, ())
        bars = {
            peer: value
            for peer, rounds in rounds_of_peer.items()
            if (value := ratio(rounds, base, metric)) is not None
        }
        if len(bars) > 1:
            groups[scenario] = bars
    return Panel(title, metric, groups) if groups else None


def goal_lines(shown: Panel, scenario: str, spans: Sequence[float], base_y: float) -> list[str]:
    """Return a mark at each goal's height over the bars of Limpet, which begin at the spans."""
    if not spans:
        return []
    left, right = min(spans) - 3, max(spans) + BAR_WIDTH + 3
    heights = [goal.bound / shown.axis[-1] * PLOT_HEIGHT for goal in shown.goals_of(scenario)]
    return [
        f'<line class="goal" x1="{left}" x2="{right}" '
        f'y1="{base_y - height:.1f}" y2="{base_y - height:.1f}"/>'
        for height in heights
    ]


def draw_panel(shown: Panel, colours: Mapping[str, str], top_y: int, width: int) -> list[str]:
    """One panel with its axis, bars, labels and goal marks."""
    base_y, top = top_y + PANEL_TOP + PLOT_HEIGHT, shown.axis[-1]
    lines = [f'<text class="title" x="{MARGIN_LEFT}" y="{top_y + 20}">{escape(shown.title)}</text>']
    for mark in shown.axis:
        y = base_y - mark / top * PLOT_HEIGHT
        style = "one" if mark == 1 else "grid"
        lines.append(
            f'<line class="{style}" x1="{MARGIN_LEFT}" x2="{width - MARGIN_RIGHT}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="axis" x="{MARGIN_LEFT - 6}" y="{y + 4:.1f}">{mark:g}{TIMES}</text>'
        )
    slot = group_width(len(colours))
    for index, (scenario, bars) in enumerate(shown.groups.items()):
        left = MARGIN_LEFT + GROUP_GAP // 2 + index * (slot + GROUP_GAP)
        spans: list[float] = []
        for place, (peer, colour) in enumerate(colours.items()):
            if peer not in bars:
                continue
            x = left + place * (BAR_WIDTH + BAR_GAP)
            height = bars[peer] / top * PLOT_HEIGHT
            if peer.startswith("limpet"):
                spans.append(x)
            tip = escape(f"{peer}, {SCENARIOS[scenario].title}: {bars[peer]:.2f}{TIMES}")
            lines.append(
                f'<rect x="{x}" y="{base_y - height:.1f}" width="{BAR_WIDTH}" '
                f'height="{height:.1f}" rx="2" fill="{colour}"><title>{tip}</title></rect>'
                f'<text class="value" x="{x + BAR_WIDTH / 2}" y="{base_y - height - 4:.1f}">'
                f"{bars[peer]:.2f}</text>"
            )
        lines += goal_lines(shown, scenario, spans, base_y)
        lines.append(
            f'<text class="group" x="{left + slot / 2}" y="{base_y + 18}">{escape(scenario)}</text>'
        )
    return lines


def group_width(peers: int) -> int:
    """How wide the bars of one scenario are together."""
    return peers * BAR_WIDTH + (peers - 1) * BAR_GAP


def legend(colours: Mapping[str, str], y: int) -> list[str]:
    """Which colour is which peer, and what the red mark is."""
    lines, x = [], MARGIN_LEFT
    for peer, colour in colours.items():
        lines.append(
            f'<rect x="{x}" y="{y}" width="12" height="12" rx="2" fill="{colour}"/>'
            f'<text x="{x + 17}" y="{y + 10}">{escape(peer)}</text>'
        )
        x += 34 + 7 * len(peer)
    lines.append(
        f'<line class="goal" x1="{x}" x2="{x + 14}" y1="{y + 6}" y2="{y + 6}"/>'
        f'<text x="{x + 19}" y="{y + 10}">goal for Limpet</text>'
    )
    return lines


def svg(results: Results, peers: Sequence[str]) -> str | None:
    """Return the whole picture, or None where there is no base peer to compare with."""
    candidates = (
        panel(
            f"Operations per second, {TIMES} {BASE_PEER} (higher is better)", "per_second", results
        ),
        panel(
            f"Server CPU per operation, {TIMES} {BASE_PEER} (lower is better)", "cpu_us", results
        ),
        panel(f"Median latency, {TIMES} {BASE_PEER} (lower is better)", "p50_us", results),
    )
    panels = [shown for shown in candidates if shown is not None]
    if not panels:
        return None
    colours = dict(zip(peers, COLOURS, strict=False))
    groups = max(len(shown.groups) for shown in panels)
    width = MARGIN_LEFT + MARGIN_RIGHT + groups * (group_width(len(colours)) + GROUP_GAP)
    width = max(width, 620)
    panel_height = PANEL_TOP + PLOT_HEIGHT + PANEL_BOTTOM
    height = LEGEND_HEIGHT + len(panels) * panel_height
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        f'aria-label="Limpet and its peers, as ratios to {BASE_PEER}">',
        f"<style>{STYLE}</style>",
        *legend(colours, 14),
    ]
    for index, shown in enumerate(panels):
        lines += draw_panel(shown, colours, LEGEND_HEIGHT + index * panel_height, width)
    return "\n".join([*lines, "</svg>", ""])
