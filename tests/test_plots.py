"""What a terminal shows of a run's standing."""

from pathlib import Path

from calling import Call
from conftest import Program

from scalesearch.cli.plots import WIDTH, intervals
from scalesearch.ranking import Arm, rank


def test_intervals_span_the_plot_and_heavy_ones_may_be_the_best():
    accuracies = {"first": [85.0, 85.2], "near": [84.9, 85.1], "worse": [70.0, 70.2]}
    head, *rows, key = intervals(rank([Arm(id=name) for name in accuracies], accuracies))
    assert [row.split()[0] for row in rows] == ["first", "near", "worse"]
    assert [row.count("●") for row in rows] == [1, 1, 1]
    assert ["━" in row for row in rows] == [True, True, False]
    width = len("worse") + 2 + WIDTH
    assert all(len(row) <= width for row in (head, *rows))
    assert rows[-1].index("─") == len("worse") + 2  # the lowest end
    assert "95 % interval" in key


def test_without_intervals_nothing_is_drawn():
    assert list(intervals(rank([Arm(id="a"), Arm(id="b")], {"a": [80.0], "b": [81.0]}))) == []


def test_rank_draws_its_intervals_and_status_its_progress(finished: tuple[Path, Program], call: Call):
    assert "●" in call("rank", finished[0]).out
    assert 50 * "━" in call("status", finished[0]).out
