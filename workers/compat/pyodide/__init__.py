"""What Cloudflare's Python programs import from ``pyodide``.

https://developers.cloudflare.com/workers/languages/python/ffi/
"""

from __future__ import annotations

__version__ = "0.28.2"
