"""The command line and the order of the rounds."""

from __future__ import annotations

import pytest

from benchmarks.measuring import per_operation_us, sample_from
from benchmarks.run import parse_arguments, rotated
from benchmarks.servers import PEERS


def test_each_round_begins_with_another_peer() -> None:
    peers = list(PEERS.values())[:3]
    first = [rotated(peers, by)[0] for by in range(4)]
    assert first == [peers[0], peers[1], peers[2], peers[0]]
    assert sorted(p.name for p in rotated(peers, 2)) == sorted(p.name for p in peers)


def test_quick_is_one_round_of_one_second() -> None:
    options = parse_arguments(["--quick"])
    assert (options.seconds, options.rounds) == (1.0, 1)


def test_lists_are_split_and_a_name_given_twice_counts_once() -> None:
    assert parse_arguments(["--peers", "workerd, limpet-1,workerd"]).peers == [
        "workerd",
        "limpet-1",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["--peers", "nginx"], ["--scenarios", "echo-65"], ["--seconds", "0"], ["--rounds", "0"]],
)
def test_arguments_that_do_not_fit_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_cpu_seconds_become_microseconds_per_operation() -> None:
    assert per_operation_us({"gateway": 0.5, "shard": 0.25}, 50_000) == {
        "gateway": 10.0,
        "shard": 5.0,
    }
    assert per_operation_us({"gateway": 0.5}, 0) == {}


def test_a_run_without_one_operation_has_no_latency_and_no_cost() -> None:
    result = {
        "messages": 0,
        "per_second": 0.0,
        "latency_us": {"p50": 0.0, "p99": 0.0},
        "generator_cpu_share": 0.0,
        "errors": 3,
        "first_error": "refused",
    }
    sample = sample_from(result, "messages", {"server": 1.0})
    assert (sample.p50_us, sample.p99_us, sample.cpu_us) == (None, None, None)
    assert (sample.errors, sample.first_error) == (3, "refused")
