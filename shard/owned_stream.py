"""A body that one object gives to another.

Its producer is code of the object that made it, so each of its steps runs as that object's task,
under its gate and in its context, whoever reads: the other object, or the link to its process.
Each piece waits until what it may reveal is durable. While the body is open the object stays in
memory; if the object is reset, the reader gets the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from shard.bodies import InboundBody
from shard.leaving import pass_gate
from workers.streams import ReadableStream

if TYPE_CHECKING:
    from shard.turn import Owner
    from workers.body import Message


def keep_body_with(owner: Owner | None, message: Message) -> None:
    """Let *owner*, whose code has made *message*, go on producing its body wherever it is read."""
    source = message._source
    if owner is None or type(source) is not ReadableStream:
        return
    if source.locked or source.disturbed or type(source._source) is InboundBody:
        return
    chunks = OwnedChunks(owner, source)
    message._source = ReadableStream(chunks)


class OwnedChunks:
    """The chunks of *stream*, each produced by a task of *owner*."""

    def __init__(self, owner: Owner, stream: ReadableStream) -> None:
        self._owner = owner
        self._stream = stream
        self._chunks = stream.chunks()
        self._holds = True
        owner.held_up += 1
        owner.streams += 1

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            try:
                chunk = await self._run(_next(self._chunks))
            except Exception:
                await pass_gate(self._owner)  # its text may reveal a write, too
                raise
            await pass_gate(self._owner)
        except BaseException:
            self._let_go()
            raise
        if type(chunk) is not bytes:
            self._let_go()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """The reader gives up: the producer is told, and closed."""
        self._let_go()
        if not self._owner.dead:
            await self._run(self._stream.cancel())

    async def _run(self, step: Any) -> Any:
        owner = self._owner
        if owner.dead:
            step.close()
            raise owner.death
        task = asyncio.get_running_loop().create_task(step, context=owner.context.copy())
        try:
            return await task
        except asyncio.CancelledError:
            reader = asyncio.current_task()
            if owner.dead and not (reader is not None and reader.cancelling()):
                raise owner.death from None
            raise

    def _let_go(self) -> None:
        if self._holds:
            self._holds = False
            self._owner.held_up -= 1
            self._owner.streams -= 1
            self._owner.stirred = True

    def __del__(self) -> None:
        self._let_go()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)
