"""The stored study: what is enqueued, claimed, reported and read, by us and by plain Optuna."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import optuna
import pytest

from scalesearch.errors import StudyError
from scalesearch.policies import Leave
from scalesearch.recipe import EpochResult
from scalesearch.scaling import Coefficients
from scalesearch.study import Entry, Study
from scalesearch.trials import Stage, TrialKey, TrialState

BUDGET = 2.0
ARMS = {"base": (0.0, 1.0), "deep": (1.0, 2.01), "wide": (0.0, 1.95), "large": (0.2, 2.2)}
"""Share of depth and realised growth by proxy."""


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


def epoch(number: int, accuracy: float) -> EpochResult:
    return EpochResult(epoch=number, train_loss=1.0 / number, accuracy=accuracy, loss=0.1 + 0.2)


def opened(tmp_path: Path) -> Study:
    study = Study(tmp_path / "study.db")
    study.enqueue(ENTRIES)
    return study


def plain(tmp_path: Path) -> optuna.Study:
    """The study as any user of Optuna opens it."""
    return optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{tmp_path / 'study.db'}")


def trained(study: Study, key: TrialKey, *accuracies: float) -> None:
    for number, accuracy in enumerate(accuracies, start=1):
        study.report(key, epoch(number, accuracy))
    study.complete(key, is_short=False)


def claimed(study: Study) -> list[TrialKey]:
    found = []
    while (key := study.claim()) is not None:
        found.append(key)
    return found


# ---- enqueue and claim


def test_trials_are_claimed_once_each_in_the_order_they_were_enqueued(tmp_path: Path):
    study = opened(tmp_path)
    assert claimed(study) == KEYS
    assert study.claim() is None


def test_enqueueing_again_adds_nothing_and_keeps_the_order(tmp_path: Path):
    study = opened(tmp_path)
    first = study.claim()
    assert first is not None
    trained(study, first, 10.0, 20.0)
    study.enqueue(ENTRIES)
    again = Study(tmp_path / "study.db")
    again.enqueue(ENTRIES)
    assert [result.key for result in again.results()] == KEYS
    assert [first, *claimed(again)] == KEYS


def test_a_study_that_was_cut_off_while_enqueueing_is_completed(tmp_path: Path):
    Study(tmp_path / "study.db").enqueue(ENTRIES[:3])
    assert claimed(opened(tmp_path)) == KEYS


def test_an_empty_study_has_no_results_and_nothing_to_claim_or_to_take_up(tmp_path: Path):
    study = Study(tmp_path / "study.db")
    assert (study.results(), study.claim(), study.unfinished()) == ([], None, [])


# ---- going on


def test_trials_that_a_coordinator_left_running_are_taken_up_in_order_and_finished(tmp_path: Path):
    first = opened(tmp_path)
    left = [first.claim() for _ in range(3)]
    assert left[1] is not None
    first.report(left[1], epoch(1, 30.0))
    second = opened(tmp_path)
    assert second.unfinished() == left == KEYS[:3]
    second.report(KEYS[1], epoch(1, 99.0))
    second.report(KEYS[1], epoch(2, 40.0))
    second.complete(KEYS[1], is_short=False)
    result = second.results()[1]
    assert (result.state, result.accuracy) == (TrialState.COMPLETE, 40.0)
    assert result.epochs == (epoch(1, 30.0), epoch(2, 40.0))
    assert second.claim() == KEYS[3]


def test_ended_trials_are_neither_taken_up_nor_claimed_again(tmp_path: Path):
    study = opened(tmp_path)
    for key in claimed(study):
        trained(study, key, 1.0, 2.0) if key.seed else study.fail(key, "worker killed by SIGKILL")
    again = opened(tmp_path)
    assert (again.unfinished(), again.claim()) == ([], None)


# ---- reports, ends, records


def test_an_epoch_reported_twice_is_stored_once_and_as_it_came_first(tmp_path: Path):
    study = opened(tmp_path)
    key = study.claim()
    assert key is not None
    for number, accuracy in ((1, 50.0), (1, 51.0), (2, 60.0), (1, 52.0), (2, 61.0)):
        study.report(key, epoch(number, accuracy))
    study.complete(key, is_short=False)
    assert study.results()[0].epochs == (epoch(1, 50.0), epoch(2, 60.0))
    assert plain(tmp_path).trials[0].intermediate_values == {1: 50.0, 2: 60.0}


def test_results_are_records_of_every_state_with_exact_numbers(tmp_path: Path):
    study = opened(tmp_path)
    first, second, third = (study.claim() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    trained(study, first, 100 / 3, 200 / 3)
    study.fail(second, "diverged: the training loss of epoch 1 is not finite")
    study.report(third, epoch(1, 12.5))
    found = Study(tmp_path / "study.db").results()
    assert [result.key for result in found] == KEYS
    assert [result.state for result in found] == ["complete", "failed", "running", *["waiting"] * 5]
    assert [result.accuracy for result in found] == [200 / 3, *[None] * 7]
    assert found[0].epochs[1] == epoch(2, 200 / 3)
    assert found[1].reason == "diverged: the training loss of epoch 1 is not finite"
    assert found[2].epochs == (epoch(1, 12.5),)
    assert found[0].seconds is not None
    assert found[0].seconds >= 0
    assert [result.seconds for result in found[2:]] == [None] * 6


# ---- as others see it


def test_plain_optuna_sees_parameters_attributes_reports_and_the_value(tmp_path: Path):
    study = opened(tmp_path)
    for key in claimed(study):
        trained(study, key, 10.0 + key.seed, 20.0 + key.seed)
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
    study = opened(tmp_path)
    accuracies = {"base": 99.0, "large": 98.0, "deep": 50.0, "wide": 60.0}
    for key in claimed(study):
        trained(study, key, accuracies[key.proxy] + key.seed)
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
    study = Study(tmp_path / "study.db")
    wide = entry("wide", 0)
    study.enqueue([wide, replace(wide, key=replace(wide.key, stage="travel"), growth=4.04, target=4.0)])
    assert claimed(study) == [wide.key, replace(wide.key, stage="travel")]
    found = [trial.constraints["compute"] for trial in plain(tmp_path).trials]
    assert found == pytest.approx([0.025 - 0.03, 0.01 - 0.03])


def test_a_short_rung_ends_pruned_and_keeps_the_accuracy_it_reached(tmp_path: Path):
    study = Study(tmp_path / "study.db")
    short, full = entry("deep", 0), entry("deep", 1)
    study.enqueue([replace(short, key=replace(short.key, rung=1)), full])
    first, second = claimed(study)
    study.report(first, epoch(1, 70.0))
    study.complete(first, is_short=True)
    trained(study, second, 30.0, 40.0)
    results = Study(tmp_path / "study.db").results()
    assert [(result.state, result.accuracy) for result in results] == [("pruned", 70.0), ("complete", 40.0)]
    assert all(result.is_trained and result.has_ended for result in results)
    stored = plain(tmp_path)
    assert [trial.state.name for trial in stored.trials] == ["PRUNED", "COMPLETE"]
    assert stored.trials[0].value == 70.0
    assert stored.best_value == 40.0  # Optuna compares full lengths alone


def test_the_stages_of_a_proxy_and_seed_are_trials_of_their_own(tmp_path: Path):
    study = Study(tmp_path / "study.db")
    found = [replace(ENTRIES[1], key=replace(KEYS[1], stage=stage)) for stage in get_args(Stage)]
    study.enqueue(found)
    study.enqueue(found)
    assert claimed(study) == [one.key for one in found]
    assert len({str(one.key) for one in found}) == 3


def test_who_has_left_stays_in_the_study(tmp_path: Path):
    leaves = [Leave(arm="deep", rung=1, seeds=2), Leave(arm="wide", rung=2, seeds=1)]
    study = opened(tmp_path)
    study.leave(leaves[:1])
    Study(tmp_path / "study.db").leave(leaves)
    found = [{"arm": "deep", "rung": 1, "seeds": 2}, {"arm": "wide", "rung": 2, "seeds": 1}]
    assert plain(tmp_path).user_attrs["left"] == found


def test_optunas_own_table_reads_the_study(tmp_path: Path):
    study = opened(tmp_path)
    for key in claimed(study):
        trained(study, key, 10.0, 20.0 + len(key.proxy))
    frame = plain(tmp_path).trials_dataframe()
    assert list(frame["params_seed"]) == [0] * 4 + [1] * 4
    assert list(frame["value"]) == [20.0 + len(one.key.proxy) for one in ENTRIES]


# ---- damage


def whole(tmp_path: Path) -> bytes:
    study = opened(tmp_path)
    for key in claimed(study):
        trained(study, key, 1.0, 2.0)
    return (tmp_path / "study.db").read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(StudyError) as caught:
        Study(path).results()
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.mend
    return text


@pytest.mark.parametrize("content", [b"garbage" * 200, b"\0" * 5000], ids=["text", "zeros"])
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "study.db"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("eighths", range(1, 8))
def test_a_study_cut_short_is_refused_in_one_line(tmp_path: Path, eighths: int):
    content = whole(tmp_path)
    path = tmp_path / "cut.db"
    path.write_bytes(content[: len(content) * eighths // 8])
    refused(path)


def test_a_study_with_a_page_overwritten_is_refused_in_one_line(tmp_path: Path):
    content = bytearray(whole(tmp_path))
    for start in range(4096, len(content), 4096):
        content[start : start + 4096] = b"\xff" * 4096
    path = tmp_path / "harmed.db"
    path.write_bytes(content)
    refused(path)


def test_a_database_of_someone_else_is_refused_in_one_line(tmp_path: Path):
    storage = f"sqlite:///{tmp_path / 'other.db'}"
    optuna.create_study(storage=storage, study_name="scalesearch", direction="maximize").enqueue_trial({"x": 1})
    refused(tmp_path / "other.db")


def test_a_study_in_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path):
    refused(tmp_path / "none" / "study.db")


def test_a_study_keeps_to_the_images_it_began_with(tmp_path: Path):
    path = tmp_path / "study.db"
    Study(path).bind("one")
    Study(path).bind("one")
    with pytest.raises(StudyError, match="not those that the study began with"):
        Study(path).bind("another")
