from __future__ import annotations

import pytest

from common import errors
from common.errors import ConfigError, HeldElsewhere, LimpetError, LinkDown, Unavailable


def tree(root: type[LimpetError]) -> list[type[LimpetError]]:
    return [root, *(error for child in root.__subclasses__() for error in tree(child))]


@pytest.mark.parametrize("error", tree(LimpetError))
def test_the_tree_drawn_in_the_docstring_is_the_tree(error: type[LimpetError]) -> None:
    assert errors.__doc__ is not None
    drawn = next(
        line.strip(" │├└─").split()
        for line in errors.__doc__.splitlines()
        if line.strip(" │├└─").startswith(f"{error.__name__} ")
    )
    if error is LimpetError:
        return
    close = "-" if error.close_code is None else str(error.close_code)
    assert drawn[1:4] == ["yes" if error.retryable else "no", str(error.http_status), close]


@pytest.mark.parametrize("error", tree(LimpetError))
def test_every_error_has_a_status_and_a_sendable_close_code(error: type[LimpetError]) -> None:
    assert 400 <= error.http_status <= 599
    assert error.close_code in {None, 1009, 1011, 1012, 1013}
    # A client is told to come back only where that helps.
    assert not error.retryable or (error.http_status, error.close_code) == (503, 1012)


def test_a_config_error_reads_as_input_fault_remedy() -> None:
    error = ConfigError("must be 1 to 65535", where="PORT=0", remedy="Set PORT to a free port.")
    assert str(error) == "PORT=0: must be 1 to 65535\n  -> Set PORT to a free port."
    assert str(ConfigError("no app")) == "no app"


def test_held_elsewhere_names_the_thing_and_its_holder() -> None:
    error = HeldElsewhere("partition 17", holder="pid 4711 on host-a", partition=17)
    assert str(error).startswith("partition 17 is held by pid 4711 on host-a")
    assert error.partition == 17
    assert "an unknown process" in str(HeldElsewhere("shard index 0", holder=None))


def test_who_catches_what() -> None:
    assert issubclass(HeldElsewhere, Unavailable)
    assert LinkDown.retryable
    assert not errors.ProtocolError.retryable
