"""A partition's index as bytes: what was written is read; what is damaged is known to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard.alarms.index_format import Entry, decode, encode, encode_all

names = st.none() | st.text(max_size=8)
raws = st.integers(0, 5).map(lambda number: bytes([number]) * 32)
entries = st.builds(Entry, st.just("app-Room"), raws, names, st.none() | st.integers(1, 1 << 45))
first = st.lists(
    entries.filter(lambda entry: entry.due_ms is not None), unique_by=lambda entry: entry.raw
)


def after(began_with: list[Entry], appended: list[Entry]) -> dict[bytes, Entry]:
    said = {entry.raw: entry for entry in [*began_with, *appended]}
    return {raw: entry for raw, entry in said.items() if entry.due_ms is not None}


def written(began_with: list[Entry], appended: list[Entry], complete: bool = True) -> bytes:
    return encode_all(began_with, complete=complete)[0] + b"".join(map(encode, appended))


@given(first, st.lists(entries), st.booleans())
def test_the_last_word_about_each_object_counts(
    began_with: list[Entry], appended: list[Entry], complete: bool
) -> None:
    contents = decode(written(began_with, appended, complete))
    assert contents.entries == after(began_with, appended)
    assert contents.records == len(began_with) + len(appended)
    assert (contents.complete, contents.damaged) == (complete, False)


@given(first, st.lists(entries, min_size=1), st.data())
def test_a_cut_is_noticed_and_what_comes_before_it_is_read(
    began_with: list[Entry], appended: list[Entry], data: st.DataObject
) -> None:
    whole = written(began_with, appended)
    at = data.draw(st.integers(0, len(whole) - 1))
    contents = decode(whole[:at])
    ends = [len(written(began_with, appended[:number])) for number in range(len(appended))]
    assert contents.damaged == (at not in ends)
    if not contents.damaged:
        assert contents.entries == after(began_with, appended[: ends.index(at)])


@given(first, st.lists(entries), st.data())
def test_a_byte_that_has_changed_is_noticed(
    began_with: list[Entry], appended: list[Entry], data: st.DataObject
) -> None:
    whole = bytearray(written(began_with, appended))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(whole)).damaged


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"SQLite format 3\0" * 30])
def test_what_is_no_index_is_damaged(data: bytes) -> None:
    contents = decode(data)
    assert contents.damaged
    assert not contents.entries


def test_zeros_behind_the_end_are_damage() -> None:
    """So a power cut may leave a file: longer, and not written."""
    entry: Any = Entry("app-Room", b"\1" * 32, "a", 5)
    contents = decode(written([entry], []) + bytes(512))
    assert contents.damaged
    assert contents.entries == {entry.raw: entry}
