"""Loading an app: what its author is told when it is wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.wrangler import find_project
from shard.app import RESERVED, App, load_app

WRANGLER = """{
  "name": "app",
  "main": "src/entry.py",
  "durable_objects": { "bindings": [ { "name": "ROOM", "class_name": "Room" } ] }
}
"""
GOOD = """
from workers import DurableObject, WorkerEntrypoint

class Default(WorkerEntrypoint):
    pass

class Room(DurableObject):
    pass
"""


@pytest.fixture(autouse=True)
def import_state() -> Iterator[None]:
    """Leave the interpreter as it was."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def app_in(folder: Path, entry: str = GOOD, **files: str) -> App:
    (folder / "src").mkdir()
    (folder / "wrangler.jsonc").write_text(WRANGLER)
    (folder / "src" / "entry.py").write_text(entry)
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return load_app(find_project(folder))


def refusal(folder: Path, entry: str = GOOD, **files: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        app_in(folder, entry, **files)
    assert "Traceback" not in str(caught.value)
    return caught.value


def test_a_good_app(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    assert app.entry is not None
    assert app.entry.__name__ == "Default"
    assert app.class_of(app.project.bindings[0]).__name__ == "Room"


def test_an_app_finds_its_own_modules_beside_the_entry_and_in_the_project(tmp_path: Path) -> None:
    entry = GOOD + "\nimport beside\nimport at_the_top\nX = beside.X + at_the_top.X\n"
    app = app_in(tmp_path, entry, src__beside="X = 1", at_the_top="X = 2")
    assert app.module.X == 3


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    error = refusal(tmp_path, "class Room:\n    def f(self):\n        return (1\n")
    assert error.where is not None
    assert error.where.startswith(f"{tmp_path / 'src' / 'entry.py'}:3:")
    assert "SyntaxError" in str(error)


def test_a_syntax_error_in_a_module_of_the_app_names_that_module(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import helper\n", src__helper="def broken(:\n")
    assert error.where is not None
    assert error.where.startswith(f"{tmp_path / 'src' / 'helper.py'}:1:")


def test_a_file_with_nul_bytes_is_no_module(tmp_path: Path) -> None:
    error = refusal(tmp_path, "x = 1\0\n")
    assert "entry.py" in str(error)
    assert "None" not in str(error)


def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import os\nimport no_such_package\n")
    assert error.where == f"{tmp_path / 'src' / 'entry.py'}:2"
    assert "No module named 'no_such_package'" in str(error)
    assert error.remedy == (
        "install the package that provides 'no_such_package' into Limpet's environment"
    )


def test_an_exception_at_import_names_the_apps_own_line(tmp_path: Path) -> None:
    """Not the line of the library that it called."""
    error = refusal(tmp_path, "import json\n\ndata = json.loads('nonsense')\n")
    assert error.where == f"{tmp_path / 'src' / 'entry.py'}:3"
    assert "JSONDecodeError" in str(error)


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("import os; os._exit(4)", "os._exit(4)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_an_app_that_ends_the_process_at_import_is_an_error_not_an_end(
    tmp_path: Path, statement: str, how: str
) -> None:
    real_exit, handler = os._exit, signal.getsignal(signal.SIGINT)
    error = refusal(tmp_path, f"\n{statement}\n")
    assert error.message == f"the app ended the process while it was imported: {how}"
    assert error.where == f"{tmp_path / 'src' / 'entry.py'}:2"
    assert os._exit is real_exit
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, as in a foreground job: a shell starts those behind ``&`` ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_from_outside_still_interrupts_an_import(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        app_in(tmp_path, "import signal\nsignal.raise_signal(signal.SIGINT)\n")


def test_a_forked_child_of_the_import_may_exit(tmp_path: Path) -> None:
    entry = "import os\npid = os.fork()\nif not pid: os._exit(5)\n"
    app = app_in(tmp_path, entry + "CODE = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])" + GOOD)
    assert app.module.CODE == 5


def test_a_bound_class_that_is_no_durable_object_is_known(tmp_path: Path) -> None:
    """Spec §2.2: it runs, without RPC."""
    plain = "class Room:\n    def __init__(self, ctx, env): ...\n"
    app = app_in(tmp_path, GOOD.replace("class Room(DurableObject):", plain))
    assert [each.name for each in app.without_rpc()] == ["ROOM"]


def test_a_bound_class_that_cannot_be_constructed_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD.replace("Room(DurableObject)", "Room"))
    assert "binding ROOM names Room, which is no DurableObject" in str(error)
    assert error.where is not None
    assert "wrangler.jsonc:4" in error.where


def test_a_failed_import_leaves_no_half_module(tmp_path: Path) -> None:
    refusal(tmp_path, "raise ValueError('no')\n")
    assert "entry" not in sys.modules


def test_a_missing_class_is_named_with_those_that_exist(tmp_path: Path) -> None:
    entry = "from workers import DurableObject, Response\n\nclass Rome(DurableObject):\n    pass\n"
    error = refusal(tmp_path, entry)
    text = str(error)
    assert "binding ROOM names the class 'Room', which entry.py does not export" in text
    assert "its classes: Rome)" in text, "not those it has imported from workers"
    assert error.where is not None
    assert "wrangler.jsonc:4" in error.where


def test_all_limits_what_is_exported(tmp_path: Path) -> None:
    assert "does not export" in str(refusal(tmp_path, GOOD + "\n__all__ = ['Default']\n"))


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("where", ["", "src__"])
def test_reserved_names_are_refused_wherever_they_would_be_found(
    tmp_path: Path, name: str, where: str
) -> None:
    """DESIGN §3: also in the project's own folder, which is on the app's path too."""
    error = refusal(tmp_path, **{f"{where}{name}": "X = 1"})
    assert f"the module name {name!r} is reserved" in str(error)
    assert error.remedy == "rename the module"


def test_reserved_packages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    error = refusal(tmp_path)
    assert "'common' is reserved" in str(error)


def test_an_app_in_the_folder_of_limpet_itself_is_no_clash() -> None:
    """The reference program lies in our own source tree."""
    examples = Path(__file__).resolve().parents[2] / "examples" / "websocket_server"
    assert load_app(find_project(examples)).entry is not None
