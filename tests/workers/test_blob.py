"""Blob and File."""

from __future__ import annotations

import os

import pytest

from workers.blob import Blob, BlobEnding, File


async def test_parts_are_joined() -> None:
    blob = Blob(["é", b"x", bytearray(b"y"), memoryview(b"z"), Blob("!")], "Text/Plain")
    assert await blob.bytes() == "éxyz!".encode()
    assert await blob.text() == "éxyz!"
    assert (blob.size, len(blob), blob.content_type, blob.type) == (
        6,
        6,
        "text/plain",
        "text/plain",
    )
    assert blob.js_object is blob
    assert [chunk async for chunk in blob.stream()] == ["éxyz!".encode()]


def test_a_single_part_passes_its_type_on() -> None:
    blob = Blob("x", "a/b")
    assert Blob(blob).content_type == "a/b"
    assert Blob([blob]).content_type == ""
    file = File(blob, "n", last_modified=5)
    assert (file.content_type, File(file, "m").last_modified) == ("a/b", 5)


def test_an_invalid_type_is_dropped() -> None:
    assert Blob("x", "a\n").content_type == ""


def test_other_parts_are_refused() -> None:
    with pytest.raises(TypeError, match="Don't know how to handle"):
        Blob([5])  # type: ignore[list-item]


def test_endings() -> None:
    assert bytes(Blob(["a\r\nb\nc", b"\r\n"], endings=BlobEnding.NATIVE)) == (
        f"a{os.linesep}b{os.linesep}c".encode() + b"\r\n"
    )
    assert bytes(Blob("a\r\nb", endings="transparent")) == b"a\r\nb"


def test_slices_and_equality() -> None:
    blob = Blob(b"abcdef", "a/b")
    assert bytes(blob.slice(1, -1)) == b"bcde"
    assert blob.slice(2, 3, "c/d") == Blob(b"c", "c/d")
    assert blob == Blob(b"abcdef", "a/b") != Blob(b"abcdef")
    assert File(b"x", "a") != File(b"x", "b")
    assert Blob.new(["x"], {"type": "a/b"}).content_type == "a/b"
