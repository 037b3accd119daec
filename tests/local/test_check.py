"""Rules of `limpet check`: the file, the line and the remedy; its exit code is the verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.wrangler import find_project
from local import check as checking
from tests.running import PATIENCE_S, is_running, until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent.parent
ENDED = "the app ended the process while it was imported"
GOOD = """
from workers import DurableObject, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request): ...

class Room(DurableObject): ...
"""
PLAIN = "Room:\n    def __init__(self, ctx, env): ..."
PROJECT = {
    "name": "app",
    "main": "src/entry.py",
    "durable_objects": {"bindings": [{"name": "ROOMS", "class_name": "Room"}]},
    "migrations": [{"tag": "v1", "new_sqlite_classes": ["Room"]}],
}


def limpet(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )


def check(folder: Path, source: str, **files: str) -> subprocess.CompletedProcess[str]:
    (folder / "src").mkdir(exist_ok=True)
    (folder / "wrangler.json").write_text(json.dumps(PROJECT))
    (folder / "src" / "entry.py").write_text(source)
    for name, text in files.items():
        (folder / "src" / f"{name}.py").write_text(text)
    result = limpet("check", "--app", str(folder), cwd=folder)
    assert "Traceback" not in result.stdout
    return result


def test_a_good_app_passes(tmp_path: Path) -> None:
    result = check(tmp_path, GOOD)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("✓") == 4
    assert "binding ROOMS -> class Room" in result.stdout


def test_the_default_app_passes(tmp_path: Path) -> None:
    result = limpet("check", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "binding WEBSOCKET_SERVER -> class WebSocketServer" in result.stdout


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (GOOD + "\ndef f(:\n", "src/entry.py:9:7: SyntaxError: "),
        (
            "\n\nimport no_such_thing",
            "src/entry.py:3: the app does not import: ModuleNotFoundError",
        ),
        ("def f():\n  1 / 0\nf()", "src/entry.py:2: the app does not import: ZeroDivisionError"),
        ("import sys\nsys.exit(7)", f"src/entry.py:2: {ENDED}: SystemExit: 7"),
        ("import os\nos._exit(7)", f"src/entry.py:2: {ENDED}: os._exit(7)"),
        ("\n\nraise KeyboardInterrupt", f"src/entry.py:3: {ENDED}: KeyboardInterrupt"),
        ("import os; os.abort()", f"src/entry.py: {ENDED}: it was ended by SIGABRT"),
        (GOOD.replace("(DurableObject)", ""), "Room cannot be constructed with (ctx, env)"),
        (GOOD.replace("Room(", "Hall("), "Define class Room(DurableObject)"),
    ],
)
def test_a_bad_app_is_named_with_its_line(tmp_path: Path, source: str, complaint: str) -> None:
    result = check(tmp_path, source)
    assert result.returncode == 1
    assert complaint in result.stdout


def test_an_error_in_another_module_of_the_app_is_placed_there(tmp_path: Path) -> None:
    result = check(tmp_path, "import helper", helper="import json\njson.loads('{')\n")
    assert result.returncode == 1
    assert "src/helper.py:2: the app does not import: JSONDecodeError" in result.stdout


@pytest.mark.parametrize("name", ["workers", "gateway", "shard", "common", "local"])
def test_a_module_with_a_reserved_name_is_refused(tmp_path: Path, name: str) -> None:
    result = check(tmp_path, GOOD, **{name: ""})
    assert result.returncode == 1
    assert f"src/{name}.py: the module name {name!r} is reserved" in result.stdout


def test_a_plain_class_is_a_warning_as_it_may_run(tmp_path: Path) -> None:
    result = check(tmp_path, GOOD.replace("Room(DurableObject): ...", PLAIN))
    assert result.returncode == 0, result.stdout
    assert "! " in result.stdout
    assert "Room, which is not a subclass of DurableObject" in result.stdout


def test_an_import_that_does_not_end_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, GOOD)
    (tmp_path / "src" / "entry.py").write_text("x = 1\n\nwhile True: pass\n")
    monkeypatch.setattr(checking, "IMPORT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(checking, "PROBE_MARGIN_S", PATIENCE_S)
    (finding,) = checking.probe_app(find_project(tmp_path))
    assert finding.level == "error"
    assert finding.message == "the import of the app is still running after 1 s"
    assert finding.where == f"{tmp_path / 'src' / 'entry.py'}:3"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["while True: pass", "sum(iter(int, 1))"], ids=["python", "c"])
def test_the_import_ends_with_the_check(tmp_path: Path, number: signal.Signals, busy: str) -> None:
    """Even where no thread of its process gets the interpreter's lock any more."""
    check(tmp_path, GOOD)
    said = tmp_path / "pid"
    (tmp_path / "src" / "entry.py").write_text(
        f"import os, pathlib\npathlib.Path({str(said)!r}).write_text(str(os.getpid()))\n{busy}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "local.cli", "check", "--app", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    ) as process:
        until(lambda: said.exists() and said.read_text(), "the import to begin")
        probe = int(said.read_text())
        process.send_signal(number)
        code = process.wait(PATIENCE_S)
        until(lambda: not is_running(probe), "the probe to end with the check")
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)


def test_what_an_app_prints_does_not_disturb_the_verdict(tmp_path: Path) -> None:
    result = check(tmp_path, "print('x' * 1_000_000)\n" + GOOD)
    assert result.returncode == 0


def test_a_wrong_project_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "wrangler.json").write_text('{\n  "name": 5\n}')
    result = limpet("check", "--app", ".", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout.startswith("error: ")
    assert "wrangler.json:2" in result.stdout


def test_a_folder_without_a_project_file_is_a_configuration_error(tmp_path: Path) -> None:
    result = limpet("check", "--app", ".", cwd=tmp_path)
    assert result.returncode == 2
    assert "has none of wrangler.json" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (["up", "--port", "99999"], {}, "--port 99999: must be 1 to 65535"),
        (["up"], {"SHARDS": "many"}, "SHARDS=many: must be"),
        (["up", "--app", "nowhere"], {}, "nowhere: does not exist"),
        (["up", "--no-such-flag"], {}, "No such option"),
        (["up", "--data-dir", "/dev/null/data"], {}, "DATA_DIR=/dev/null/data: cannot write"),
        (["up", "--host", "203.0.113.7"], {}, "203.0.113.7:8787: this machine does not have"),
        (["gateway", "--port", "0"], {}, "--port 0: must be"),
        (["health"], {"RUN_DIR": "x" * 200}, "too long"),
    ],
)
def test_a_wrong_command_line_is_one_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], complaint: str
) -> None:
    result = limpet(*arguments, cwd=tmp_path, **environ)
    assert result.returncode == 2
    assert complaint in result.stdout
    assert "Traceback" not in result.stdout
