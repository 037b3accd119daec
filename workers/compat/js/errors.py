"""``js.Error`` and its kin: Python exceptions made with ``.new(message)``."""

from __future__ import annotations

import builtins

from workers.exceptions import JsException
from workers.exceptions import RangeError as _RangeError


class Error(JsException):
    """JavaScript's ``Error``."""


class TypeError(builtins.TypeError):  # noqa: A001
    """JavaScript's ``TypeError``; Python's too."""

    @classmethod
    def new(cls, message: str = "") -> TypeError:
        """Make one."""
        return cls(message)


class RangeError(_RangeError):
    """JavaScript's ``RangeError``; a ``ValueError`` too."""

    @classmethod
    def new(cls, message: str = "") -> RangeError:
        """Make one."""
        return cls(message)


class SyntaxError(builtins.SyntaxError):  # noqa: A001
    """JavaScript's ``SyntaxError``; Python's too."""

    @classmethod
    def new(cls, message: str = "") -> SyntaxError:
        """Make one."""
        return cls(message)
