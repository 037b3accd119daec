"""Rules of `local.options`: each setting that a role reads is a flag, and flags win."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from common.errors import ConfigError
from common.settings import TABLE
from local.cli import limpet
from local.options import load


def flags_of(name: str) -> set[str]:
    command = limpet.commands[name]
    return {option for p in command.params if isinstance(p, click.Option) for option in p.opts}


def test_up_has_a_flag_for_every_setting_but_the_index_of_a_process() -> None:
    assert flags_of("up") >= {
        row.flag for row in TABLE if row.attribute not in {"shard_index", "gateway_index"}
    }


@pytest.mark.parametrize("role", ["gateway", "shard"])
def test_a_role_has_the_flags_of_what_it_reads_and_no_others(role: str) -> None:
    assert flags_of(role) == {row.flag for row in TABLE if role in row.spec.roles}


def test_every_flag_shows_its_variable_and_its_default() -> None:
    text = " ".join(CliRunner().invoke(limpet, ["up", "--help"]).output.split())
    for row in TABLE:
        if row.flag in flags_of("up"):
            assert f"[{row.env}; default: " in text, row.flag


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDS", "5")
    assert load({"shards": "3"}).shards == 3
    assert load({"shards": None}).shards == 5


def test_a_wrong_value_is_refused_with_the_flag_and_the_bounds() -> None:
    with pytest.raises(ConfigError, match=r"--port 99999: must be 1 to 65535"):
        load({"port": "99999"})
