"""The things a run needs from outside: the compiled load generator, workerd, aiohttp.

Everything lands in benchmarks/.build/, which git ignores. What cannot be had is one clear line
(`MissingToolError`), and the run goes on without the peer that needs it.
"""

from __future__ import annotations

import importlib.util
import resource
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BUILD = HERE / ".build"
PEERS = HERE / "peers"

INSTALL_TIMEOUT_S = 300.0
COMPILE = ("cc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion")


class MissingToolError(Exception):
    """A program or package that a peer needs is not there; the text says which and what to do."""


def disk_folder() -> Path:
    """Return where servers keep their data: on the repository's disk, as /tmp may be memory."""
    folder = BUILD / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one; children inherit it. Returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def run_tool(command: list[str], cwd: Path, purpose: str) -> None:
    """Run an installer to its end; MissingToolError with its last words where it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise MissingToolError(f"`{command[0]}` is not installed; {purpose} needs it") from None
    except subprocess.TimeoutExpired:
        raise MissingToolError(
            f"{purpose}: `{command[0]}` took over {INSTALL_TIMEOUT_S:.0f} s"
        ) from None
    if done.returncode:
        words = [w for w in (done.stderr or done.stdout).splitlines() if "error" in w.lower()]
        raise MissingToolError(
            f"{purpose}: {' '.join(command[:2])} failed: {words[-1] if words else '?'}"
        )


def is_older(target: Path, sources: list[Path]) -> bool:
    """Whether the target is missing or older than one of its sources."""
    return not target.exists() or target.stat().st_mtime < max(s.stat().st_mtime for s in sources)


def load_generator() -> Path:
    """Return the load generator, compiled if its source has changed."""
    target = BUILD / "load"
    sources = sorted((HERE / "load").glob("*.[ch]"))
    if is_older(target, sources):
        BUILD.mkdir(exist_ok=True)
        units = [str(source) for source in sources if source.suffix == ".c"]
        run_tool([*COMPILE, "-o", str(target), *units], HERE, "the load generator")
    return target


def workerd() -> Path:
    """Return the workerd binary of the pinned version, installed by npm on first use."""
    home, recipe = BUILD / "workerd", PEERS / "workerd"
    manifest, stamp = recipe / "package.json", home / "installed"
    if is_older(stamp, [manifest]):
        if shutil.which("npm") is None:
            raise MissingToolError("`npm` is not installed; the peer workerd needs it")
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest, home)
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        run_tool(install, home, "the peer workerd")
        stamp.touch()
    binaries = sorted(home.glob("node_modules/@cloudflare/workerd-*/bin/workerd"))
    if not binaries:
        raise MissingToolError("workerd has no binary for this platform")
    return binaries[0]


def python_with_aiohttp() -> str:
    """Return an interpreter that has aiohttp and uvloop: this one, or one of a private venv."""
    if all(importlib.util.find_spec(name) for name in ("aiohttp", "uvloop")):
        return sys.executable
    home, wanted = BUILD / "aiohttp", PEERS / "aiohttp_requirements.txt"
    python, stamp = home / "bin" / "python", home / "installed"
    if is_older(stamp, [wanted]):
        run_tool([sys.executable, "-m", "venv", str(home)], HERE, "the peer aiohttp")
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)]
        run_tool(install, HERE, "the peer aiohttp")
        stamp.touch()
    return str(python)


def limpet_app(path: str) -> str:
    """Return the path of a Limpet app, once it and the `limpet` command are known to be there."""
    if importlib.util.find_spec("local") is None or not (REPOSITORY / "local/__main__.py").exists():
        raise MissingToolError(
            "the peer limpet needs `python -m local`, which is not in this checkout"
        )
    if not (REPOSITORY / path).exists():
        raise MissingToolError(f"the peer limpet needs {path}, which is not in this checkout")
    return path
