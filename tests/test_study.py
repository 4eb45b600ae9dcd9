"""The stored study: what it is brought to, by us and step by step, and what plain Optuna sees of it."""

import resource
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import optuna
import pytest

from scalesearch.recipe import EpochResult
from scalesearch.scaling import Coefficients
from scalesearch.storage import in_folder
from scalesearch.study import Entry, Study
from scalesearch.trials import Stage, TrialKey, TrialResult, TrialState

BUDGET = 2.0
ARMS = {"base": (0.0, 1.0), "deep": (1.0, 2.01), "wide": (0.0, 1.95), "large": (0.2, 2.2)}
"""Share of depth and realised growth by proxy."""
BEGAN = datetime(2026, 11, 20, 12, tzinfo=UTC)


def entry(proxy: str, seed: int) -> Entry:
    share, growth = ARMS[proxy]
    rest = (1 - share) / 2
    return Entry(
        key=TrialKey(proxy=proxy, seed=seed, rung=2),
        rule=Coefficients.from_shares((share, rest, rest), BUDGET),
        digest=f"digest of {proxy}",
        macs=round(1000 * growth),
        growth=growth,
        target=BUDGET,
    )


ENTRIES = [entry(proxy, seed) for seed in range(2) for proxy in ARMS]
KEYS = [one.key for one in ENTRIES]


def result(key: TrialKey, state: TrialState, *accuracies: float, reason: str = "") -> TrialResult:
    """A trial with an epoch for each accuracy."""
    epochs = [EpochResult(epoch=n, train_loss=1 / n, accuracy=one, loss=0.3) for n, one in enumerate(accuracies, 1)]
    started = None if state is TrialState.WAITING else BEGAN
    ended = BEGAN + timedelta(minutes=3) if reason or state.value in ("complete", "pruned", "failed") else None
    return TrialResult(key=key, state=state, epochs=tuple(epochs), reason=reason, started=started, ended=ended)


def brought(tmp_path: Path, *results: TrialResult) -> None:
    """Have the study hold these, by a study that is opened for each of them."""
    entries = {one.key: one for one in ENTRIES}
    for one in results:
        with closing(Study(in_folder(tmp_path))) as study:
            if one.key in study:
                study.bring(one)
            else:
                given = entries.get(one.key) or replace(entry(one.key.proxy, one.key.seed), key=one.key)
                study.add(given, one)


def plain(tmp_path: Path) -> optuna.Study:
    """The study as any user of Optuna opens it."""
    return optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{tmp_path / 'study.db'}")


def schema(file: Path) -> set[str]:
    """How every table and index of a file was made."""
    with closing(sqlite3.connect(file)) as database:
        return {text for (text,) in database.execute("SELECT sql FROM sqlite_master") if text}


def waiting(key: TrialKey) -> TrialResult:
    return result(key, TrialState.WAITING)


LIFE = [
    waiting(KEYS[0]),
    result(KEYS[0], TrialState.RUNNING),
    result(KEYS[0], TrialState.RUNNING, 100 / 3),
    result(KEYS[0], TrialState.RUNNING, 100 / 3, 200 / 3),
    result(KEYS[0], TrialState.COMPLETE, 100 / 3, 200 / 3),
]
"""A trial from its beginning to its end."""


# ---- brought to where a trial is, from wherever it was


@pytest.mark.parametrize("seen", [[*range(5)], [0, 4], [1, 4], [2, 4], [4], [0, 2, 2, 3, 4, 4, 0]], ids=str)
def test_whatever_was_written_of_a_trial_before_it_comes_to_the_same(tmp_path: Path, seen: list[int]):
    brought(tmp_path, *(LIFE[index] for index in seen))
    [trial] = plain(tmp_path).trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.value == 200 / 3
    assert trial.intermediate_values == {1: 100 / 3, 2: 200 / 3}
    assert [row["epoch"] for row in trial.user_attrs["epochs"]] == [1, 2]
    assert list(trial.constraints) == ["compute"]
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None


@pytest.mark.parametrize("index", range(5))
def test_each_step_of_a_trial_is_seen(tmp_path: Path, index: int):
    brought(tmp_path, LIFE[0], LIFE[index])
    [trial] = plain(tmp_path).trials
    states = ["WAITING", "RUNNING", "RUNNING", "RUNNING", "COMPLETE"]
    assert trial.state.name == states[index]
    assert len(trial.intermediate_values) == (0, 0, 1, 2, 2)[index]


def test_a_trial_that_was_not_seen_before_its_end_keeps_the_times_of_the_journal(tmp_path: Path):
    brought(tmp_path, LIFE[4])
    [trial] = plain(tmp_path).trials
    assert trial.datetime_start == BEGAN.astimezone().replace(tzinfo=None)
    assert trial.duration == timedelta(minutes=3)


def test_trials_have_their_numbers_in_the_order_in_which_they_were_added(tmp_path: Path):
    brought(tmp_path, *map(waiting, KEYS))
    brought(tmp_path, *(result(key, TrialState.COMPLETE, 1.0, 2.0) for key in reversed(KEYS)))
    trials = plain(tmp_path).trials
    assert [(trial.number, trial.user_attrs["proxy"]) for trial in trials] == list(enumerate(key.proxy for key in KEYS))
    assert {trial.state.name for trial in trials} == {"COMPLETE"}


def test_a_failed_trial_has_its_reason(tmp_path: Path):
    brought(tmp_path, waiting(KEYS[0]), result(KEYS[0], TrialState.FAILED, 1.0, reason="worker killed by SIGKILL"))
    [trial] = plain(tmp_path).trials
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "worker killed by SIGKILL")
    assert trial.intermediate_values == {1: 1.0}


def test_a_study_that_ended_a_trial_otherwise_contradicts_it(tmp_path: Path):
    brought(tmp_path, result(KEYS[0], TrialState.COMPLETE, 1.0, 2.0), result(KEYS[1], TrialState.RUNNING, 1.0))
    with closing(Study(in_folder(tmp_path))) as study:
        assert not study.contradicts(result(KEYS[0], TrialState.COMPLETE, 1.0, 2.0))
        assert study.contradicts(result(KEYS[0], TrialState.COMPLETE, 1.0, 2.5))
        assert study.contradicts(result(KEYS[0], TrialState.RUNNING, 1.0))
        assert study.contradicts(result(KEYS[0], TrialState.FAILED, 1.0, 2.0, reason="lost"))
        assert not study.contradicts(result(KEYS[1], TrialState.COMPLETE, 5.0, 6.0))
        assert not study.contradicts(result(KEYS[2], TrialState.RUNNING))


# ---- as others see it


def test_plain_optuna_sees_parameters_attributes_reports_and_the_value(tmp_path: Path):
    brought(tmp_path, *(result(key, TrialState.COMPLETE, 10.0 + key.seed, 20.0 + key.seed) for key in KEYS))
    trials = plain(tmp_path).trials
    assert len(trials) == len(ENTRIES)
    for trial, one in zip(trials, ENTRIES, strict=True):
        assert trial.state == optuna.trial.TrialState.COMPLETE
        rule = one.rule
        expected = {"alpha": rule.alpha, "beta": rule.beta, "gamma": rule.gamma, "seed": one.key.seed}
        assert trial.params == pytest.approx(expected)
        assert trial.user_attrs["digest"] == one.digest
        assert trial.user_attrs["macs"] == one.macs
        assert trial.user_attrs["growth"] == one.growth
        assert trial.user_attrs["target"] == BUDGET
        assert TrialKey(**{name: trial.user_attrs[name] for name in ("proxy", "seed", "rung", "stage")}) == one.key
        assert trial.intermediate_values == {1: 10.0 + one.key.seed, 2: 20.0 + one.key.seed}
        assert trial.value == 20.0 + one.key.seed


def test_the_constraint_is_the_distance_to_the_budget_and_the_best_trial_keeps_it(tmp_path: Path):
    accuracies = {"base": 99.0, "large": 98.0, "deep": 50.0, "wide": 60.0}
    brought(tmp_path, *(result(key, TrialState.COMPLETE, accuracies[key.proxy] + key.seed) for key in KEYS))
    stored = plain(tmp_path)
    found = {trial.user_attrs["proxy"]: trial.constraints for trial in stored.trials}
    assert {proxy: list(values) for proxy, values in found.items()} == {proxy: ["compute"] for proxy in ARMS}
    assert found["deep"]["compute"] == pytest.approx(0.005 - 0.03)
    assert found["wide"]["compute"] == pytest.approx(0.025 - 0.03)
    assert found["large"]["compute"] == pytest.approx(0.1 - 0.03)
    assert found["base"]["compute"] == pytest.approx(0.5 - 0.03)
    assert stored.best_trial.user_attrs["proxy"] == "wide"
    assert stored.best_trial.user_attrs["seed"] == 1
    assert stored.direction == optuna.study.StudyDirection.MAXIMIZE


def test_the_constraint_of_a_trial_at_another_budget_is_the_distance_to_that_one(tmp_path: Path):
    wide = entry("wide", 0)
    with closing(Study(in_folder(tmp_path))) as study:
        study.add(wide, waiting(wide.key))
        other = replace(wide, key=replace(wide.key, stage="travel"), growth=4.04, target=4.0)
        study.add(other, waiting(other.key))
    found = [trial.constraints["compute"] for trial in plain(tmp_path).trials]
    assert found == pytest.approx([0.025 - 0.03, 0.01 - 0.03])


@pytest.mark.parametrize("before", [True, False], ids=["seen before", "not seen before"])
def test_a_short_rung_ends_pruned_and_keeps_the_accuracy_it_reached(tmp_path: Path, before: bool):
    short = replace(KEYS[1], rung=1)
    brought(tmp_path, *[waiting(short)] * before, result(short, TrialState.PRUNED, 70.0))
    brought(tmp_path, result(KEYS[1], TrialState.COMPLETE, 30.0, 40.0))
    stored = plain(tmp_path)
    assert [trial.state.name for trial in stored.trials] == ["PRUNED", "COMPLETE"]
    assert stored.trials[0].value == 70.0
    assert stored.best_value == 40.0  # Optuna compares full lengths alone


def test_the_stages_of_a_proxy_and_seed_are_trials_of_their_own(tmp_path: Path):
    found = [replace(KEYS[1], stage=stage) for stage in get_args(Stage)]
    brought(tmp_path, *map(waiting, found), *map(waiting, found))
    assert [trial.user_attrs["stage"] for trial in plain(tmp_path).trials] == list(get_args(Stage))
    assert len({str(one) for one in found}) == 3


def test_attributes_of_the_study_are_those_that_were_told_last(tmp_path: Path):
    for value in (["deep"], ["deep", "wide"], ["deep", "wide"]):
        with closing(Study(in_folder(tmp_path))) as study:
            study.attribute("left", value)
    assert plain(tmp_path).user_attrs == {"left": ["deep", "wide"]}


def test_optunas_own_table_reads_the_study(tmp_path: Path):
    brought(tmp_path, *(result(key, TrialState.COMPLETE, 10.0, 20.0 + len(key.proxy)) for key in KEYS))
    frame = plain(tmp_path).trials_dataframe()
    assert list(frame["params_seed"]) == [0] * 4 + [1] * 4
    assert list(frame["value"]) == [20.0 + len(one.key.proxy) for one in ENTRIES]


def test_the_folder_of_a_study_may_have_any_name(tmp_path: Path):
    folder = tmp_path / "a?b#c%20d & {e}"
    folder.mkdir()
    brought(folder, LIFE[4])
    with closing(Study(in_folder(folder))) as study:
        assert KEYS[0] in study
    assert [path.name for path in folder.iterdir()] == ["study.db"]


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_new_study_has_every_index_that_optunas_own_has(tmp_path: Path, is_empty: bool):
    if is_empty:
        (tmp_path / "study.db").touch()
    Study(in_folder(tmp_path)).close()
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'plain.db'}").engine.dispose()
    ours, theirs = (schema(tmp_path / name) for name in ("study.db", "plain.db"))
    assert ours == theirs
    assert any("UNIQUE INDEX ix_studies_study_name" in text for text in ours)


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_study_without_room_for_its_tables_has_none_and_is_made_later(tmp_path: Path, is_empty: bool):
    if is_empty:
        (tmp_path / "study.db").touch()
    # in its place SQLite makes tables one by one, and what a full disk cuts off is never made
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (0, 20_000, 60_000, 100_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                Study(in_folder(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("study.db", 0)] * is_empty
    brought(tmp_path, *LIFE)
    assert plain(tmp_path).trials[0].state.name == "COMPLETE"


def test_the_log_of_a_study_that_is_gone_is_not_read_into_a_new_one(tmp_path: Path):
    with closing(Study(in_folder(tmp_path))) as study:
        study.add(ENTRIES[0], waiting(KEYS[0]))
        log = (tmp_path / "study.db-wal").read_bytes()
    (tmp_path / "study.db").unlink()
    (tmp_path / "study.db-wal").write_bytes(log)
    with closing(Study(in_folder(tmp_path))) as study:
        assert len(study) == 0
    assert schema(tmp_path / "study.db")
