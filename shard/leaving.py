"""What an object sends may leave now, or must wait for the object's output gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from shard.activation import Activation

if TYPE_CHECKING:
    from shard.storage.output_gate import OutputGate
    from shard.turn import Owner


def gate_before(owner: Owner | None) -> OutputGate | None:
    """The gate that what *owner* sends now has to pass; ``None`` if it may leave at once."""
    if type(owner) is not Activation:
        return None
    outputs = owner.outputs
    return outputs if outputs is not None and outputs.held else None


async def pass_gate(owner: Owner | None) -> None:
    """Wait until what *owner* sends now may leave.

    Raises:
        BaseException: it never may; the reason why.
    """
    gate = gate_before(owner)
    if gate is None:
        return
    passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def release() -> None:
        if not passed.done():
            passed.set_result(None)

    def drop(error: BaseException) -> None:
        if not passed.done():
            passed.set_exception(error)

    gate.push(release, drop)
    await passed


class GatedChunks:
    """The pieces of a body that *owner* sends: each leaves when what it may reveal is durable.

    To be iterated by a task of *owner*. How it ends, well or with an exception, waits too.
    """

    __slots__ = ("_chunks", "_owner")

    def __init__(self, owner: Owner | None, chunks: AsyncIterator[Any]) -> None:
        self._owner = owner
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """The next piece.

        Raises:
            BaseException: what the producer raised; or why its writes are lost.
        """
        try:
            chunk = await anext(self._chunks)
        except Exception:
            await pass_gate(self._owner)
            raise
        await pass_gate(self._owner)
        return chunk

    async def aclose(self) -> None:
        """The reader gives up: the producer is closed."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
