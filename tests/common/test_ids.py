from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import PARTITION_COUNT, IdFactory, ObjectId, partition_of

# As Cloudflare's open-source runtime derives them.
VECTORS = [
    ("uk1", "", "53076399ea6f4a8322124522caa00db9f8d4ba1a55f6c6c3cbe432527aa7136a"),
    ("uk1", "a", "c3ce5c6e392e2875eb3c30baac31942b9c923f94824262b2d75d8c532480ab40"),
    ("uk1", "room", "0ed66600c709a125c5ec81ef13cc8a6dc25b42e439451bf8bd32fa04a4f0c715"),
    ("uk1", "héllo", "2703cf6798575942962656a4be4e5dff9eeea15f8bf6f56253b9c9765725bfc3"),
    ("uk1", "\U0001f600", "c74d698365e82f2bd87fbf59b3beb7ecf48a696fc76696cd4294e57d63cc2593"),
    ("uk1", "a\0b", "8166c303efd050275e27bf119dab53dc66a00cbfd7ad24f9953c8ccc64d7b73d"),
    ("uk1", "x" * 3000, "416183ba70e9cf22b2b31cceb02d02a2b93b609f7e429c98ff1cad6e7f4139e5"),
    ("k1", "room", "c9c2c23adeb21555e2037f7660a47655b80b98c21d689e446a6f56cad1503ba8"),
    ("my-worker-Room", "room", "90049aeae43af92126552cff1b07d1585c295cc1c7795121aa80836de2ff312d"),
    ("ключ", "a", "40a132125bfbab89142bb90f1c78c1b0b35bbc2dbde09a9cb0e27252f5116741"),
]
FACTORY = IdFactory("my-worker-Room")


@pytest.mark.parametrize(("key", "name", "expected"), VECTORS)
def test_ids_are_those_of_the_reference(key: str, name: str, expected: str) -> None:
    object_id = IdFactory(key).from_name(name)
    assert str(object_id) == expected
    assert object_id.name == name
    assert object_id.raw == bytes.fromhex(expected)


@given(key=st.text(), name=st.text())
def test_derivation_equals_its_definition(key: str, name: str) -> None:
    secret = hashlib.sha256(key.encode()).digest()
    head = hmac.digest(secret, name.encode(), "sha256")[:16]
    expected = head + hmac.digest(secret, head, "sha256")[:16]
    assert IdFactory(key).from_name(name).raw == expected


@given(name=st.text())
def test_hex_round_trip_keeps_the_id_and_drops_the_name(name: str) -> None:
    named = FACTORY.from_name(name)
    for text in (str(named), str(named).upper()):
        read = FACTORY.from_string(text)
        assert read == named
        assert hash(read) == hash(named)
        assert read.name is None
        assert str(read) == str(named)


def test_unique_ids_differ_carry_no_name_and_belong_to_their_namespace() -> None:
    made = {FACTORY.unique() for _ in range(100)}
    assert len(made) == 100
    for object_id in made:
        assert object_id.name is None
        FACTORY.check(object_id)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "g" * 64, " " + "0" * 63, "0" * 64 + "\n", "\u0660" * 64]
)
def test_a_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(TypeError, match=r"^Invalid Durable Object ID: must be 64 hex digits$"):
        FACTORY.from_string(text)


def test_an_id_of_another_namespace_is_refused() -> None:
    foreign = IdFactory("other-Room").from_name("room")
    wrong = r"^Durable Object ID is not valid for this namespace\.$"
    with pytest.raises(TypeError, match=wrong):
        FACTORY.from_string(str(foreign))
    with pytest.raises(TypeError, match=wrong):
        FACTORY.from_raw(foreign.raw)
    with pytest.raises(TypeError, match=wrong):
        FACTORY.check(foreign)


@given(name=st.text(), bit=st.integers(0, 255))
def test_one_changed_bit_makes_an_id_invalid(name: str, bit: int) -> None:
    raw = bytearray(FACTORY.from_name(name).raw)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TypeError, match="not valid for this namespace"):
        FACTORY.from_raw(bytes(raw))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_raw_ids_have_one_length(size: int) -> None:
    with pytest.raises(TypeError, match="64 hex digits"):
        FACTORY.from_raw(bytes(size))


@pytest.mark.parametrize(
    ("given_name", "name"),
    [(5, "5"), (None, "null"), (True, "true"), (False, "false"), (1.0, "1"), (1.5, "1.5")],
)
def test_other_values_become_strings_as_in_javascript(given_name: object, name: str) -> None:
    assert FACTORY.from_name(given_name) == FACTORY.from_name(name)
    assert FACTORY.from_name(given_name).name == name


def test_a_name_is_required() -> None:
    with pytest.raises(TypeError) as caught:
        FACTORY.from_name()
    assert str(caught.value) == (
        "Failed to execute 'idFromName' on 'DurableObjectNamespace': "
        "parameter 1 is not of type 'string'."
    )


def test_a_lone_surrogate_counts_as_the_replacement_character() -> None:
    assert FACTORY.from_name("a\ud800b") == FACTORY.from_name("a\ufffdb")
    assert FACTORY.from_name("\ud83d\ude00") == FACTORY.from_name("\U0001f600")


def test_an_id_is_immutable_and_equal_only_to_ids() -> None:
    object_id = FACTORY.from_name("room")
    with pytest.raises(FrozenInstanceError):
        object_id.raw = b""  # type: ignore[misc]
    assert object_id != str(object_id)
    assert object_id == ObjectId(object_id.raw)


@given(raw=st.binary(min_size=32, max_size=32))
def test_the_partition_is_the_first_two_bytes_modulo_1024(raw: bytes) -> None:
    assert partition_of(raw) == int.from_bytes(raw[:2], "big") % PARTITION_COUNT
    assert ObjectId(raw).partition == partition_of(raw)


def test_names_spread_evenly_over_partitions() -> None:
    count = Counter(FACTORY.from_name(f"room-{n}").partition for n in range(20 * PARTITION_COUNT))
    assert len(count) == PARTITION_COUNT
    assert max(count.values()) < 50
