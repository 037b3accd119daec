"""The compose file and the image keep step with the settings and with the packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from common.settings import TABLE, Settings

ROOT = Path(__file__).parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()

# Fixed by the containers: the volumes, the mounts, the published port, one gateway.
OF_THE_CONTAINERS = {
    "HOST",
    "PORT",
    "DATA_DIR",
    "RUN_DIR",
    "SHARD_INDEX",
    "GATEWAY_INDEX",
    "GATEWAYS",
}


def test_every_setting_that_an_operator_may_want_reaches_the_containers() -> None:
    block = COMPOSE.partition("x-environment:")[2].partition("services:")[0]
    passed = set(re.findall(r"^  ([A-Z_]+):", block, re.MULTILINE))
    wanted = {row.env for row in TABLE if {"gateway", "shard"} & set(row.spec.roles)}
    assert passed == wanted - OF_THE_CONTAINERS


def test_the_number_of_shards_is_told_to_both_roles_and_to_the_engine() -> None:
    assert 'SHARDS: "${SHARDS:-2}"' in COMPOSE
    assert "replicas: ${SHARDS:-2}" in COMPOSE


def test_the_image_gets_every_package_that_is_distributed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    sent = (ROOT / ".dockerignore").read_text().split()
    for folder in [*wheel["packages"], *wheel["force-include"]]:
        assert f"!{folder}/**" in sent


def test_the_engine_waits_longer_for_a_stop_than_a_process_does() -> None:
    grace = re.search(r'stop_grace_period: "\$\{STOP_GRACE_PERIOD:-(\d+)s\}"', COMPOSE)
    assert grace is not None
    settings = Settings.load({})
    assert int(grace[1]) > settings.stop_timeout_s + settings.drain_timeout_s
