from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.request_body import LINES_PER_FEED, Body, ChunkedBody, LengthBody, MalformedBodyError


def receive(body: Body, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    received, rest = b"", b""
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if body.is_complete:
            rest += data[start:stop]
        else:
            part, rest = body.feed(rest + data[start:stop])
            received += part
            while rest and not body.is_complete:
                part, rest = body.feed(rest)
                received += part
    return received, rest


@given(st.binary(min_size=1, max_size=50), st.binary(max_size=20), st.lists(st.integers(0, 70)))
def test_a_body_of_known_length(data: bytes, behind: bytes, cuts: list[int]) -> None:
    body = LengthBody(len(data))
    assert receive(body, data + behind, cuts) == (data, behind)
    assert body.is_complete


@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=5),
    st.sampled_from([b"", b";a", b';a="b"', b" ;x=y;z"]),
    st.sampled_from([b"", b"X: y\r\n", b"A: b\r\nC: d\r\n"]),
    st.binary(max_size=20),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_a_chunked_body(
    chunks: list[bytes], extension: bytes, trailers: bytes, behind: bytes, cuts: list[int]
) -> None:
    """RFC 9112 §7.1."""
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks)
    data += b"0\r\n" + trailers + b"\r\n" + behind
    body = ChunkedBody()
    assert receive(body, data, cuts) == (b"".join(chunks), behind)
    assert body.is_complete


def test_one_call_reads_a_bounded_number_of_chunks() -> None:
    body = ChunkedBody()
    part, rest = body.feed(b"1\r\nx\r\n" * LINES_PER_FEED)
    assert len(part) == LINES_PER_FEED // 2
    assert len(rest) == 3 * LINES_PER_FEED


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabcX",
        b"3\nabc\r\n",
        b"3\r\nabc\n",
        b"3;a\0b\r\n",
        b"1" * 16 + b"\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\n" + b"X: y\r\n" * 2000,
        b"0\r\nX: y\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n: nameless\r\n\r\n",
        b"0\r\nX : space before the colon\r\n\r\n",
        b"0\r\nX: y\r\n folded\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
    ],
)
def test_bad_chunks(data: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        receive(ChunkedBody(), data, [])
    with pytest.raises(MalformedBodyError):  # noqa: PT012
        body = ChunkedBody()
        for at in range(len(data)):
            body.feed(data[at : at + 1])
