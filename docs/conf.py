"""How the documentation is built (`make docs`); what the code says is written from it here."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from common.settings_docs import markdown_table  # noqa: E402

project = "Limpet"
author = "The Limpet authors"
project_copyright = author

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated"]
nitpicky = True

html_theme = "furo"
html_title = "Limpet"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e6e", "color-brand-content": "#0b6e6e"},
    "dark_css_variables": {"color-brand-primary": "#58c4c4", "color-brand-content": "#58c4c4"},
}


def write_generated() -> None:
    """Write the pages' parts that come from the code."""
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "settings.md").write_text(markdown_table(), "utf-8")


write_generated()
