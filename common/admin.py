"""Each process' window for those who run it: health, metrics and status over HTTP.

Served on a Unix socket beside those of the links, ``RUN_DIR/<role>-<index>.admin.sock``, so only
the user who runs the cluster can look in. METRICS_PORT opens health and metrics on TCP as well.

* ``GET /health``: 200 if the process can do its work, else 503; a JSON object either way.
* ``GET /metrics``: Prometheus' text format.
* ``GET /status``: a JSON object for people and for ``limpet status``; on the Unix socket only.
* ``POST /<command>``: what the process does for commands such as ``limpet backup``: a JSON object
  in, one out; 409 with ``{"error": …}`` if it cannot. On the Unix socket only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from aiohttp import web

from common import metrics
from common.errors import ConfigError, LimpetError

if TYPE_CHECKING:
    from pathlib import Path

    from common.ownership import IndexedRole

    _Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

AdminCommand: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, object]]]
"""Takes what was asked and returns the answer; raises :class:`LimpetError` if it cannot."""

_SHUTDOWN_TIMEOUT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a process can do its work.

    Attributes:
        ok: it can.
        detail: what JSON can carry and people should know.
    """

    ok: bool
    detail: Mapping[str, object] = field(default_factory=dict)


@final
class AdminServer:
    """Serves the window. The functions run on the event loop and must return at once.

    Args:
        health: says whether the process can do its work.
        render_metrics: returns the metrics as text (``Metrics.render``).
        status: returns what there is to know; values JSON does not have are shown by ``str``.
        commands: what else can be asked for, by name.
    """

    def __init__(
        self,
        *,
        health: Callable[[], Health],
        render_metrics: Callable[[], bytes],
        status: Callable[[], Mapping[str, object]],
        commands: Mapping[str, AdminCommand] | None = None,
    ) -> None:
        self._commands = commands or {}
        self._health = health
        self._render_metrics = render_metrics
        self._status = status
        self._runners: list[web.AppRunner] = []
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Serve on a Unix socket; call once.

        A socket file that a process of this index left behind is replaced: who holds the index (see
        ``common.ownership.claim_index``) owns the path.

        Raises:
            ConfigError: the socket cannot be made.
        """
        runner = await self._runner({"/status": self._get_status}, self._commands)
        try:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - one local system call at start-up
            await web.UnixSite(runner, path).start()
            path.chmod(0o600)  # noqa: ASYNC240
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror}",
                where=str(path),
                remedy="Set RUN_DIR to a local folder that this user may write to.",
            ) from error
        self._path = path

    async def start_tcp(self, host: str, port: int) -> None:
        """Serve health and metrics, not status, on a TCP port as well.

        Raises:
            ConfigError: the port is taken, or the address is not this machine's.
        """
        runner = await self._runner({}, {})
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}: {error.strerror}",
                where=f"METRICS_PORT={port}",
                remedy="Set METRICS_PORT to a free port, or to 0 for none.",
            ) from error

    async def close(self) -> None:
        """Stop serving and remove the socket file. Doing so again has no effect."""
        while self._runners:
            await self._runners.pop().cleanup()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    async def _runner(
        self, more: Mapping[str, _Handler], commands: Mapping[str, AdminCommand]
    ) -> web.AppRunner:
        app = web.Application()
        routes = {"/health": self._get_health, "/metrics": self._get_metrics, **more}
        for route, handler in routes.items():
            app.router.add_get(route, handler)
        for name, command in commands.items():
            app.router.add_post(f"/{name}", partial(_run, command))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _get_health(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _json({"ok": health.ok, **health.detail}, status=200 if health.ok else 503)

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": metrics.CONTENT_TYPE}
        return web.Response(body=self._render_metrics(), headers=headers)

    async def _get_status(self, _request: web.Request) -> web.Response:
        return _json(self._status())


async def _run(command: AdminCommand, request: web.Request) -> web.Response:
    try:
        asked = await request.json()
        if not isinstance(asked, dict):
            raise ValueError("a command is a JSON object")
        return _json(await command(asked))
    except LimpetError as error:
        return _json({"error": str(error)}, status=409)
    except (ValueError, KeyError, TypeError) as error:
        return _json({"error": f"malformed command: {error!r}"}, status=400)


def socket_path(run_dir: Path, role: IndexedRole, index: int) -> Path:
    """Return where the window of a process is."""
    return run_dir / f"{role}-{index}.admin.sock"


def _json(value: Mapping[str, object], status: int = 200) -> web.Response:
    return web.json_response(value, status=status, dumps=lambda data: json.dumps(data, default=str))
