"""``js.console``: lines in the app's log."""

from __future__ import annotations

import logging
from typing import Any

from workers.compat.js.text import JSON
from workers.host import current_host

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Console:
    """JavaScript's ``console``.

    Source: https://developers.cloudflare.com/workers/runtime-apis/console/
    """

    def log(self, *values: Any) -> None:
        """Write a line of level info."""
        _write("info", values)

    def info(self, *values: Any) -> None:
        """Write a line of level info."""
        _write("info", values)

    def debug(self, *values: Any) -> None:
        """Write a line of level debug."""
        _write("debug", values)

    def warn(self, *values: Any) -> None:
        """Write a line of level warning."""
        _write("warning", values)

    def error(self, *values: Any) -> None:
        """Write a line of level error."""
        _write("error", values)

    trace = debug


console = _Console()


def _write(level: str, values: tuple[Any, ...]) -> None:
    message = " ".join(map(_text, values))
    try:
        host = current_host()
    except RuntimeError:
        logging.getLogger("console").log(_LEVELS[level], "%s", message)
    else:
        host.log(level, message)


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        try:
            return JSON.stringify(value) or ""
        except (TypeError, ValueError):
            return repr(value)
    return str(value)
