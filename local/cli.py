"""The `limpet` command. Every message is for a person; a traceback here is a bug.

Exit codes: 0 done, 1 it did not work, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import click

from common.errors import ConfigError, LimpetError
from common.placement import MAX_SHARDS
from common.settings import Settings
from local.options import load, settings_options
from local.processes import with_import_path

EXIT_FAILED = 1
EXIT_USAGE = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def limpet() -> None:
    """Durable Objects for Python, on your own machines.

    Every flag is also an environment variable; a flag wins. `limpet up --help` lists them.
    """


@limpet.command()
@settings_options("supervisor", "gateway", "shard")
def up(**flags: str | None) -> None:
    """Start a cluster here, keep it running, and stop it on Ctrl-C."""
    import asyncio

    from common.logs import configure
    from common.wrangler import find_project
    from local.banner import banner
    from local.preflight import preflight
    from local.supervisor import Supervisor

    settings = load(flags)
    configure(settings, role="supervisor")
    project = find_project(settings.app)
    supervisor = Supervisor(
        settings,
        prepare=lambda: preflight(settings),
        on_ready=lambda: click.echo(banner(settings, project), err=True),
    )
    asyncio.run(supervisor.run())


@limpet.command()
@settings_options("supervisor", "gateway", "shard")
def check(**flags: str | None) -> None:
    """Say whether the configuration is right and the app would be served."""
    from local.check import check as findings_of

    settings = load(flags)
    # Not the default, which ends us on the spot: the process that imports the app is ended first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    worst = 0
    for finding in findings_of(settings):
        click.echo(str(finding))
        worst = max(worst, EXIT_FAILED if finding.level == "error" else 0)
    sys.exit(worst)


@limpet.command()
@settings_options("gateway")
def gateway(**flags: str | None) -> None:
    """Run one gateway in the foreground (a container's command)."""
    _become("gateway", load(flags))


@limpet.command()
@settings_options("shard")
def shard(**flags: str | None) -> None:
    """Run one shard in the foreground (a container's command)."""
    _become("shard", load(flags))


@limpet.command()
@settings_options("supervisor")
def reload(**flags: str | None) -> None:
    """Take the app's code anew, shard by shard; clients of held sockets stay connected.

    If the new code does not load, the old keeps serving.
    """
    from local.control import ask

    ask(load(flags).run_dir, {"command": "reload"}, click.echo)


@limpet.command()
@click.argument("shards", type=click.IntRange(1, MAX_SHARDS))
@settings_options("supervisor", only=("run_dir",))
def scale(shards: int, **flags: str | None) -> None:
    """Have SHARDS shards while the cluster runs; clients of held sockets stay connected.

    Only the partitions that must move do. Connections that an object holds by `accept()` end when
    it moves (1012). The number lasts until the cluster stops: `limpet up` starts SHARDS again.
    """
    from local.control import ask

    ask(load(flags).run_dir, {"command": "scale", "shards": shards}, click.echo)


@limpet.command()
@settings_options("supervisor")
def status(**flags: str | None) -> None:
    """Show the processes of the cluster that runs here."""
    from local.status import find_processes, table

    settings = load(flags)
    processes = find_processes(settings.run_dir)
    if not processes:
        click.echo(f"no process of a cluster runs in {settings.run_dir}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(table(processes))
    sys.exit(0 if all(each.healthy for each in processes) else EXIT_FAILED)


@limpet.command()
@click.argument("binding", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@settings_options("shard")
def objects(binding: str | None, as_json: bool, **flags: str | None) -> None:
    """List the objects that are stored, all or those of BINDING: id, name, alarm, size.

    Works while the cluster runs, and disturbs nobody. Objects that have stored nothing are not
    listed.
    """
    from local.listing import lines

    for line in lines(load(flags), binding, as_json=as_json):
        click.echo(line)


@limpet.command()
@click.argument("role", type=click.Choice(["gateway", "shard"]), required=False)
@settings_options("supervisor")
def health(role: str | None, **flags: str | None) -> None:
    """Succeed if this cluster, or this container's process of ROLE, is healthy.

    With a ROLE only processes of this host name are asked: containers share the directory of
    sockets, and a container's health is its own.
    """
    from local.status import complaints, find_processes

    wrong = complaints(find_processes(load(flags).run_dir), role)
    for complaint in wrong:
        click.echo(complaint, err=True)
    sys.exit(EXIT_FAILED if wrong else 0)


_STORAGE_FLAGS = ("data_dir", "run_dir")


@limpet.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@settings_options("supervisor", only=_STORAGE_FLAGS)
def backup(folder: Path, **flags: str | None) -> None:
    """Copy every object to the new folder DIR, while the cluster runs or not.

    Each object's copy is a state between two of its commits, with all that was acknowledged before
    this command began. Different objects are copied at different moments.
    """
    from local.backup import backup as back_up

    made = back_up(load(flags), folder, _progress)
    for complaint in made.damaged:
        click.echo(f"damaged, left out: {complaint}", err=True)
    click.echo(f"backed up {made.objects:,} objects ({made.bytes:,} bytes) to {folder}")
    sys.exit(EXIT_FAILED if made.damaged else 0)


@limpet.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Put it in the place of the objects there are.")
@settings_options("supervisor", only=_STORAGE_FLAGS)
def restore(folder: Path, replace: bool, **flags: str | None) -> None:
    """Put the backup in DIR into DATA_DIR; no cluster may run there.

    All of it or nothing: the files are copied and compared first. What --replace replaces is kept
    aside.
    """
    from local.restoring import restore as put_back

    settings = load(flags)
    about = put_back(settings, folder, _progress, replace_objects=replace)
    click.echo(
        f"restored {about.objects:,} objects, as of {about.began_at}, into {settings.data_dir}"
    )


@limpet.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@settings_options("supervisor", only=_STORAGE_FLAGS)
def verify(folder: Path | None, **flags: str | None) -> None:
    """Look at every file of DATA_DIR, while the cluster runs or not, or of the backup in DIR."""
    from local.verification import verify_backup, verify_data

    settings = load(flags)
    if folder is None:
        count, wrong = verify_data(settings, _progress)
    else:
        count, wrong = verify_backup(folder, _progress)
    for complaint in wrong:
        click.echo(f"error: {complaint}", err=True)
    where = settings.data_dir if folder is None else folder
    click.echo(f"looked at {count:,} objects in {where}: {len(wrong) or 'nothing'} wrong")
    sys.exit(EXIT_FAILED if wrong else 0)


def _progress(text: str) -> None:
    click.echo(text, err=True)


@limpet.command("version")
def show_version() -> None:
    """Show the versions of Limpet and of what it runs on."""
    click.echo(f"limpet {_version('limpet')}")
    click.echo(f"python {sys.version.split()[0]}")
    for package in ("aiohttp", "uvloop", "msgpack", "apsw"):
        click.echo(f"{package} {_version(package)}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    try:
        code = limpet.main(arguments, prog_name="limpet", standalone_mode=False)
    except ConfigError as error:
        _refuse(str(error), EXIT_USAGE)
    except LimpetError as error:
        _refuse(str(error), EXIT_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone. Nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _become(role: str, settings: Settings) -> NoReturn:
    """Replace this process by `python -m ROLE`, so that signals and exit codes are its own."""
    environ = with_import_path({**os.environ, **settings.to_environ()})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", role], environ)  # noqa: S606


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
