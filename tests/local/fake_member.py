"""A tiny stand-in for a gateway or a shard: `fake_member.py ROLE INDEX STORY BEHAVIOUR`.

It says that it is ready as a real one does, appends what it does to the file STORY, one line each,
and ends as BEHAVIOUR says:

    serve       until SIGTERM
    stubborn    ignores SIGTERM
    refuse      reports an error instead of readiness
    silent      exits with code 3 without a word
    parent      starts a process of its own first, then serves
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from common.parent import follow_parent
from common.readiness import Readiness


def main() -> int:
    role, index, story, behaviour = sys.argv[1:5]

    def tell(what: str) -> None:
        with Path(story).open("a") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            out.write(f"{what} {role} {index} {os.getpid()}\n")

    # Before any thread is started: one that did not block it would be ended by it, and we with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    follow_parent(os.environ, grace_s=1)
    readiness = Readiness.from_environ(os.environ)
    tell("start")
    if behaviour == "refuse":
        readiness.failed("the app is broken")
        return 1
    if behaviour == "silent":
        return 3
    if behaviour == "parent":
        # Not `with`: that would wait for its end, and nobody is to end it but the supervisor.
        below = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        Path(story).with_suffix(".below").write_text(str(below.pid))
        readiness.ready()
        signal.sigwait([signal.SIGTERM])
        return 0
    tell("ready")
    readiness.ready()
    while True:
        signal.sigwait([signal.SIGTERM])
        tell("term")
        if behaviour != "stubborn":
            return 0


if __name__ == "__main__":
    sys.exit(main())
