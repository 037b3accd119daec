from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.masking import IS_COMPILED, apply_mask, apply_mask_slowly


def test_aiohttps_compiled_function_is_where_we_look_for_it() -> None:
    """If an upgrade of aiohttp moves it, everything works on, slowly: so fail here."""
    assert IS_COMPILED


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_both_functions_do_what_the_rfc_says(key: bytes, data: bytes) -> None:
    """RFC 6455 §5.3: octet i is XORed with octet i mod 4 of the key."""
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    for function in (apply_mask, apply_mask_slowly):
        masked = bytearray(data)
        function(key, masked)
        assert masked == expected
