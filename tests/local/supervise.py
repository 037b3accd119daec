"""Runs `Supervisor` over fake members: `supervise.py STORY BEHAVIOUR`. Prints READY when it is."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, LimpetError
from common.settings import Settings
from local.child import Member
from local.supervisor import Supervisor

FAKE = Path(__file__).with_name("fake_member.py")


def main() -> int:
    story, behaviour = sys.argv[1:3]

    def command(member: Member) -> Sequence[str]:
        return (sys.executable, str(FAKE), member.role, str(member.index), story, behaviour)

    supervisor = Supervisor(
        Settings.load(os.environ), command=command, on_ready=lambda: print("READY", flush=True)
    )
    try:
        asyncio.run(supervisor.run())
    except LimpetError as error:
        print(error, flush=True)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
