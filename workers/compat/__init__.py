"""The modules ``js`` and ``pyodide`` that Cloudflare's Python programs import.

They are found by an app only: the host puts :data:`PATH` at the end of the app's import path, so a
package of such a name that the app brings itself wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PATH: Final = str(Path(__file__).parent)
"""The directory with the packages ``js`` and ``pyodide``."""
