"""A small Sphinx extension: writes the parts of these pages that the code itself knows.

Tables that are data in the code (settings, errors, state machines) are never copied by hand. Each
function returns Markdown; :func:`setup` has them written to ``docs/_generated`` before a build.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagrams import drawing

from common import close_reasons, errors
from common.link import lifecycle as link_lifecycle
from common.settings_docs import markdown_table
from gateway import closing, holding
from shard import lifecycle as slot_lifecycle
from shard import residence

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent


def error_table() -> str:
    """Every error of ours, with what a caller needs in order to act on it."""
    lines = [
        "| error | meaning | retryable | HTTP status | close code |",
        "|---|---|---|--:|--:|",
    ]
    for error, depth in _tree(errors.LimpetError, 0):
        meaning = (error.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ").strip()
        lines.append(
            f"| {'&nbsp;&nbsp;&nbsp;' * depth}`{error.__name__}` | {meaning} "
            f"| {'yes' if error.retryable else 'no'} | {error.http_status} "
            f"| {error.close_code or '-'} |"
        )
    return "\n".join(lines)


def close_reason_table() -> str:
    """Every Close that no app has asked for."""
    lines = ["| code | reason | when | try again? |", "|--:|---|---|---|"]
    lines.append(
        "| 1000-4999 | the app's | the object has closed, or its answer to the client's Close "
        "| the app knows |"
    )
    for each in close_reasons.CLOSES:
        if each is close_reasons.NO_CLOSE:
            code, reason = "none", ""
        else:
            code, reason = str(each.code), f"`{each.text}`" if each.text else "names the fault"
        lines.append(f"| {code} | {reason} | {each.when} | {each.again} |")
    return "\n".join(lines)


def closing_table() -> str:
    """The closing handshake: what each cause does in each phase."""
    return _machine(
        "How a connection ends",
        closing.STEPS,
        ("the connection is", "and this happens", "Close frame sent", "the object is told", "TCP"),
        lambda step: (step.write.name, step.tell.name, step.tcp.name),
        lambda step: step.phase,
    )


def holding_table() -> str:
    """A shard as its gateways see it."""
    return _machine(
        "How a shard comes and goes",
        holding.STEPS,
        ("the shard is", "and this happens", "what follows for its connections"),
        lambda step: (step[1].value,),
        lambda step: step[0],
    )


def residence_table() -> str:
    """A partition on a shard."""
    return _machine(
        "How a partition comes and goes",
        residence.STEPS,
        ("it is", "and this happens"),
        lambda step: (),
        lambda step: step,
    )


def link_table() -> str:
    """A link between two processes."""
    return _machine(
        "How a link begins and ends",
        link_lifecycle.STEPS,
        ("the link is", "and this happens", "what is queued"),
        lambda step: (step.action.value,),
        lambda step: step.state,
    )


def slot_table() -> str:
    """An object in its shard."""
    return _machine(
        "How an object wakes and sleeps",
        slot_lifecycle.STEPS,
        ("the object is", "and this happens", "what follows"),
        lambda step: (step.action.value,),
        lambda step: step.state,
    )


def _tree(error: type[errors.LimpetError], depth: int) -> list[tuple[type[Any], int]]:
    below = [each for sub in error.__subclasses__() for each in _tree(sub, depth + 1)]
    return [(error, depth), *below]


def _machine(
    title: str,
    steps: Mapping[Any, Any],
    columns: tuple[str, ...],
    effects: Callable[[Any], tuple[str, ...]],
    following: Callable[[Any], enum.Enum],
) -> str:
    """The drawing, and one row a transition."""
    ways: dict[tuple[str, str], list[str]] = {}
    for (state, cause), step in steps.items():
        way = state.name, following(step).name
        ways.setdefault(way, []).append(cause.name.lower().replace("_", " "))
    states: list[str] = list(dict.fromkeys(name for way in ways for name in way))
    order = [each.name for each in type(next(iter(steps))[0])]
    lines = [drawing(title, sorted(states, key=order.index), ways), ""]
    lines += [f"| {' | '.join((*columns, 'then it is'))} |", "|---" * (len(columns) + 1) + "|"]
    for (state, cause), step in steps.items():
        done = [_word(each) for each in effects(step)]
        row = (f"`{state.name}`", cause.value, *done, f"`{following(step).name}`")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _word(effect: str) -> str:
    return {
        "NONE": "-",
        "NOTHING": "-",
        "GIVEN": "with that code",
        "ECHO": "with the client's code",
        "CLIENTS": "the client's code, clean",
        "LOST": "1006, not clean",
        "KEEP": "stays",
        "CLOSE": "closed",
        "DRAIN": "ended, then drained",
        "ABORT": "aborted",
    }.get(effect, effect)


PARTS: dict[str, Callable[[], str]] = {
    "settings": markdown_table,
    "errors": error_table,
    "close-reasons": close_reason_table,
    "closing": closing_table,
    "holding": holding_table,
    "residence": residence_table,
    "link": link_table,
    "slot": slot_table,
}
"""File name (without ``.md``) -> who writes it."""


def write_all(app: object = None) -> None:
    """Write all parts. One that has not changed is left alone, so that Sphinx need not read it."""
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    for name, write in PARTS.items():
        path, text = folder / f"{name}.md", write() + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx' entry point."""
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
