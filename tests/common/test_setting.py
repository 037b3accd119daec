from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.setting import METADATA_KEY, Setting, Value, setting


@dataclass(frozen=True)
class Sample:
    whole: int = setting(5, lo=1, hi=10, section="A", roles=("shard",), help="Whole.")
    window_bytes: int = setting(
        0, lo=1, hi=9, special={0: "off"}, section="A", roles=("shard",), help="Window."
    )
    wait_s: float = setting(1.5, lo=0.5, hi=100.0, section="A", roles=("shard",), help="Wait.")
    switch: bool = setting(False, section="A", roles=("shard",), help="Switch.")
    word: str = setting("b", choices=("a", "b"), section="A", roles=("shard",), help="Word.")
    text: str = setting("t", section="A", roles=("shard",), help="Text.")
    place: Path = setting(Path("p"), section="A", roles=("shard",), help="Place.")  # noqa: RUF009


ROWS = {
    f.name: Setting(f.name, cast(Value, f.default), f.metadata[METADATA_KEY])
    for f in fields(Sample)
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("whole", "1", 1),
        ("whole", " 10 ", 10),
        ("window_bytes", "0", 0),
        ("wait_s", "2", 2.0),
        ("wait_s", "1e1", 10.0),
        ("switch", "on", True),
        ("switch", "off", False),
        ("word", "a", "a"),
        ("text", "ü = 1", "ü = 1"),
        ("place", "/tmp/x", Path("/tmp/x")),
        ("place", "~", Path.home()),
    ],
)
def test_text_is_read_as_the_type_of_the_default(name: str, text: str, value: Value) -> None:
    read = ROWS[name].read(text, "")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("whole", t) for t in ["0", "11", "", "x", "1.0", "1_0", "0x1", "+5", "٣", "9" * 5000]],
        *[("window_bytes", t) for t in ["-1", "10"]],
        *[("wait_s", t) for t in ["nan", "inf", "0.4", "1_0", "", "٣"]],
        *[("switch", t) for t in ["yes", "true", "1", "ON", ""]],
        *[("word", t) for t in ["c", "A", ""]],
        ("text", " "),
        *[("place", t) for t in ["", "a\0b"]],
    ],
)
def test_anything_else_is_refused(name: str, text: str) -> None:
    with pytest.raises(
        ConfigError, match=f"must be {ROWS[name].allowed.split(' ', maxsplit=1)[0]}"
    ):
        ROWS[name].read(text, "X")


def test_a_refusal_names_input_range_and_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        ROWS["window_bytes"].read("99", "WINDOW_BYTES=99")
    assert str(caught.value) == (
        "WINDOW_BYTES=99: must be 1 to 9 bytes (0 = off)\n  -> Window. The default is 0."
    )


@pytest.mark.parametrize(
    ("name", "value"), [("whole", True), ("whole", 1.0), ("switch", 1), ("text", 5), ("place", 5)]
)
def test_a_value_of_another_type_is_refused(name: str, value: Value) -> None:
    with pytest.raises(ConfigError):
        ROWS[name].read(value, "X")


def test_a_whole_number_of_seconds_may_be_given_as_int() -> None:
    assert ROWS["wait_s"].read(2, "") == 2.0


def test_names_follow_from_the_attribute() -> None:
    row = ROWS["window_bytes"]
    assert (row.env, row.flag, row.unit) == ("WINDOW_BYTES", "--window-bytes", "bytes")
    assert ROWS["wait_s"].unit == "s"
    assert ROWS["whole"].unit == ""


@given(st.one_of(st.integers(1, 10)))
def test_whole_numbers_round_trip(value: int) -> None:
    assert ROWS["whole"].read(ROWS["whole"].write(value), "") == value


@given(st.floats(0.5, 100.0))
def test_numbers_round_trip(value: float) -> None:
    assert ROWS["wait_s"].read(ROWS["wait_s"].write(value), "") == value
