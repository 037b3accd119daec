"""Has a partition's database files left alone while they are copied.

If a cluster runs, its shards are asked (:mod:`shard.still`): its objects go on meanwhile. If none
does, the partitions' locks are taken, so that none can start.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from common.errors import ConfigError, HeldElsewhere, LimpetError, Unavailable
from common.ids import Partition
from common.ownership import FlockOwnership
from common.settings import Settings
from local.object_files import Moved

LEASE_S: Final = 30.0
RENEW_AFTER_S: Final = 8.0
PATIENCE_S: Final = 60.0
"""How long a partition may be nobody's: shards restart, and hand partitions over."""
_ATTEMPTS: Final = 5
_LOOK_S: Final = 0.1

T = TypeVar("T")
Work = Callable[[Callable[[], None]], T]
"""Is given what to call between its pieces; may be begun anew."""


class Stillness(Protocol):
    """Keeps partitions still."""

    running: bool
    """A cluster runs."""

    def during(self, partition: Partition, work: Work[T]) -> T:
        """Do *work* while the database files of a partition are not written to.

        Raises:
            LimpetError: they could not be kept still.
        """

    def close(self) -> None:
        """Let everything go."""


def stillness_of(settings: Settings, partitions: Iterable[Partition]) -> Stillness:
    """Find out whether a cluster runs, and how to keep partitions still.

    Raises:
        ConfigError: one does, and not in this RUN_DIR.
    """
    sockets = [
        path for path in sorted(settings.run_dir.glob("shard-*.admin.sock")) if _answers(path)
    ]
    if sockets:
        return RunningCluster(sockets, settings)
    return StoppedCluster(settings.data_dir, partitions)


class StoppedCluster:
    """No cluster runs, and none can start: this process has the locks.

    Raises:
        ConfigError: a process has one of them.
    """

    def __init__(self, data_dir: Path, partitions: Iterable[Partition]) -> None:
        self.running = False
        self._ownership = FlockOwnership(data_dir)
        try:
            self._ownership.acquire(partitions)
        except HeldElsewhere as error:
            raise ConfigError(
                f"{error.what} is in use by {error.holder or 'a process'}",
                where=f"DATA_DIR={data_dir}",
                remedy="A cluster uses it: give this command the cluster's --run-dir, or stop it.",
            ) from None

    def during(self, partition: Partition, work: Work[T]) -> T:
        """See :meth:`Stillness.during`."""
        return work(lambda: None)

    def close(self) -> None:
        """See :meth:`Stillness.close`."""
        for partition in list(self._ownership.held()):
            self._ownership.release(partition)


class RunningCluster:
    """A cluster runs: its shards are asked."""

    def __init__(self, sockets: list[Path], settings: Settings) -> None:
        self.running = True
        self._run_dir = settings.run_dir
        self._data_dir = settings.data_dir
        self._hint = sockets[0]

    def during(self, partition: Partition, work: Work[T]) -> T:
        """See :meth:`Stillness.during`."""
        for _ in range(_ATTEMPTS):
            path, token = self._begin(partition)
            lease = _Lease(path, token)
            try:
                done = work(lease.go_on)
            except (Moved, _Ended):
                lease.end()
                continue
            except BaseException:
                lease.end()
                raise
            if lease.end():
                return done
        raise Unavailable(f"partition {partition} could not be kept still {_ATTEMPTS} times")

    def close(self) -> None:
        """See :meth:`Stillness.close`."""

    def _begin(self, partition: Partition) -> tuple[Path, str]:
        give_up_at = time.monotonic() + PATIENCE_S
        said = "no shard answers"
        while True:
            others = sorted(self._run_dir.glob("shard-*.admin.sock"))
            for path in dict.fromkeys([self._hint, *others]):
                try:
                    answer = _post(path, "still", {"partition": partition, "seconds": LEASE_S})
                except (OSError, http.client.HTTPException, LimpetError) as error:
                    said = str(error)
                    continue
                self._check_folder(answer["data_dir"])
                self._hint = path
                return path, str(answer["token"])
            if time.monotonic() > give_up_at:
                raise Unavailable(f"no shard has had partition {partition} lately: {said}")
            time.sleep(_LOOK_S)

    def _check_folder(self, theirs: str) -> None:
        if Path(theirs) != self._data_dir.resolve():
            raise ConfigError(
                f"the cluster that runs in RUN_DIR={self._run_dir} keeps its data in {theirs}",
                where=f"DATA_DIR={self._data_dir}",
                remedy="Give this command the cluster's own --data-dir and --run-dir.",
            )


class _Ended(Exception):  # noqa: N818 - what happened
    """The lease was over before its end."""


class _Lease:
    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token
        self._renewed_at = time.monotonic()

    def go_on(self) -> None:
        if time.monotonic() - self._renewed_at < RENEW_AFTER_S:
            return
        if not self._ask("still-renew", seconds=LEASE_S):
            raise _Ended
        self._renewed_at = time.monotonic()

    def end(self) -> bool:
        return self._ask("still-end")

    def _ask(self, command: str, **more: object) -> bool:
        with suppress(OSError, http.client.HTTPException, LimpetError):
            return bool(_post(self._path, command, {"token": self._token, **more})["held"])
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def _post(path: Path, command: str, asked: dict[str, object]) -> dict[str, Any]:
    """Ask a process something.

    Raises:
        OSError, http.client.HTTPException: it does not answer.
        LimpetError: it says that it cannot.
    """
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(PATIENCE_S)
        connection.sock.connect(str(path))
        body = json.dumps(asked)
        connection.request("POST", f"/{command}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != http.HTTPStatus.OK:
            raise Unavailable(text.decode("utf-8", "replace").strip())
        answer: dict[str, Any] = json.loads(text)
        return answer
