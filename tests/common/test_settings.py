from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.settings import TABLE, UNIX_PATH_MAX_BYTES, Settings

if TYPE_CHECKING:
    from common.setting import Setting, Value

SHORT = {"RUN_DIR": "/r"}


def test_defaults_are_within_their_own_bounds() -> None:
    for row in TABLE:
        assert row.read(row.default, row.env) == row.default


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.load(SHORT)
    assert settings == replace(
        Settings(),
        run_dir=Path("/r"),
        data_dir=Path.cwd() / ".limpet/data",
    )
    assert (settings.app / "wrangler.jsonc").is_file()


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_environment_then_overrides_win() -> None:
    settings = Settings.load(SHORT | {"PORT": "1000", "SHARDS": "3"}, {"port": "2000"})
    assert (settings.port, settings.shards) == (2000, 3)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.load(SHORT | {"PORT": "", "COMPRESSION": " "}).port == 8787


def test_unknown_variables_are_none_of_our_business_but_unknown_overrides_are() -> None:
    Settings.load(SHORT | {"PROT": "x"})
    with pytest.raises(KeyError, match="prot"):
        Settings.load(SHORT, {"prot": "x"})


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(SHORT | {"DATA_DIR": "a/../b", "APP": "app"})
    assert settings.data_dir == tmp_path / "b"
    assert settings.app == tmp_path / "app"


@pytest.mark.parametrize(
    ("environ", "overrides", "where"),
    [
        ({"PORT": "99999"}, {}, "PORT=99999: must be 1 to 65535"),
        ({}, {"port": "x"}, "--port x: must be 1 to 65535"),
        ({}, {"shards": 257}, "--shards 257: must be 1 to 256"),
        ({"COMPRESSION": "true"}, {}, "COMPRESSION=true: must be on or off"),
        ({"LOG_LEVEL": "loud"}, {}, "LOG_LEVEL=loud: must be debug or info or"),
        ({"PING_INTERVAL_S": "0.5"}, {}, "PING_INTERVAL_S=0.5: must be 1 to 86400 s (0 = off)"),
    ],
)
def test_a_bad_value_names_itself_and_what_is_allowed(
    environ: dict[str, str], overrides: dict[str, Value], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(SHORT | environ, overrides)
    assert str(caught.value).startswith(where)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        (
            {"LINK_RECONNECT_MIN_S": "3"},
            "LINK_RECONNECT_MIN_S=3: is more than LINK_RECONNECT_MAX_S=0.25",
        ),
        ({"RESTART_BACKOFF_MAX_S": "0.05"}, "RESTART_BACKOFF_MIN_S=0.1: is more than"),
        (
            {"MAX_MESSAGE_BYTES": "67108863"},
            "MAX_MESSAGE_BYTES=67108863: must be at least 65536 less",
        ),
        ({"MAX_RPC_BYTES": "67108864"}, "MAX_RPC_BYTES=67108864: must be at least 65536 less"),
        ({"GATEWAY_INDEX": "1"}, "GATEWAY_INDEX=1: must be less than GATEWAYS=1"),
    ],
)
def test_values_that_contradict_each_other_are_refused(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(SHORT | environ)
    assert str(caught.value).startswith(fault)


def test_the_run_directory_must_leave_room_for_a_socket_name() -> None:
    longest = "/" + "r" * (UNIX_PATH_MAX_BYTES - len("//gateway-63.admin.sock"))
    Settings.load({"RUN_DIR": longest})
    with pytest.raises(ConfigError, match="is 1 bytes too long"):
        Settings.load({"RUN_DIR": longest + "r"})
    with pytest.raises(ConfigError, match="is 1 bytes too long"):
        Settings.load({"RUN_DIR": longest[:-1] + "ü"})  # two bytes


def values(row: Setting) -> st.SearchStrategy[Value]:
    spec = row.spec
    match row.default:
        case bool():
            return st.booleans()
        case Path():
            return st.sampled_from([Path("/a"), Path("/a b/ü")])
        case str():
            return st.sampled_from(spec.choices or ("::", "localhost"))
        case int():
            special = [int(v) for v in spec.special]
            return st.integers(int(spec.lo), int(spec.hi)) | st.sampled_from(
                special or [row.default]
            )
        case float():
            return st.floats(spec.lo, spec.hi)


@given(data=st.data())
def test_a_child_process_loads_what_its_parent_has(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(TABLE))
    try:
        settings = Settings.load(SHORT, {row.attribute: data.draw(values(row))})
    except ConfigError:
        return
    assert Settings.load(settings.to_environ()) == settings


def test_every_setting_is_documented() -> None:
    for row in TABLE:
        assert row.spec.help.endswith(".")
        assert row.spec.roles
        numeric = isinstance(row.default, int | float) and not isinstance(row.default, bool)
        assert not numeric or row.spec.lo <= row.spec.hi < float("inf")
