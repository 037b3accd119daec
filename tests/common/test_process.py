"""What gateway and shard processes have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common.process import metrics_port
from common.settings import Settings


def test_each_process_of_a_machine_has_a_metrics_port_of_its_own() -> None:
    settings = Settings.load({}, {"metrics_port": 9100, "gateways": 2, "shards": 3})
    ports = [metrics_port(settings, "gateway", index) for index in range(2)]
    ports += [metrics_port(settings, "shard", index) for index in range(3)]
    assert ports == [9100, 9101, 9102, 9103, 9104]


def test_without_a_port_there_are_no_metrics_on_tcp() -> None:
    assert metrics_port(Settings.load({}), "shard", 5) == 0


ROLE = """
import gc, sys
from common.errors import ConfigError
from common.process import run_role

def make(settings, index, metrics):
    print("passed by:", not any(each is made for each in gc.get_objects()))
    raise ConfigError("that was all")

made = []
def prepare(settings):
    made.append([])

sys.exit(run_role("shard", make, prepare))
"""


def test_what_was_loaded_before_serving_is_passed_by_the_garbage_collector(tmp_path: Path) -> None:
    environ = {"RUN_DIR": str(tmp_path / "run"), "DATA_DIR": str(tmp_path), "PATH": ""}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ROLE],
        cwd=root,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "passed by: True\n", done.stderr
    assert done.returncode == 2
