"""``pyodide.http``: ``pyfetch`` and its response.

https://pyodide.org/en/stable/usage/api/python-api/http.html
"""

from __future__ import annotations

from typing import Any

from workers.exceptions import BodyUsedError
from workers.fetch import fetch
from workers.response import FetchResponse

__all__ = ["BodyUsedError", "FetchResponse", "pyfetch"]


async def pyfetch(url: Any, /, **options: Any) -> FetchResponse:
    """Send a request: as ``workers.fetch``.

    Raises:
        OSError: the server could not be reached.
    """
    return await fetch(url, **options)
