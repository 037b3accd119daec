"""Command-line flags, made from the one table of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from common.setting import Role, Setting
from common.settings import TABLE, Settings

F = TypeVar("F", bound=Callable[..., Any])

# A supervisor numbers its processes itself.
_NUMBERED_BY_SUPERVISOR = ("shard_index", "gateway_index")


def settings_options(*roles: Role, only: Sequence[str] = ()) -> Callable[[F], F]:
    """Decorate a command with a flag for each setting that one of `roles` reads, or *only* some.

    The command gets them as keyword arguments named after the settings; those not given are None,
    so that `load` can tell them from the defaults.
    """
    rows = [row for row in TABLE if set(row.spec.roles) & set(roles)]
    if "supervisor" in roles:
        rows = [row for row in rows if row.attribute not in _NUMBERED_BY_SUPERVISOR]
    if only:
        rows = [row for row in TABLE if row.attribute in only]

    def decorate(command: F) -> F:
        for row in reversed(rows):
            command = _option(row)(command)
        return command

    return decorate


def load(flags: dict[str, str | None]) -> Settings:
    """Return the settings: flags before environment variables before defaults.

    Raises:
        ConfigError: a value is refused.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    return Settings.load(os.environ, given)


def _option(row: Setting) -> Callable[[F], F]:
    default = row.spec.shown_default or row.write(row.default)
    if isinstance(row.default, Path) and row.spec.shown_default is None:
        default = f"./{row.default}"
    return click.option(
        row.flag,
        row.attribute,
        # The table reads and judges the text, so that a flag and a variable get the same message.
        type=str,
        metavar=_metavar(row),
        default=None,
        help=f"{row.spec.help}  [{row.env}; default: {default}]",
    )


def _metavar(row: Setting) -> str:
    match row.default:
        case bool():
            return "on|off"
        case Path():
            return "PATH"
        case str():
            return "|".join(row.spec.choices) or "TEXT"
        case int() | float():
            return {"s": "SECONDS", "bytes": "BYTES"}.get(row.unit, "NUMBER")
