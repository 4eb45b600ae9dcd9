"""Who judges the faults must be able to find one: a run that trains again what has ended, on purpose."""

import subprocess
import sys
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest
from judging import assert_nothing_ran_again

from scalesearch.journal import NAME, Journal
from scalesearch.trials import TrialKey, TrialState


def take_up(folder: Path, *trials: TrialKey) -> None:
    """As a worker does."""
    noted = [astuple(trial) for trial in trials]
    code = f"import pathlib, sitecustomize; sitecustomize.note(pathlib.Path({str(folder)!r}), {noted})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trial_that_is_taken_up_behind_its_end_is_found(begun: Path, tmp_path: Path):
    one, other = (TrialKey(proxy=proxy, seed=0, rung=2) for proxy in ("one", "other"))
    with closing(Journal(tmp_path / NAME)) as journal:
        for _ in range(2):  # the first worker was killed
            take_up(tmp_path, one)
        journal.start(one)
        journal.end(one, TrialState.FAILED)
        take_up(tmp_path, other)
        assert_nothing_ran_again(tmp_path, begun)
        take_up(tmp_path, one)
        with pytest.raises(AssertionError):
            assert_nothing_ran_again(tmp_path, begun)


def test_a_trial_that_is_taken_up_behind_its_end_in_a_group_with_one_that_has_not_ended_is_found(
    begun: Path, tmp_path: Path
):
    group = [TrialKey(proxy="one", seed=seed, rung=2) for seed in (0, 1)]
    with closing(Journal(tmp_path / NAME)) as journal:
        take_up(tmp_path, *group)
        journal.start(group[0])
        journal.end(group[0], TrialState.FAILED)
        assert_nothing_ran_again(tmp_path, begun)
        take_up(tmp_path, *group)
        with pytest.raises(AssertionError):
            assert_nothing_ran_again(tmp_path, begun)


def test_a_trial_whose_training_nobody_noted_is_found(begun: Path, tmp_path: Path):
    one, other = (TrialKey(proxy=proxy, seed=0, rung=2) for proxy in ("one", "other"))
    with closing(Journal(tmp_path / NAME)) as journal:
        take_up(tmp_path, one)
        journal.start(other)
        journal.end(other, TrialState.FAILED)
    with pytest.raises(AssertionError):
        assert_nothing_ran_again(tmp_path, begun)
