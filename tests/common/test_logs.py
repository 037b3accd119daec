from __future__ import annotations

import io
import json
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from common.logs import configure
from common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class BrokenStream(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what configure() does to this process."""
    root = logging.getLogger()
    handlers, level, complain = root.handlers[:], root.level, logging.raiseExceptions
    # basicConfig(force=True) closes the handlers it finds, and pytest's are still needed.
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = complain
    logging.captureWarnings(False)
    structlog.reset_defaults()


def start(stream: io.StringIO | None = None, **settings: Any) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(Settings(**settings), role="shard", index=3, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_and_says_who_when_and_what() -> None:
    stream = start()
    structlog.get_logger("common.link").warning("link.failed", peer="shard 1")
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "role": "shard",
        "index": 3,
        "pid": os.getpid(),
        "level": "warning",
        "logger": "common.link",
        "event": "link.failed",
        "peer": "shard 1",
    }


def test_libraries_that_use_logging_come_out_the_same_way() -> None:
    stream = start()
    logging.getLogger("aiohttp.server").error("bad %s", "thing", extra={"peer": "x"})
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "bad thing",
        "aiohttp.server",
        "error",
    )
    assert (line["role"], line["index"], line["peer"]) == ("shard", 3, "x")


def test_warnings_are_logged() -> None:
    stream = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old API", DeprecationWarning, stacklevel=1)
    assert "old API" in lines(stream)[0]["event"]


@pytest.mark.parametrize("ours", [True, False])
def test_a_traceback_stays_within_its_line(ours: bool) -> None:
    stream = start()
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        if ours:
            structlog.get_logger("a").exception("failed")
        else:
            logging.getLogger("a").exception("failed")
    (line,) = lines(stream)
    assert line["event"] == "failed"
    assert line["exception"].endswith("RuntimeError: boom")


def test_what_is_less_severe_than_the_level_is_dropped() -> None:
    stream = start(log_level="warning")
    structlog.get_logger("a").info("no")
    logging.getLogger("a").info("no")
    structlog.get_logger("a").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_the_form_follows_the_setting_and_the_stream(
    log_format: str, stream: type[io.StringIO], is_json: bool
) -> None:
    output = start(stream(), log_format=log_format)
    structlog.get_logger("a").info("hello")
    assert output.getvalue().startswith("{") == is_json
    assert "hello" in output.getvalue()
    # Colours are for terminals only.
    assert ("\x1b[" in output.getvalue()) == (stream is Terminal and not is_json)


def test_values_json_does_not_have_are_shown_all_the_same() -> None:
    stream = start()
    structlog.get_logger("a").info("x", value={1, 2}, raw=b"\xff")
    assert lines(stream)[0]["raw"] == repr(b"\xff")


def test_a_stream_whose_reader_is_gone_is_no_error() -> None:
    start(BrokenStream())
    structlog.get_logger("a").error("x")


def test_a_second_call_replaces_the_first() -> None:
    first, second = start(), start()
    structlog.get_logger("a").info("x")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1
