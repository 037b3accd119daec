"""What an object sends may leave now, or must wait for the object's output gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

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
