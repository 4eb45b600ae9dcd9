"""Curves for TensorBoard, read back by TensorBoard."""

import sys
import time
from pathlib import Path

import pytest
from calling import Call

from scalesearch.boards import FOLDER, Boards
from scalesearch.engine.work import Failed, Finished, Progress, Started
from scalesearch.recipe import EpochResult
from scalesearch.trials import TrialKey

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)
KEY = TrialKey(proxy="d16-w1.000-r312", seed=1, rung=2)


def epoch(number: int) -> Progress:
    return Progress(KEY, EpochResult(epoch=number, train_loss=3.0 / number, accuracy=40.0 * number, loss=2.0 / number))


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    found = accumulator.EventAccumulator(str(folder / FOLDER / str(KEY)))
    found.Reload()
    return [(point.step, point.value) for point in found.Scalars(name)]


def test_each_trial_has_its_curves_by_epoch(tmp_path: Path):
    with Boards(tmp_path) as boards:
        for event in (Started(KEY), epoch(1), epoch(2), Finished(KEY)):
            boards.happened(event)
    assert curve(tmp_path, "accuracy") == [(1, 40.0), (2, 80.0)]
    assert curve(tmp_path, "loss") == [(1, 2.0), (2, 1.0)]
    assert curve(tmp_path, "train_loss") == [(1, 3.0), (2, 1.5)]


def test_a_trial_that_is_taken_up_again_goes_on_where_it_was(tmp_path: Path):
    for number in (1, 2):
        with Boards(tmp_path) as boards:
            boards.happened(epoch(number))
    assert curve(tmp_path, "accuracy") == [(1, 40.0), (2, 80.0)]


def test_epochs_that_a_trial_tells_again_stand_once(tmp_path: Path):
    for numbers in ((1, 2), (1, 2, 3)):
        with Boards(tmp_path) as boards:
            for number in numbers:
                boards.happened(epoch(number))
            boards.happened(Failed(KEY, "its worker died", final=False))
            for number in numbers:
                boards.happened(epoch(number))
    assert curve(tmp_path, "accuracy") == [(1, 40.0), (2, 80.0), (3, 120.0)]


def test_curves_without_tensorboard_are_refused_in_a_line_before_anything_is_written(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    told = call("run", "--log", "tensorboard", "--out", tmp_path / "run")
    assert told.code == 2
    mend = "install it with `pip install scalesearch[tensorboard]`, or leave --log out"
    assert told.err == f"scalesearch: --log tensorboard: TensorBoard is not installed; {mend}\n"
    assert not (tmp_path / "run").exists()


def test_curves_that_cannot_be_written_end_no_search(tmp_path: Path):
    (tmp_path / FOLDER).write_text("")
    with Boards(tmp_path) as boards:
        for event in (epoch(1), epoch(2), Finished(KEY)):
            boards.happened(event)
    assert (tmp_path / FOLDER).read_text() == ""


def test_curves_that_go_on_under_a_clock_that_was_set_back_stand_behind_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2, 3):
        monkeypatch.setattr(time, "time_ns", lambda now=4 - number: now)
        with Boards(tmp_path) as boards:
            boards.happened(epoch(number))
    assert curve(tmp_path, "accuracy") == [(1, 40.0), (2, 80.0), (3, 120.0)]
