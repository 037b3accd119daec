"""Logging: one line an event, on standard error, the same form for our code and for libraries.

On a terminal lines are for people, elsewhere they are JSON for a log collector. Every line carries
the process' role, index and id. Our code logs with ``structlog.get_logger(__name__)``; what other
libraries and apps send to ``logging`` and ``warnings`` comes out the same way.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from common.setting import Role
    from common.settings import Settings

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(
    settings: Settings, *, role: Role, index: int | None = None, stream: TextIO | None = None
) -> None:
    """Set up logging for this process; a second call replaces the first.

    Args:
        settings: ``log_level`` and ``log_format`` count.
        role: what this process is.
        index: its number among those of its role, if it has one.
        stream: where lines go; standard error by default.
    """
    output = sys.stderr if stream is None else stream
    level = _LEVELS[settings.log_level]
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not output.isatty()
    )
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _identify(role, index),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(as_json=as_json, colors=output.isatty()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
    # A reader of our standard error that went away must not make logging raise or complain.
    logging.raiseExceptions = False


def _identify(role: Role, index: int | None) -> Processor:
    identity: dict[str, object] = {"role": role, "pid": os.getpid()}
    if index is not None:
        identity["index"] = index

    def identify(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**identity, **event}

    return identify


def _renderers(*, as_json: bool, colors: bool) -> list[Processor]:
    if not as_json:
        return [structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time")]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=repr, ensure_ascii=False),
    ]
