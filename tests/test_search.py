"""The coordinator with real workers: what is retried, what is given up, what an order of arrival cannot change."""

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesearch.engine.local import LocalExecutor, Slot
from scalesearch.engine.work import Event, Failed, Finished, Progress
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.proxy.data import load
from scalesearch.proxy.images import save
from scalesearch.request import Request, resolve
from scalesearch.search import ATTEMPTS, entries, search
from scalesearch.study import Study
from scalesearch.trials import TrialKey, TrialResult

SLOT = Slot(device="cpu", name="cpu", threads=1)
ENOUGH = 5
"""Failures of one trial after which a test stops the search."""


class EndlessError(Exception):
    """The search tries a trial again and again."""


@pytest.fixture(scope="module")
def plan(tiny_npz: Path) -> tuple[Plan, Layout]:
    request = Request(
        budget="0.5x",
        data=str(tiny_npz),
        preset="quick",
        candidates=2,
        seeds=1,
        epochs=2,
        images=256,
        proxy_resolution=12,
        recipe={"batch_size": 64, "norm_images": 64},
    )
    return resolve(request)


@pytest.fixture(scope="module")
def prepared(plan: tuple[Plan, Layout], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its images, to be copied."""
    folder = tmp_path_factory.mktemp("search") / "run"
    for name in ("checkpoints", "logs"):
        (folder / name).mkdir(parents=True)
    save(load(plan[0].data, images=256, validation=60, side=12), folder / "data")
    return folder


class Searched:
    """A search of the plan in a copy of the run folder, with every event it told of."""

    def __init__(self, plan: tuple[Plan, Layout], prepared: Path, folder: Path) -> None:
        self.plan, self.layout = plan
        self.folder = folder
        self.events: list[Event] = []
        shutil.copytree(prepared, folder)

    @property
    def keys(self) -> list[TrialKey]:
        return [one.key for one in entries(self.plan, self.layout)]

    def checkpoint(self, key: TrialKey) -> Path:
        return self.folder / "checkpoints" / f"{key}.safetensors"

    def carry_out(self, observe: Callable[[Event], None] = lambda event: None, *, slots: int = 1) -> list[TrialResult]:
        study = Study(self.folder / "study.db", self.plan.space.budget)
        executor = LocalExecutor([SLOT] * slots)

        def heard(event: Event) -> None:
            self.events.append(event)
            observe(event)
            if max(len(self.failures(key)) for key in self.keys) >= ENOUGH:
                raise EndlessError

        try:
            search(self.plan, self.layout, study, executor, self.folder, heard)
        finally:
            executor.close()
        return study.results()

    def kill_worker(self) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()

    def failures(self, key: TrialKey) -> list[Failed]:
        return [event for event in self.events if isinstance(event, Failed) and event.key == key]


@pytest.fixture
def searched(plan: tuple[Plan, Layout], prepared: Path, tmp_path: Path) -> Searched:
    return Searched(plan, prepared, tmp_path / "run")


def test_every_trial_has_its_place_the_anchor_first_in_each_seed(plan: tuple[Plan, Layout]):
    one, layout = plan
    found = entries(one, layout)
    assert [entry.key.proxy for entry in found] == [ANCHOR, *layout.trained] * one.seeds
    assert [entry.key.seed for entry in found] == sorted(entry.key.seed for entry in found)
    assert all(entry.key.rung == one.epochs for entry in found)
    assert [entry.growth for entry in found[1:]] == [layout.candidate(name).proxy.growth for name in layout.trained]


@pytest.mark.slow
def test_one_slot_or_two_in_another_order_come_to_the_same_results(
    searched: Searched, plan: tuple[Plan, Layout], prepared: Path, tmp_path: Path
):
    in_one = searched.carry_out()
    other = Searched(plan, prepared, tmp_path / "other")
    in_two = other.carry_out(slots=2)
    assert [(result.key, result.state, result.epochs) for result in in_one] == [
        (result.key, result.state, result.epochs) for result in in_two
    ]
    assert [result.key for result in in_one] == searched.keys
    assert {result.state for result in in_one} == {"complete"}
    finished = [event.key for event in searched.events if isinstance(event, Finished)]
    assert finished == searched.keys
    assert list((searched.folder / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_finished_study_is_left_as_it_is(searched: Searched):
    first = searched.carry_out()
    told = len(searched.events)
    assert searched.carry_out() == first
    assert len(searched.events) == told


def test_a_trial_that_keeps_failing_is_given_up_with_its_reason_and_the_rest_goes_on(searched: Searched):
    target = searched.keys[1]
    searched.checkpoint(target).mkdir()  # nothing can be stored under this name
    results = {result.key: result for result in searched.carry_out()}
    failures = searched.failures(target)
    assert len(failures) == ATTEMPTS == 3
    assert results[target].state == "failed"
    assert results[target].accuracy is None
    assert results[target].reason == failures[-1].reason
    assert "IsADirectoryError" in results[target].reason
    assert {key: result.state for key, result in results.items() if key != target} == dict.fromkeys(
        [key for key in searched.keys if key != target], "complete"
    )


@pytest.mark.slow
def test_a_trial_that_fails_behind_its_first_epoch_every_time_is_given_up_too(searched: Searched):
    # what was trained before the last failure is told again by the next attempt, and is no progress
    target = searched.keys[1]

    def observe(event: Event) -> None:
        if isinstance(event, Progress) and event.key == target:
            searched.kill_worker()

    results = {result.key: result for result in searched.carry_out(observe)}
    assert len(searched.failures(target)) == ATTEMPTS
    assert results[target].state == "failed"
    assert results[target].reason == "worker killed by SIGKILL"
    assert [result.epoch for result in results[target].epochs] == [1]
    assert {results[key].state for key in searched.keys if key != target} == {"complete"}


@pytest.mark.slow
def test_an_epoch_of_progress_gives_a_trial_all_its_attempts_back(searched: Searched):
    target = searched.keys[-1]
    obstacle = searched.checkpoint(target)
    obstacle.mkdir()

    def observe(event: Event) -> None:
        failures = len(searched.failures(target))
        if isinstance(event, Failed) and failures == 2:
            obstacle.rmdir()
        elif isinstance(event, Progress) and event.key == target and 2 <= failures < 4:
            searched.kill_worker()

    results = searched.carry_out(observe)
    assert len(searched.failures(target)) == 4
    assert (results[-1].key, results[-1].state) == (target, "complete")
    assert [result.epoch for result in results[-1].epochs] == [1, 2]


def test_trials_without_images_are_given_up_at_once(searched: Searched):
    (searched.folder / "data" / "images.json").unlink()
    results = searched.carry_out()
    assert {result.state for result in results} == {"failed"}
    assert [len(searched.failures(key)) for key in searched.keys] == [1] * len(results)
    assert all(str(searched.folder / "data") in result.reason for result in results)


@pytest.mark.slow
def test_a_search_that_stops_anywhere_goes_on_where_it_was(searched: Searched):
    class StoppedError(Exception):
        pass

    def stop_after(events: int) -> Callable[[Event], None]:
        left = iter(range(events))

        def observe(event: Event) -> None:
            if next(left) == events - 1:
                raise StoppedError

        return observe

    for events in (1, 4):
        with pytest.raises(StoppedError):
            searched.carry_out(stop_after(events))
    stored = searched.carry_out()
    assert {result.state for result in stored} == {"complete"}
    trained = [event.key for event in searched.events if isinstance(event, Finished)]
    assert sorted(trained) == sorted(set(trained))
