"""What gateway and shard processes have in common."""

from __future__ import annotations

from common.process import metrics_port
from common.settings import Settings


def test_each_process_of_a_machine_has_a_metrics_port_of_its_own() -> None:
    settings = Settings.load({}, {"metrics_port": 9100, "gateways": 2, "shards": 3})
    ports = [metrics_port(settings, "gateway", index) for index in range(2)]
    ports += [metrics_port(settings, "shard", index) for index in range(3)]
    assert ports == [9100, 9101, 9102, 9103, 9104]


def test_without_a_port_there_are_no_metrics_on_tcp() -> None:
    assert metrics_port(Settings.load({}), "shard", 5) == 0
