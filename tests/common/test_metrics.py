from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def labels(**more: str) -> frozenset[tuple[str, str]]:
    return frozenset({"role": "gateway", "index": "1", **more}.items())


def test_counters_and_gauges_show_their_value_of_now() -> None:
    metrics = Metrics("gateway", 1)
    frames_in = metrics.counter("limpet_frames_total", "Frames.", direction="in")
    frames_out = metrics.counter("limpet_frames_total", "Frames.", direction="out")
    connections: set[int] = set()
    metrics.gauge("limpet_connections", "Open connections.", lambda: len(connections))
    frames_in.value += 5
    frames_out.value += 7
    connections.add(1)
    shown = samples(metrics)
    assert shown["limpet_frames_total", labels(direction="in")] == 5
    assert shown["limpet_frames_total", labels(direction="out")] == 7
    assert shown["limpet_connections", labels()] == 1
    frames_in.value += 1
    assert samples(metrics)["limpet_frames_total", labels(direction="in")] == 6


def test_the_process_itself_is_measured() -> None:
    assert b"process_cpu_seconds_total" in Metrics("gateway", 0).render()


def test_two_registries_do_not_share_anything() -> None:
    for _ in range(2):
        Metrics("shard", 0).counter("limpet_frames_total", "Frames.")


def test_a_name_means_one_thing() -> None:
    metrics = Metrics("gateway", 1)
    metrics.counter("a_total", "A.", kind="x")
    with pytest.raises(ValueError, match="another kind or other labels"):
        metrics.gauge("a_total", "A.", lambda: 0, kind="y")
    with pytest.raises(ValueError, match="another kind or other labels"):
        metrics.counter("a_total", "A.")
    with pytest.raises(ValueError, match="exists with these labels"):
        metrics.counter("a_total", "A.", kind="x")
    with pytest.raises(ValueError, match="must end in _total"):
        metrics.counter("a", "A.")
