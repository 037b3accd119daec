"""Draws a transition table: a column for each state, an arrow for each way from one to another.

The drawing is SVG within the page, so that it takes the page's colours, light or dark. It says
nothing that the table does not say, and the same table always gives the same drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from textwrap import wrap
from typing import Final, NamedTuple

CHAR_WIDTH: Final = 7.3
LINE_HEIGHT: Final = 16
COLUMN_GAP: Final = 44
BOX_HEIGHT: Final = 30
BOX_PADDING: Final = 16
ARROW_GAP: Final = 14
LOOP_WIDTH: Final = 26
LABEL_CHARS: Final = 16
MARGIN: Final = 6
STYLE: Final = (
    "<style>"
    ".states{margin:1.2em 0}"
    ".states svg{display:block;max-width:100%;height:auto}"
    ".states text{font:13px var(--font-stack--monospace,monospace);"
    "fill:var(--color-foreground-primary,#222)}"
    ".states .name{font-weight:600;text-anchor:middle;fill:var(--color-brand-content,#2757dd)}"
    ".states .box{fill:var(--color-background-secondary,#f8f9fb);"
    "stroke:var(--color-brand-primary,#0a4bff);stroke-width:1.2}"
    ".states .life{stroke:var(--color-foreground-border,#878787);stroke-width:1;"
    "stroke-dasharray:2 4}"
    ".states .way{fill:none;stroke:var(--color-foreground-secondary,#5a5c63);stroke-width:1.3}"
    ".states .tip{fill:var(--color-foreground-secondary,#5a5c63)}"
    ".states .cause{text-anchor:middle;paint-order:stroke;stroke-width:5px;"
    "stroke:var(--color-background-primary,#fff);stroke-linejoin:round}"
    ".states .loop{text-anchor:start}"
    "</style>"
)


class Way(NamedTuple):
    """One arrow: from one column to another, for these causes."""

    start: int
    end: int
    causes: list[str]

    @property
    def span(self) -> tuple[int, int]:
        """The columns it crosses, left to right."""
        return min(self.start, self.end), max(self.start, self.end)


def drawing(title: str, states: Iterable[str], ways: Mapping[tuple[str, str], list[str]]) -> str:
    """The SVG of one machine, as one line of HTML.

    Args:
        title: for those who do not see it.
        states: their names, in the order of the columns.
        ways: (from, to) -> the causes that lead there, in the order of the table.
    """
    names = list(states)
    lines = [
        Way(names.index(start), names.index(end), _wrapped(causes, names, start, end))
        for (start, end), causes in ways.items()
    ]
    lines.sort(key=lambda way: (way.start, way.start == way.end, way.end))
    centres, width = _columns(names, lines)
    parts: list[str] = []
    y = float(MARGIN + BOX_HEIGHT + 8)
    for way in lines:
        y += LINE_HEIGHT * len(way.causes) + 2
        parts += _arrow(way, centres, y)
        y += ARROW_GAP
    bottom = y - ARROW_GAP + 10
    heads: list[str] = []
    for name, x in zip(names, centres, strict=True):
        half = _box_width(name) / 2
        heads.append(
            f'<line class="life" x1="{x:g}" y1="{MARGIN + BOX_HEIGHT}" x2="{x:g}" y2="{bottom:g}"/>'
            f'<rect class="box" x="{x - half:g}" y="{MARGIN}" width="{2 * half:g}" '
            f'height="{BOX_HEIGHT}" rx="6"/>'
            f'<text class="name" x="{x:g}" y="{MARGIN + 20}">{escape(name)}</text>'
        )
    return (
        f'<div class="states">{STYLE}<svg role="img" aria-label="{escape(title)}" '
        f'width="{width:g}" height="{bottom + MARGIN:g}" '
        f'viewBox="0 0 {width:g} {bottom + MARGIN:g}">'
        + "".join(heads)
        + "".join(parts)
        + "</svg></div>"
    )


def _wrapped(causes: list[str], names: list[str], start: str, end: str) -> list[str]:
    """In lines that suit the length of the arrow."""
    columns = abs(names.index(start) - names.index(end)) or 1
    return wrap(", ".join(causes), width=LABEL_CHARS * columns)


def _box_width(name: str) -> float:
    return len(name) * CHAR_WIDTH * 1.06 + 2 * BOX_PADDING


def _text_width(way: Way) -> float:
    return max(map(len, way.causes)) * CHAR_WIDTH + 24


def _columns(names: list[str], ways: list[Way]) -> tuple[list[float], float]:
    """The middle of each column, and the width of all: every label fits its arrow."""
    centres = [MARGIN + _box_width(names[0]) / 2]
    for column in range(1, len(names)):
        boxes = (_box_width(names[column - 1]) + _box_width(names[column])) / 2
        x = centres[-1] + boxes + COLUMN_GAP
        for way in ways:
            first, last = way.span
            if last == column and first != last:
                x = max(x, centres[first] + _text_width(way))
            elif first == last == column - 1:
                x = max(x, centres[-1] + LOOP_WIDTH + _text_width(way))
        centres.append(x)
    width = centres[-1] + _box_width(names[-1]) / 2
    for way in ways:
        if way.start == way.end == len(names) - 1:
            width = max(width, centres[-1] + LOOP_WIDTH + _text_width(way))
    return centres, width + MARGIN


def _arrow(way: Way, centres: list[float], y: float) -> list[str]:
    x1, x2 = centres[way.start], centres[way.end]
    if way.start == way.end:
        tip = f'<path class="tip" d="M{x1 + 1:g} {y:g}l8 -4v8z"/>'
        path = f'<path class="way" d="M{x1:g} {y - 14:g}h{LOOP_WIDTH - 8}q8 0 8 7q0 7 -8 7h-10"/>'
        return [path, tip, *_labels(way, "cause loop", x1 + LOOP_WIDTH + 6, y - 2)]
    side = 1 if x2 > x1 else -1
    path = f'<path class="way" d="M{x1:g} {y:g}H{x2 - 8 * side:g}"/><circle class="tip" '
    path += f'cx="{x1:g}" cy="{y:g}" r="2.5"/>'
    tip = f'<path class="tip" d="M{x2 - side:g} {y:g}l{-8 * side} -4v8z"/>'
    return [path, tip, *_labels(way, "cause", (x1 + x2) / 2, y - 5)]


def _labels(way: Way, css: str, x: float, y: float) -> list[str]:
    first_y = y - LINE_HEIGHT * (len(way.causes) - 1)
    return [
        f'<text class="{css}" x="{x:g}" y="{first_y + LINE_HEIGHT * line:g}">{escape(text)}</text>'
        for line, text in enumerate(way.causes)
    ]
