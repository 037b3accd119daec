"""What an app prints and logs carries the name of the object that did it.

Log lines, of ``logging`` and structlog alike, get a field ``object``: it is bound in the context
of each activation, which every task and thread that the object starts inherits. Printed
lines get a prefix::

    [Room('lobby')] hello
"""

from __future__ import annotations

import sys
from contextvars import Context
from typing import Any, TextIO, cast

import structlog

from shard.activation import Activation
from shard.turn import current_owner


def name_logs(context: Context, name: str) -> None:
    """Let every log line written in *context* carry the object's name."""
    context.run(structlog.contextvars.bind_contextvars, object=name)


class NamedOutput:
    """Stands in for ``sys.stdout`` or ``sys.stderr`` of a shard process.

    Lines of objects get their prefix, and each line is written out as it ends: what is behind a
    pipe, as under a supervisor or in a container, would else see it much later. A line that one
    object has begun and another continues is broken in two.

    Args:
        stream: where lines go; whatever else is asked of this is asked of that.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line_of: object = None
        self._at_start = True

    def write(self, text: str) -> int:
        """Write *text*, prefixed where a line of an object begins."""
        if not text:
            return 0
        owner = current_owner.get()
        out = text
        if isinstance(owner, Activation):
            prefix = f"[{owner.slot}] "
            out = text[:-1].replace("\n", "\n" + prefix) + text[-1]
            if self._at_start or self._line_of is not owner:
                out = prefix + out
        if not self._at_start and self._line_of is not owner:
            out = "\n" + out
        self._at_start = text[-1] == "\n"
        self._line_of = owner
        self._stream.write(out)
        if "\n" in text:
            self._stream.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Name what objects print, from now on in this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, NamedOutput):
            setattr(sys, name, cast(TextIO, NamedOutput(stream)))


def uninstall() -> None:
    """Undo :func:`install`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, NamedOutput):
            setattr(sys, name, stream._stream)
