"""Requests that this process makes over a link: each is answered exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import LinkDown, ProtocolError
from common.link.records import (
    BODY,
    BODY_ABORT,
    BODY_CREDIT,
    BODY_END,
    BODY_NONE,
    BODY_STREAM,
    BODY_WHOLE,
    CANCEL,
    FAILED,
    REQUEST,
    RESPONSE,
    RESULT,
    Record,
)
from local.virtual_time import on_virtual_time
from shard.bodies import BodyError, InboundBody
from shard.exchanges import Answer, Exchanges
from tests.shard.kit import turns
from tests.shard.test_bodies import Line

HEAD: list[Any] = ["POST", "http://x/", [], False, BODY_NONE, None, None]


class Asker:
    def __init__(self) -> None:
        self.line = Line()
        self.exchanges = Exchanges(self.line, 1000, lambda fields: KeyError(fields["message"]))
        self.answers: list[tuple[Any, BaseException | None]] = []

    def ask(self, body: AsyncIterator[Any] | None = None) -> int:
        return self.exchanges.request(None, HEAD, body, lambda *answer: self.answers.append(answer))

    def tell(self, *record: Any) -> None:
        self.exchanges.record(list(record))

    @property
    def records(self) -> list[Record]:
        return self.line.sent

    @property
    def is_empty(self) -> bool:
        return not self.exchanges._open


def response(request_id: int, mode: int = BODY_NONE, whole: bytes | None = None) -> Record:
    return [RESPONSE, request_id, 200, "OK", [["a", "b"]], mode, whole, None]


async def pieces(count: int, closed: list[bool] | None = None) -> AsyncIterator[bytes]:
    try:
        for _ in range(count):
            yield b"x" * 600
            await asyncio.sleep(0)
    finally:
        if closed is not None:
            closed.append(True)


@on_virtual_time
async def test_a_whole_answer() -> None:
    asker = Asker()
    request_id = asker.ask()
    assert asker.records == [[REQUEST, request_id, None, HEAD]]
    asker.tell(*response(request_id, BODY_WHOLE, b"body"))
    ((answer, error),) = asker.answers
    assert isinstance(answer, Answer)
    assert error is None
    assert (answer.status, answer.headers, answer.body) == (200, [("a", "b")], b"body")
    assert asker.is_empty


@on_virtual_time
async def test_an_error_in_place_of_an_answer() -> None:
    asker = Asker()
    asker.tell(FAILED, asker.ask(), {"message": "no"})
    ((value, error),) = asker.answers
    assert value is None
    assert isinstance(error, KeyError)
    assert asker.is_empty


@on_virtual_time
async def test_only_the_first_answer_counts_and_strangers_are_ignored() -> None:
    asker = Asker()
    request_id = asker.ask()
    asker.tell(*response(99))
    for _ in range(2):
        asker.tell(*response(request_id))
    asker.tell(FAILED, request_id, {"message": "late"})
    for kind in (BODY, BODY_END, BODY_CREDIT):
        asker.tell(kind, request_id, b"")
    assert len(asker.answers) == 1


@on_virtual_time
async def test_a_streamed_answer() -> None:
    asker = Asker()
    request_id = asker.ask()
    asker.tell(*response(request_id, BODY_STREAM))
    ((answer, _),) = asker.answers
    assert isinstance(answer.body, InboundBody)
    asker.tell(BODY, request_id, b"one")
    assert not asker.is_empty
    asker.tell(BODY_END, request_id)
    assert asker.is_empty
    assert [piece async for piece in answer.body] == [b"one"]


@on_virtual_time
async def test_a_streamed_answer_that_breaks_off() -> None:
    asker = Asker()
    request_id = asker.ask()
    asker.tell(*response(request_id, BODY_STREAM))
    asker.tell(BODY_ABORT, request_id, "why")
    with pytest.raises(BodyError, match="why"):
        async for _ in asker.answers[0][0].body:
            pass
    assert asker.is_empty


@on_virtual_time
async def test_a_streamed_request_body_follows_the_credit() -> None:
    asker = Asker()
    request_id = asker.ask(pieces(5))
    await turns()

    def sent() -> int:
        return sum(len(each[2]) for each in asker.records if each[0] == BODY)

    assert sent() == 1000
    asker.tell(BODY_CREDIT, request_id, 5000)
    await turns()
    assert sent() == 3000
    assert asker.records[-1] == [BODY_END, request_id]
    asker.tell(*response(request_id))
    assert asker.is_empty


@on_virtual_time
async def test_an_upload_that_the_answer_has_overtaken_is_ended() -> None:
    asker = Asker()
    closed: list[bool] = []
    request_id = asker.ask(pieces(100, closed))
    await turns()
    asker.tell(*response(request_id))
    await turns()
    assert asker.records[-1][:2] == [BODY_ABORT, request_id]
    assert closed == [True]
    assert asker.is_empty


@on_virtual_time
async def test_cancel_tells_the_other_side_and_nobody_here() -> None:
    asker = Asker()
    closed: list[bool] = []
    request_id = asker.ask(pieces(100, closed))
    await turns()
    asker.exchanges.cancel(request_id)
    asker.exchanges.cancel(request_id)
    await turns()
    assert [each for each in asker.records if each[0] == CANCEL] == [[CANCEL, request_id]]
    assert closed == [True]
    asker.tell(*response(request_id))
    assert asker.answers == []
    assert asker.is_empty


@pytest.mark.parametrize("error", [LinkDown("gone"), ProtocolError("bad")])
def test_a_link_that_goes_down_answers_everything_once(error: Any) -> None:
    """Promptly, once, retryable."""

    @on_virtual_time
    async def main() -> None:
        asker = Asker()
        closed: list[bool] = []
        asker.ask()
        streaming = asker.ask()
        asker.ask(pieces(100, closed))
        asker.tell(*response(streaming, BODY_STREAM))
        asker.tell(BODY, streaming, b"part")
        await turns()
        asker.line.is_open = False
        asker.exchanges.link_down(error)
        asker.exchanges.link_down(error)
        await turns()
        ((answer, _), *failed) = asker.answers
        assert len(failed) == 2
        for value, each in failed:
            assert value is None
            assert each is not None
            assert each.retryable is True  # type: ignore[attr-defined]
        with pytest.raises(BodyError):
            async for _ in answer.body:
                pass
        assert closed == [True]
        assert asker.is_empty

    main()


@on_virtual_time
async def test_the_result_of_a_call() -> None:
    asker = Asker()
    told: list[Any] = []
    call_id = asker.exchanges.send(30, ["target"], lambda value, error: told.append(value))
    asker.exchanges.result([RESULT, call_id, b"value"])
    asker.exchanges.result([RESULT, call_id, b"again"])
    assert told == [b"value"]
    assert asker.is_empty
