"""The table of records agrees with itself."""

from __future__ import annotations

import re

from common.link import records
from common.link.records import LENGTHS
from common.link.session import URGENT

NOT_KINDS = {"BODY_NONE", "BODY_WHOLE", "BODY_STREAM"}
KINDS = {
    name: value
    for name, value in vars(records).items()
    if name.isupper() and isinstance(value, int) and name not in NOT_KINDS
}


def test_every_kind_has_a_number_of_its_own_and_a_length() -> None:
    assert len(set(KINDS.values())) == len(KINDS)
    assert set(LENGTHS) == set(KINDS.values())


def test_every_kind_is_documented() -> None:
    assert records.__doc__ is not None
    documented = set(re.findall(r"``([A-Z_]+)``", records.__doc__))
    assert set(KINDS) <= documented


def test_what_may_travel_without_a_number_is_of_a_known_kind() -> None:
    assert set(LENGTHS) >= URGENT
