"""All settings, in one table: name, type, default, bounds, unit, meaning, who reads it.

Each field of :class:`Settings` is one setting (see ``common.setting``). Environment, command-line
flags and the documentation (``common.settings_docs``) are all read off this table.
"""

# ruff: noqa: RUF009 - setting() declares a field; it is called once and its value is immutable

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, cast

from common.errors import ConfigError
from common.setting import METADATA_KEY, Role, Setting, Value, setting

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_GIB: Final = 1024 * _MIB
_DAY_S: Final = 86_400.0

_GATEWAY: Final[tuple[Role, ...]] = ("gateway",)
_SHARD: Final[tuple[Role, ...]] = ("shard",)
_BOTH: Final[tuple[Role, ...]] = ("gateway", "shard")
_SUPERVISOR: Final[tuple[Role, ...]] = ("supervisor",)
_ALL: Final[tuple[Role, ...]] = ("gateway", "shard", "supervisor")

UNIX_PATH_MAX_BYTES: Final = 107
"""Longest path of a Unix socket: ``sun_path`` holds 108 bytes, one of them NUL (unix(7))."""

_RECORD_HEAD_BYTES: Final = 64 * _KIB
"""Room that a batch keeps for what goes with the largest message or call."""

_LONGEST_SOCKET_NAME: Final = "gateway-63.admin.sock"


def _default_app() -> Path:
    """Return the reference program's folder: in a source tree, or where the wheel puts it."""
    root = Path(__file__).resolve().parents[1]
    in_tree = root / "examples" / "websocket_server"
    return in_tree if in_tree.is_dir() else root / "local" / "default_app"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its value. Immutable; the same in all processes of one cluster."""

    host: str = setting(
        "127.0.0.1",
        section="Cluster",
        roles=_GATEWAY,
        help="Address the gateways listen on; 0.0.0.0 is every interface.",
    )
    port: int = setting(
        8787,
        lo=1,
        hi=65535,
        section="Cluster",
        roles=_GATEWAY,
        help="TCP port of the gateways, for HTTP and WebSockets alike.",
    )
    app: Path = setting(
        _default_app(),
        section="Cluster",
        roles=("shard", "supervisor"),
        help="The app: a folder with a wrangler file, or that file.",
        shown_default="examples/websocket_server",
    )
    shards: int = setting(
        2,
        lo=1,
        hi=256,
        section="Cluster",
        roles=_ALL,
        help="Number of shard processes; they share the objects out among themselves.",
    )
    gateways: int = setting(
        1,
        lo=1,
        hi=64,
        section="Cluster",
        roles=_ALL,
        help="Number of gateway processes; they share one port.",
    )
    data_dir: Path = setting(
        Path("./.limpet/data"),
        section="Cluster",
        roles=_SHARD,
        help="Where objects are stored: a local file system, never a network one.",
    )
    run_dir: Path = setting(
        Path("./.limpet/run"),
        section="Cluster",
        roles=_ALL,
        help="Where the processes of one cluster meet: sockets and locks. Use a short path.",
    )
    shard_index: int = setting(
        -1,
        lo=0,
        hi=255,
        special={-1: "the lowest that is free"},
        section="Cluster",
        roles=_SHARD,
        help="Which shard this process is.",
    )
    gateway_index: int = setting(
        -1,
        lo=0,
        hi=63,
        special={-1: "the lowest that is free"},
        section="Cluster",
        roles=_GATEWAY,
        help="Which gateway this process is.",
    )

    max_message_bytes: int = setting(
        32 * _MIB,
        lo=1,
        hi=_GIB,
        section="WebSockets",
        roles=_BOTH,
        help="Largest WebSocket message, after decompression; a larger one closes with 1009.",
    )
    ping_interval_s: float = setting(
        20.0,
        lo=1,
        hi=_DAY_S,
        special={0: "off"},
        section="WebSockets",
        roles=_GATEWAY,
        help="How long a connection may be silent before the gateway pings it.",
    )
    ping_timeout_s: float = setting(
        20.0,
        lo=0.1,
        hi=_DAY_S,
        section="WebSockets",
        roles=_GATEWAY,
        help="How long a pinged client may stay silent before it counts as gone (1006).",
    )
    compression: bool = setting(
        False,
        section="WebSockets",
        roles=_GATEWAY,
        help="Whether clients may negotiate permessage-deflate (RFC 7692).",
    )
    compression_min_bytes: int = setting(
        _KIB,
        lo=0,
        hi=_GIB,
        section="WebSockets",
        roles=_GATEWAY,
        help="Messages shorter than this are sent uncompressed even where negotiated.",
    )
    close_timeout_s: float = setting(
        5.0,
        lo=0.1,
        hi=_DAY_S,
        section="WebSockets",
        roles=_GATEWAY,
        help="How long to wait for the other half of a closing handshake.",
    )
    connection_buffer_bytes: int = setting(
        16 * _MIB,
        lo=64 * _KIB,
        hi=4 * _GIB,
        section="WebSockets",
        roles=_GATEWAY,
        help="Unsent bytes kept for a client that reads slowly; beyond it is closed with 1013.",
    )
    partial_total_bytes: int = setting(
        256 * _MIB,
        lo=_MIB,
        hi=64 * _GIB,
        section="WebSockets",
        roles=_GATEWAY,
        help="Unfinished messages of all clients; beyond, who sent most of one is closed, 1013.",
    )
    socket_buffer_bytes: int = setting(
        _MIB,
        lo=4 * _KIB,
        hi=_GIB,
        section="WebSockets",
        roles=_BOTH,
        help="Bytes of a connection its object has not handled yet; beyond, reading pauses.",
    )
    max_connections: int = setting(
        0,
        lo=1,
        hi=10_000_000,
        special={0: "as many as file descriptors allow"},
        section="WebSockets",
        roles=_GATEWAY,
        help="Client connections per gateway; beyond, new ones are answered 503.",
    )

    hold_timeout_s: float = setting(
        30.0,
        lo=0.1,
        hi=_DAY_S,
        section="Sockets",
        roles=_BOTH,
        help="How long clients are kept waiting for an object whose shard is away.",
    )
    hold_connection_bytes: int = setting(
        256 * _KIB,
        lo=0,
        hi=_GIB,
        section="Sockets",
        roles=_GATEWAY,
        help="Bytes of one client kept for an object that is away; beyond, reading pauses.",
    )
    hold_total_bytes: int = setting(
        256 * _MIB,
        lo=0,
        hi=64 * _GIB,
        section="Sockets",
        roles=_BOTH,
        help="The same of all clients together, and of requests that wait for a shard.",
    )
    # More than LINK_RECONNECT_MAX_S: a gateway that is there at all has tried by then.
    adopt_timeout_s: float = setting(
        3.0,
        lo=0,
        hi=60,
        section="Sockets",
        roles=_SHARD,
        help="How long a shard that starts waits for all gateways to hand held sockets back.",
    )
    leave_timeout_s: float = setting(
        10.0,
        lo=0.1,
        hi=3600,
        section="Sockets",
        roles=_SHARD,
        help="How long a shard without a supervisor may be away before others take its objects.",
    )
    drain_timeout_s: float = setting(
        5.0,
        lo=0,
        hi=3600,
        section="Sockets",
        roles=_SHARD,
        help="How long handlers under way may take when a shard stops; then they are cut.",
    )

    upgrade_timeout_s: float = setting(
        30.0,
        lo=0.1,
        hi=_DAY_S,
        section="HTTP",
        roles=_GATEWAY,
        help="How long the app may take to answer a WebSocket upgrade before it is a 504.",
    )
    head_timeout_s: float = setting(
        15.0,
        lo=0.1,
        hi=_DAY_S,
        section="HTTP",
        roles=_GATEWAY,
        help="How long a client may take to send a request's head.",
    )
    # The reference runtime ends an idle connection after 15 s. Load balancers keep theirs for 60 s
    # by default, and a server that closes first makes them answer 502: so outlast them.
    keepalive_timeout_s: float = setting(
        75.0,
        lo=0,
        hi=_DAY_S,
        section="HTTP",
        roles=_GATEWAY,
        help="How long an idle HTTP connection is kept; longer than a load balancer's own limit.",
    )
    max_head_bytes: int = setting(
        64 * _KIB,
        lo=_KIB,
        hi=16 * _MIB,
        section="HTTP",
        roles=_GATEWAY,
        help="Largest request head; a larger one is answered 431.",
    )
    max_headers: int = setting(
        200,
        lo=8,
        hi=10_000,
        section="HTTP",
        roles=_GATEWAY,
        help="Most header fields of a request; more are answered 431.",
    )
    max_url_bytes: int = setting(
        16 * _KIB,
        lo=64,
        hi=16 * _MIB,
        section="HTTP",
        roles=_GATEWAY,
        help="Longest request target; a longer one is answered 414.",
    )
    body_window_bytes: int = setting(
        _MIB,
        lo=16 * _KIB,
        hi=_GIB,
        section="HTTP",
        roles=_BOTH,
        help="Bytes of one streaming body under way before its sender pauses.",
    )
    fetch_timeout_s: float = setting(
        60.0,
        lo=0.1,
        hi=_DAY_S,
        special={0: "no limit"},
        section="HTTP",
        roles=_SHARD,
        help="How long an app's fetch() waits for the head of a response.",
    )

    idle_timeout_s: float = setting(
        10.0,
        lo=0.1,
        hi=_DAY_S,
        section="Objects",
        roles=_SHARD,
        help="How long an object is idle before it leaves memory.",
    )
    wake_slice_s: float = setting(
        0.01,
        lo=0.001,
        hi=60,
        special={0: "no limit"},
        section="Objects",
        roles=_SHARD,
        help="How long objects are woken at a stretch; then those awake have their turn.",
    )
    block_concurrency_timeout_s: float = setting(
        30.0,
        lo=0.1,
        hi=_DAY_S,
        section="Objects",
        roles=_SHARD,
        help="How long blockConcurrencyWhile() may take before the object is reset.",
    )
    max_pending_bytes: int = setting(
        64 * _MIB,
        lo=64 * _KIB,
        hi=4 * _GIB,
        section="Objects",
        roles=_SHARD,
        help="Bytes of events that wait for one object; beyond, further ones are refused.",
    )
    max_rpc_bytes: int = setting(
        32 * _MIB,
        lo=_KIB,
        hi=_GIB,
        section="Objects",
        roles=_SHARD,
        help="Largest arguments or result of one call between objects.",
    )
    lag_warning_s: float = setting(
        1.0,
        lo=0.01,
        hi=_DAY_S,
        special={0: "off"},
        section="Objects",
        roles=_SHARD,
        help="How long a handler may block its shard before a warning names the line.",
    )

    durability: str = setting(
        "full",
        choices=("full", "normal"),
        section="Storage",
        roles=_SHARD,
        help="What a write survives before anyone is told: full: a power cut; normal: a crash.",
    )
    max_open_databases: int = setting(
        1024,
        lo=1,
        hi=1_000_000,
        section="Storage",
        roles=_SHARD,
        help="Objects' files open at once; each takes up to four file descriptors.",
    )
    database_cache_bytes: int = setting(
        2 * _MIB,
        lo=64 * _KIB,
        hi=_GIB,
        section="Storage",
        roles=_SHARD,
        help="Memory that one open object's file may take for its pages.",
    )
    wal_checkpoint_bytes: int = setting(
        4 * _MIB,
        lo=64 * _KIB,
        hi=_GIB,
        section="Storage",
        roles=_SHARD,
        help="Length of an object's write-ahead log at which it is moved into its database.",
    )
    pitr_retention_h: float = setting(
        24.0,
        lo=1 / 60,
        hi=24.0 * 366,
        special={0.0: "off"},
        section="Storage",
        roles=_SHARD,
        help="How long an object's earlier states can be gone back to.",
    )
    pitr_max_bytes: int = setting(
        64 * _MIB,
        lo=_MIB,
        hi=_GIB * 1024,
        section="Storage",
        roles=_SHARD,
        help="What the earlier states of one object may take on disk; then the oldest half goes.",
    )
    sync_threads: int = setting(
        8,
        lo=1,
        hi=256,
        special={0: "the event loop itself waits: for tests"},
        section="Storage",
        roles=_SHARD,
        help="Threads that wait for the disk, for what the kernel does not do by itself.",
    )
    output_buffer_bytes: int = setting(
        64 * _MIB,
        lo=64 * _KIB,
        hi=4 * _GIB,
        section="Storage",
        roles=_SHARD,
        help="What an object has sent and waits for its disk; beyond, the object is reset.",
    )

    alarm_timeout_s: float = setting(
        900.0,
        lo=0.001,
        hi=_DAY_S,
        section="Alarms",
        roles=_SHARD,
        help="How long alarm() may take; then its object is reset, and the alarm tried again.",
    )
    max_running_alarms: int = setting(
        1024,
        lo=1,
        hi=1_000_000,
        section="Alarms",
        roles=_SHARD,
        help="How many alarms of one shard may run at once; others wait.",
    )
    overdue_alarms_per_s: float = setting(
        2000.0,
        lo=1,
        hi=1_000_000,
        special={0: "no limit"},
        section="Alarms",
        roles=_SHARD,
        help="How many alarms that are more than a second late a shard begins in a second.",
    )
    alarm_clock_check_s: float = setting(
        1.0,
        lo=0.01,
        hi=3600,
        section="Alarms",
        roles=_SHARD,
        help="How soon alarms notice that the machine's wall clock was set.",
    )

    link_window_bytes: int = setting(
        8 * _MIB,
        lo=64 * _KIB,
        hi=4 * _GIB,
        section="Links",
        roles=_BOTH,
        help="Bytes sent to another process and not yet handled there before producers pause.",
    )
    link_max_batch_bytes: int = setting(
        64 * _MIB,
        lo=_MIB,
        hi=4 * _GIB - 1,
        section="Links",
        roles=_BOTH,
        help="Largest single write to another process; must exceed the largest message and call.",
    )
    link_reconnect_min_s: float = setting(
        0.05,
        lo=0.001,
        hi=60,
        section="Links",
        roles=_BOTH,
        help="First delay before a lost link is tried again; it doubles from there.",
    )
    # A try costs some 50 µs, and clients wait for it to succeed.
    link_reconnect_max_s: float = setting(
        0.25,
        lo=0.001,
        hi=3600,
        section="Links",
        roles=_BOTH,
        help="Longest delay between two tries of a lost link.",
    )

    stop_timeout_s: float = setting(
        10.0,
        lo=0.1,
        hi=3600,
        section="Operation",
        roles=_ALL,
        help="How long a stop may take before what is left is cut off.",
    )
    restart_backoff_min_s: float = setting(
        0.1,
        lo=0.01,
        hi=3600,
        section="Operation",
        roles=_SUPERVISOR,
        help="First delay before a process that died is started again; it doubles from there.",
    )
    restart_backoff_max_s: float = setting(
        10.0,
        lo=0.01,
        hi=3600,
        section="Operation",
        roles=_SUPERVISOR,
        help="Longest delay before a process that died is started again.",
    )
    log_level: str = setting(
        "info",
        choices=("debug", "info", "warning", "error"),
        section="Operation",
        roles=_ALL,
        help="Least severe message that is logged.",
    )
    log_format: str = setting(
        "auto",
        choices=("auto", "console", "json"),
        section="Operation",
        roles=_ALL,
        help="Form of log lines; auto is console on a terminal and json elsewhere.",
    )
    metrics_port: int = setting(
        0,
        lo=1,
        hi=65535,
        special={0: "off"},
        section="Operation",
        roles=_ALL,
        help="First TCP port for GET /metrics: gateway i takes it + i, shard i it + GATEWAYS + i.",
    )

    @classmethod
    def load(
        cls, environ: Mapping[str, str], overrides: Mapping[str, Value] | None = None
    ) -> Settings:
        """Read all settings, check them against their bounds and against each other.

        Paths are made absolute, relative to the working directory. A variable that is set but
        empty counts as not set, because container tools pass unset ones that way.

        Args:
            environ: the environment variables; those it does not know are ignored.
            overrides: values by attribute name (``{"port": "9000"}``), as from flags; they win.

        Raises:
            ConfigError: a value is of the wrong type, out of bounds, or contradicts another.
            KeyError: ``overrides`` names no setting.
        """
        overrides = overrides or {}
        if unknown := overrides.keys() - {row.attribute for row in TABLE}:
            raise KeyError(f"no such settings: {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {}
        for row in TABLE:
            if row.attribute in overrides:
                given = overrides[row.attribute]
                text = given if isinstance(given, str) else row.write(given)
                values[row.attribute] = row.read(given, f"{row.flag} {text}")
            elif environ.get(row.env, "").strip():
                text = environ[row.env]
                values[row.attribute] = row.read(text, f"{row.env}={text}")
        loaded = cls(**values)
        paths = {
            row.attribute: Path(os.path.abspath(getattr(loaded, row.attribute)))
            for row in TABLE
            if isinstance(row.default, Path)
        }
        loaded = cls(**{**values, **paths})
        _check_together(loaded)
        return loaded

    def to_environ(self) -> dict[str, str]:
        """Return the variables that make a child process load exactly these settings."""
        return {row.env: row.write(getattr(self, row.attribute)) for row in TABLE}


TABLE: Final[tuple[Setting, ...]] = tuple(
    Setting(f.name, cast(Value, f.default), f.metadata[METADATA_KEY]) for f in fields(Settings)
)
"""Every setting, in the order of the documentation."""


def _check_together(settings: Settings) -> None:
    """Raise ConfigError where values contradict each other."""
    pairs = (
        ("link_reconnect_min_s", "link_reconnect_max_s"),
        ("restart_backoff_min_s", "restart_backoff_max_s"),
    )
    for low, high in pairs:
        if getattr(settings, low) > getattr(settings, high):
            raise _conflict(settings, low, "is more than", high)
    for size in ("max_message_bytes", "max_rpc_bytes"):
        if getattr(settings, size) + _RECORD_HEAD_BYTES > settings.link_max_batch_bytes:
            relation = f"must be at least {_RECORD_HEAD_BYTES} less than"
            raise _conflict(settings, size, relation, "link_max_batch_bytes")
    if settings.max_message_bytes > settings.partial_total_bytes:
        raise _conflict(settings, "max_message_bytes", "is more than", "partial_total_bytes")
    # A shard's number may be beyond SHARDS: that is how many there are at first.
    if settings.gateway_index >= settings.gateways:
        raise _conflict(settings, "gateway_index", "must be less than", "gateways")
    socket = os.fsencode(settings.run_dir / _LONGEST_SOCKET_NAME)
    if (excess := len(socket) - UNIX_PATH_MAX_BYTES) > 0:
        raise ConfigError(
            f"is {excess} bytes too long: a Unix socket's path has at most "
            f"{UNIX_PATH_MAX_BYTES} bytes",
            where=f"RUN_DIR={settings.run_dir}",
            remedy="Set RUN_DIR to a shorter path, such as /tmp/limpet.",
        )


def _conflict(settings: Settings, first: str, relation: str, second: str) -> ConfigError:
    rows = {row.attribute: row for row in TABLE}
    a, b = (f"{rows[n].env}={rows[n].write(getattr(settings, n))}" for n in (first, second))
    return ConfigError(
        f"{relation} {b}", where=a, remedy=f"Change {rows[first].env} or {rows[second].env}."
    )
