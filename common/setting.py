"""What one setting is: its name, type, unit and bounds, and how its text is read.

The table of all settings is ``common.settings``. A setting is declared as a field of a dataclass,
so the declaration is at once its documentation, its validation and its static type::

    port: int = setting(8787, lo=1, hi=65535, section="Network", roles=("gateway",), help="...")

Its environment variable is the field's name in capitals (``PORT``), its flag ``--port``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

from common.errors import ConfigError

Role: TypeAlias = Literal["gateway", "shard", "supervisor"]
"""The kinds of processes that read settings."""

Value: TypeAlias = int | float | bool | str | Path
V = TypeVar("V", int, float, bool, str, Path)

METADATA_KEY: Final = "setting"
_ON_OFF: Final = {"on": True, "off": False}
_UNITS: Final = {"_S": "s", "_BYTES": "bytes"}


@dataclass(frozen=True, slots=True)
class Spec:
    """What ``setting()`` was told; the field adds the name.

    Attributes:
        lo: least allowed value, for numbers.
        hi: greatest allowed value, for numbers.
        special: a value with a meaning of its own and that meaning, as in ``{0: "off"}``.
        choices: the allowed words, for text; empty if any text goes.
        section: the heading under which the documentation lists it.
        roles: the processes that read it.
        help: one line for people.
        shown_default: what the documentation shows when the default depends on the installation.
    """

    lo: float
    hi: float
    special: dict[float, str]
    choices: tuple[str, ...]
    section: str
    roles: tuple[Role, ...]
    help: str
    shown_default: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings."""

    attribute: str
    default: Value
    spec: Spec

    @property
    def env(self) -> str:
        """The environment variable."""
        return self.attribute.upper()

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.attribute.replace("_", "-")

    @property
    def unit(self) -> str:
        """The unit its name ends in: ``s``, ``bytes`` or nothing."""
        return next((unit for end, unit in _UNITS.items() if self.env.endswith(end)), "")

    @property
    def allowed(self) -> str:
        """What values are allowed, as a clause: ``1 to 256``, ``on or off``, ``a path``."""
        match self.default:
            case bool():
                return "on or off"
            case Path():
                return "a path"
            case str() if not self.spec.choices:
                return "text that is not empty"
            case str():
                return " or ".join(self.spec.choices)
            case int() | float():
                unit = f" {self.unit}" if self.unit else ""
                text = f"{_number(self.spec.lo)} to {_number(self.spec.hi)}{unit}"
                named = "".join(f" ({_number(k)} = {v})" for k, v in self.spec.special.items())
                return text + named

    def read(self, given: Value, where: str) -> Value:
        """Return ``given`` as a value of this setting's type, within its bounds.

        Args:
            given: text from the environment or the command line, or a value of the right type.
            where: the input as its author knows it, ``"PORT=0"``, for the error.

        Raises:
            ConfigError: it is not of the type, out of bounds, or not one of the choices.
        """
        value = self._parse(given.strip()) if isinstance(given, str) else self._convert(given)
        if value is None or not self._within(value):
            raise ConfigError(
                f"must be {self.allowed}",
                where=where,
                remedy=f"{self.spec.help} The default is {self.write(self.default)}.",
            )
        return value

    def write(self, value: Value) -> str:
        """Return the text that ``read`` understands as ``value``."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return _number(value) if isinstance(value, int | float) else str(value)

    def _parse(self, text: str) -> Value | None:
        match self.default:
            case bool():
                return _ON_OFF.get(text)
            case Path():
                return Path(text).expanduser() if text and "\0" not in text else None
            case str():
                return text
            case int():
                return _to_int(text)
            case float():
                return _to_float(text)

    def _convert(self, given: Value) -> Value | None:
        if isinstance(self.default, float) and type(given) is int:
            return float(given)
        # bool is an int to Python, but PORT=True is a mistake.
        same = isinstance(given, type(self.default)) and (
            isinstance(given, bool) == isinstance(self.default, bool)
        )
        return given if same else None

    def _within(self, value: Value) -> bool:
        match value:
            case bool() | Path():
                return True
            case str():
                return value in self.spec.choices if self.spec.choices else value != ""
            case int() | float():
                return self.spec.lo <= value <= self.spec.hi or value in self.spec.special


def setting(
    default: V,
    *,
    section: str,
    roles: tuple[Role, ...],
    help: str,
    lo: float = -math.inf,
    hi: float = math.inf,
    special: dict[float, str] | None = None,
    choices: tuple[str, ...] = (),
    shown_default: str | None = None,
) -> V:
    """Declare a setting as a dataclass field; see :class:`Spec` for the arguments.

    The type of ``default`` is the type of the setting: a whole number, a number, on or off, text
    or a path.
    """
    spec = Spec(lo, hi, special or {}, choices, section, roles, help, shown_default)
    declared: Any = field(default=default, metadata={METADATA_KEY: spec})
    return declared  # type: ignore[no-any-return]


def _to_int(text: str) -> int | None:
    # Stricter than int(): no underscores, no other scripts' digits.
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def _to_float(text: str) -> float | None:
    if not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
