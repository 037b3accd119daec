"""The Markdown page and the plot."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from benchmarks.figures import Results, Sample
from benchmarks.goals import judge_all
from benchmarks.plot import svg
from benchmarks.report import figure, markdown, table, times, with_spread


def two_peers() -> Results:
    split = {"gateway": 5.0, "shard": 3.0}
    ours = Sample(per_second=230, p50_us=10, p99_us=20, cpu_us=8, cpu_us_by_role=split)
    base = Sample(per_second=100, p50_us=20, p99_us=50, cpu_us=20)
    return {
        "echo-64": {"limpet-1": [ours], "workerd": [base]},
        "idle": {
            "limpet-1": [Sample(bytes_per_connection=8 * 1024)],
            "workerd": [Sample(bytes_per_connection=64 * 1024)],
        },
    }


def page(results: Results) -> str:
    return markdown(results, judge_all(("limpet-1",), results), ["a note"], ["x is skipped: why"])


def test_a_table_has_as_many_cells_in_its_rule_as_in_its_head() -> None:
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "|---|--:|", "| 1 | 2 |"]


def test_what_was_not_measured_is_a_dash_and_never_a_zero() -> None:
    assert figure(None) == times(None) == with_spread([Sample()], "per_second")
    assert "0" not in figure(None)


def test_a_figure_of_several_rounds_shows_their_ends() -> None:
    rounds = [Sample(per_second=value) for value in (1000.0, 3000.0, 2000.0)]
    assert with_spread(rounds, "per_second") == "2,000 (1,000 to 3,000)"


def test_the_page_shows_goals_met_and_missed_ratios_and_the_split_by_role() -> None:
    text = page(two_peers())
    assert "| 2.30\N{MULTIPLICATION SIGN} | met |" in text
    assert "| 8.0 KiB | **missed** |" in text
    assert "gateway 5.0, shard 3.0" in text
    assert "- x is skipped: why" in text


def test_the_page_begins_with_the_goals_that_were_missed() -> None:
    text = page(two_peers())
    assert "2 of 3 verdicts: met. Missed: `idle` memory per connection (limpet-1)." in text
    unknown = page({"echo-64": {"limpet-1": [Sample(per_second=1, errors=1)]}})
    assert "Missed: none. Not measured, or with errors: 2." in unknown


def test_the_lag_of_a_loop_is_shown_in_milliseconds_and_judged_without_a_base() -> None:
    sample = Sample(per_second=900, p50_us=1, p99_us=2, puts_per_second=150)
    slow = replace(sample, lag_p50_us=100, lag_p99_us=12_000, lag_max_us=20_000)
    text = page({"slow-disk": {"limpet-1": [slow]}})
    assert "10.0 ms | 12.0 ms | **missed** |" in text
    assert "| limpet-1 | 900 | 1 | 2 | 150 | 0.10 | 12.00 | 20.00 | 0 |" in text


def test_the_page_repeats_the_words_of_the_first_error() -> None:
    failed = Sample(errors=1, first_error="it fell over")
    assert "- limpet-1: it fell over" in page({"echo-64": {"limpet-1": [failed]}})


def test_the_plot_is_well_formed_with_a_bar_for_each_peer_and_metric() -> None:
    picture = svg(two_peers(), ["limpet-1", "workerd"])
    assert picture is not None
    tips = [element.text for element in ET.fromstring(picture).iter() if "title" in element.tag]
    assert len(tips) == 2 * 3
    assert any(tip is not None and "limpet-1" in tip and "2.30" in tip for tip in tips)


def test_there_is_no_plot_without_a_base_peer() -> None:
    assert svg({"echo-64": {"limpet-1": [Sample(per_second=1)]}}, ["limpet-1"]) is None
