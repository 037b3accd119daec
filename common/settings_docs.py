"""The documentation of the settings, written from their table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.settings import TABLE

if TYPE_CHECKING:
    from common.setting import Setting


def markdown_table() -> str:
    """Return the documentation of all settings: a heading and a Markdown table per section."""
    lines: list[str] = []
    for section in dict.fromkeys(row.spec.section for row in TABLE):
        lines += [
            f"## {section}",
            "",
            "| variable | flag | default | allowed | read by | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for row in TABLE:
            if row.spec.section == section:
                default = row.spec.shown_default or _shown(row)
                lines.append(
                    f"| `{row.env}` | `{row.flag}` | {default} | {row.allowed} "
                    f"| {', '.join(row.spec.roles)} | {row.spec.help} |"
                )
        lines.append("")
    return "\n".join(lines)


def _shown(row: Setting) -> str:
    return f"./{row.default}" if isinstance(row.default, Path) else row.write(row.default)
