from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bodies import PIECE_BYTES, BodyReceiver, BodySender


@given(st.lists(st.binary(max_size=300_000), max_size=6), st.integers(1, 200_000), st.data())
def test_a_sender_never_passes_its_credit_and_loses_nothing(
    pushes: list[bytes], window: int, data: st.DataObject
) -> None:
    sender = BodySender(window)
    sent, allowed = b"", window
    for push in pushes:
        pieces = sender.push(push)
        sent += b"".join(pieces)
        assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
        assert len(sent) <= allowed
        while sender.is_blocked:
            credit = data.draw(st.integers(1, 200_000))
            allowed += credit
            sent += b"".join(sender.credit(credit))
            assert len(sent) <= allowed
    assert sent == b"".join(pushes)


def test_a_receiver_gives_credit_in_quarters_of_the_window() -> None:
    receiver = BodyReceiver(100_000)
    receiver.arrived(24_000)
    assert receiver.consumed() == 0
    receiver.arrived(2_000)
    assert receiver.consumed() == 26_000
    assert receiver.consumed() == 0


def test_a_sender_without_credit_is_found_out() -> None:
    receiver = BodyReceiver(100_000)
    receiver.arrived(100_000)
    receiver.arrived(PIECE_BYTES)  # senders check before a piece, not within it
    with pytest.raises(ValueError, match="without credit"):
        receiver.arrived(1)


@given(st.integers(16_384, 500_000), st.integers(0, 2_000_000))
def test_the_two_together_always_finish(window: int, size: int) -> None:
    sender, receiver = BodySender(window), BodyReceiver(window)
    pieces = sender.push(bytes(size))
    received = 0
    while pieces:
        for piece in pieces:
            receiver.arrived(len(piece))
            received += len(piece)
        pieces = sender.credit(receiver.consumed())
    assert received == size
