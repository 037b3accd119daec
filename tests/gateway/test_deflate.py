from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deflate import Deflater, inflate, negotiate

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offer", "response"),
    [
        ("permessage-deflate", BOTH),
        ("permessage-deflate; client_max_window_bits", BOTH),
        ("permessage-deflate; client_max_window_bits=10", BOTH),
        ('permessage-deflate; client_max_window_bits="15"', BOTH),
        ("PerMessage-Deflate", BOTH),
        ("permessage-deflate; server_no_context_takeover", BOTH),
        ("permessage-deflate; server_max_window_bits=10", BOTH + "; server_max_window_bits=10"),
        ("foo, permessage-deflate", BOTH),
        ("permessage-deflate; unknown, permessage-deflate", BOTH),
        ('foo; a="x, permessage-deflate; y", permessage-deflate', BOTH),
    ],
)
def test_offers_that_are_taken(offer: str, response: str) -> None:
    agreed = negotiate(offer)
    assert agreed is not None
    assert agreed.response == response


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "foo",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate;;",
    ],
)
def test_offers_that_are_declined(offer: str) -> None:
    """RFC 7692 §7.1: then there is no compression, which is no error."""
    assert negotiate(offer) is None


@given(st.lists(st.binary(max_size=2000), max_size=5), st.integers(9, 15))
def test_each_message_can_be_read_without_the_others(messages: list[bytes], bits: int) -> None:
    deflater = Deflater(bits)
    packed = [deflater(message) for message in messages]
    for message, data in reversed(list(zip(messages, packed, strict=True))):
        assert inflate(bytearray(data), 1 << 20) == message


def test_an_empty_payload_counts_as_an_empty_message() -> None:
    assert inflate(bytearray(), 10) == b""


def test_a_final_block_is_allowed() -> None:
    """RFC 7692 §7.2.3.4: a sender may set BFINAL and pad."""
    import zlib

    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(b"hello") + compressor.flush()
    assert inflate(bytearray(data + b"\0"), 10) == b"hello"


def test_too_much_and_rubbish() -> None:
    with pytest.raises(OverflowError):
        inflate(bytearray(Deflater()(b"x" * 100_000)), 1000)
    with pytest.raises(ValueError, match="invalid"):
        inflate(bytearray(b"\xff\xff"), 1000)
