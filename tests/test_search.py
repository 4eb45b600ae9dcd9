"""The coordinator: what is retried, what is given up, what an order of arrival and interruptions cannot change.

Some tests have real workers. Others have an engine that draws its accuracies from the trials' keys: it is as unruly as
engines are, and whole searches of every policy take a second.
"""

import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

import optuna
import pytest
from preparing import load

from scalesearch.agenda import Agenda, agenda, in_order
from scalesearch.documents import rank_document
from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot
from scalesearch.engine.work import KILLS, Event, Failed, Finished, Noticed, Progress, Work
from scalesearch.errors import DataError
from scalesearch.journal import NAME, Journal, read_journal
from scalesearch.outcome import conclude
from scalesearch.pace import Group, Pace
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.presets import PolicyName
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.search import ATTEMPTS, entries, mirrored, scaled, search
from scalesearch.storage import in_folder
from scalesearch.tables import trials_table
from scalesearch.trials import Stage, TrialKey, TrialResult

SLOT = Slot(device="cpu", name="cpu")
ENOUGH = 5
"""Failures of one trial after which a test stops the search."""


class EndlessError(Exception):
    """The search tries a trial again and again."""


REQUEST = Request(budget="0.5x", preset="quick", candidates=20, seeds=1, epochs=2, images=256)
"""What is searched without training it."""


@pytest.fixture(scope="module")
def plan(tiny_npz: Path) -> tuple[Plan, Layout]:
    request = Request(
        budget="0.5x",
        data=str(tiny_npz),
        preset="quick",
        policy="grid",
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
    load(plan[0].data, folder / "data", images=256, validation=60, side=12)
    return folder


class Heard:
    """An observer of a search that hands on its events and keeps its agendas."""

    def __init__(self, happened: Callable[[Event], None]) -> None:
        self.happened = happened
        self.agendas: list[Agenda] = []

    def planned(self, now: Agenda) -> None:
        self.agendas.append(now)


class Searched:
    """A search of the plan in a copy of the run folder, with every event it told of."""

    def __init__(self, plan: tuple[Plan, Layout], prepared: Path, folder: Path) -> None:
        self.plan, self.layout = plan
        self.folder = folder
        self.events: list[Event] = []
        shutil.copytree(prepared, folder)

    @property
    def keys(self) -> list[TrialKey]:
        return list(agenda(self.plan, self.layout, []).due)

    def images(self, stage: Stage) -> Path:
        return self.folder / "data"

    def checkpoint(self, key: TrialKey) -> Path:
        return self.folder / "checkpoints" / f"{key}.safetensors"

    def carry_out(self, observe: Callable[[Event], None] = lambda event: None, *, slots: int = 1) -> list[TrialResult]:
        study = mirrored(in_folder(self.folder), self.plan, self.layout)
        executor = LocalExecutor([SLOT] * slots)

        def heard(event: Event) -> None:
            self.events.append(event)
            observe(event)
            if isinstance(event, Failed) and len(self.failures(event.key)) >= ENOUGH:
                raise EndlessError

        try:
            with closing(Journal(self.folder / NAME)) as journal:
                observer, found = Heard(heard), (self.plan, self.layout)
                assert search(*found, journal, study, executor, self.folder, observer, images=self.images)
                assert study.close(within=300)
        finally:
            executor.close()
            study.close(0)
        return in_order(agenda(*found, journal.results).planned, journal.results)

    def crash_worker(self) -> None:
        for worker in multiprocessing.active_children():
            assert worker.pid
            os.kill(worker.pid, signal.SIGSEGV)

    def failures(self, key: TrialKey) -> list[Failed]:
        return [event for event in self.events if isinstance(event, Failed) and event.key == key]


@pytest.fixture
def searched(plan: tuple[Plan, Layout], prepared: Path, tmp_path: Path) -> Searched:
    return Searched(plan, prepared, tmp_path / "run")


def test_every_trial_of_a_grid_has_its_place_the_anchor_first(plan: tuple[Plan, Layout]):
    one, layout = resolve(replace(REQUEST, policy="grid", candidates=5))
    keys = agenda(one, layout, []).due
    assert [key.proxy for key in keys] == [ANCHOR] * one.seeds + list(layout.trained) * one.seeds
    assert {(key.rung, key.stage) for key in keys} == {(one.epochs, "search")}
    found = entries(one, layout, keys)
    assert [entry.key for entry in found] == list(keys)
    growths = [1.0 if key.proxy == ANCHOR else layout.candidate(key.proxy).proxy.growth for key in keys]
    assert [entry.growth for entry in found] == growths
    assert {entry.target for entry in found} == {one.space.budget}
    assert all(entry.digest == scaled(entry.key, one, layout).network.digest for entry in found)


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


@pytest.mark.slow
def test_a_trial_that_fails_behind_its_first_epoch_every_time_is_given_up_too(searched: Searched):
    # what was trained before the last failure is told again by the next attempt, and is no progress
    target = searched.keys[1]

    def observe(event: Event) -> None:
        if isinstance(event, Progress) and event.key == target:
            searched.crash_worker()

    results = {result.key: result for result in searched.carry_out(observe)}
    assert len(searched.failures(target)) == ATTEMPTS == 3
    assert results[target].state == "failed"
    assert results[target].accuracy is None
    assert results[target].reason == "worker killed by SIGSEGV"
    assert [result.epoch for result in results[target].epochs] == [1]
    assert {results[key].state for key in searched.keys if key != target} == {"complete"}


@pytest.mark.slow
def test_an_epoch_of_progress_gives_a_trial_all_its_attempts_back(searched: Searched):
    searched.plan = replace(searched.plan, epochs=3)
    target = searched.keys[-1]

    def observe(event: Event) -> None:
        if isinstance(event, Progress) and event.key == target:
            fatal = {0: 1, 1: 1, 2: 2, 3: 1}  # the epoch behind which its worker is killed, by failures before
            if fatal.get(len(searched.failures(target))) == event.result.epoch:
                searched.crash_worker()

    results = searched.carry_out(observe)
    assert len(searched.failures(target)) == 4
    assert (results[-1].key, results[-1].state) == (target, "complete")
    assert [result.epoch for result in results[-1].epochs] == [1, 2, 3]


def test_a_search_whose_images_are_gone_stops_records_no_failure_and_goes_on_with_them(searched: Searched):
    summary, aside = searched.folder / "data" / "images.json", searched.folder / "aside.json"
    summary.rename(aside)
    with pytest.raises(DataError, match=re.escape(str(searched.folder / "data"))):
        searched.carry_out()
    assert [event for event in searched.events if isinstance(event, Failed)] == []
    aside.rename(summary)
    assert {result.state for result in searched.carry_out()} == {"complete"}


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_search_sweeps_files_of_trials_alone_and_none_behind_a_link(is_linked: bool, tmp_path: Path):
    plan, layout = resolve(replace(REQUEST, policy="grid", candidates=5))
    checkpoints = tmp_path / "checkpoints"
    if is_linked:
        (tmp_path / "elsewhere").mkdir()
        checkpoints.symlink_to("elsewhere")
    checkpoints.mkdir(exist_ok=True)
    waits = agenda(plan, layout, []).due[0]
    kept = {f"{waits}.safetensors", f"{waits}.safetensors.before", "my_resnet.pt", "model.safetensors", ".x.0123abcd"}
    left = {f".{waits}.safetensors.0123abcd", f"{replace(waits, seed=99)}.safetensors", "d1-s0-e2-travel.safetensors"}
    for name in kept | left:
        (checkpoints / name).write_text("mine")
    study = mirrored(in_folder(tmp_path), plan, layout)
    with closing(Journal(tmp_path / NAME)) as journal:
        told = {"images": lambda _: tmp_path, "late": lambda: True}
        observer = Heard(lambda _: None)
        assert not search(plan, layout, journal, study, Unruly(1, random.Random(0)), tmp_path, observer, **told)
    study.close(within=300)
    assert {path.name for path in checkpoints.iterdir()} == (kept | left if is_linked else kept)


def test_a_search_leaves_no_half_checkpoint_of_a_worker_that_was_killed(tmp_path: Path):
    class Untidy(Unruly):
        def submit(self, work: Work) -> None:
            super().submit(work)
            work.checkpoint.with_name(f".{work.checkpoint.name}.0123abcd").write_text("half")

    plan, layout = resolve(replace(REQUEST, policy="grid", candidates=5))
    (tmp_path / "checkpoints").mkdir()
    study = mirrored(in_folder(tmp_path), plan, layout)
    with closing(Journal(tmp_path / NAME)) as journal:
        what = plan, layout, journal, study, Untidy(1, random.Random(0)), tmp_path, Heard(lambda _: None)
        assert search(*what, images=lambda _: tmp_path)
    study.close(within=300)
    assert list((tmp_path / "checkpoints").iterdir()) == []


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


# ---- searches that go by what they find, whatever the engine does


def chance(*what: object) -> float:
    """A number in [0, 1) that hangs on nothing but its arguments."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Unruly:
    """An engine without training: trials go on in any order, and now and then a worker dies.

    What a trial comes to hangs on its key alone; one in twenty of the trials diverges.
    """

    def __init__(self, slots: int, order: random.Random) -> None:
        self.slots, self.order = slots, order
        self.running: dict[Group, int] = {}
        self.deaths: set[Group] = set()

    @property
    def idle(self) -> int:
        return self.slots - len(self.running)

    @property
    def busy(self) -> int:
        return len(self.running)

    def submit(self, work: Work) -> None:
        assert self.idle
        assert work.keys not in self.running
        self.running[work.keys] = 0

    def events(self) -> list[Event]:
        rounds = range(self.order.randint(1, 3))
        return [event for _ in rounds if self.busy for event in self._on(self.order.choice(sorted(self.running)))]

    def _on(self, group: Group) -> list[Event]:
        done = self.running.pop(group)
        if group not in self.deaths and self.order.random() < 0.02:
            self.deaths.add(group)
            return [Failed(key, "worker killed by SIGKILL", final=False, is_kill=True) for key in group]
        events = [self._event(key, done) for key in group]
        if done < group[0].rung and not all(isinstance(event, Failed) for event in events):
            self.running[group] = done + 1
        return events

    def _event(self, key: TrialKey, done: int) -> Event:
        if chance("diverges", key) < 0.05:
            return Failed(key, "diverged: the training loss of epoch 1 is not finite", final=True)
        return Finished(key) if done == key.rung else Progress(key, result_of(key, done + 1))

    def forget(self, work: Work) -> None:
        assert work.keys not in self.running

    def stop(self, within: float) -> None:
        self.running.clear()

    def close(self) -> None: ...


class Doomed(Unruly):
    """One whose trials of a proxy come to what is said, one letter after another, before they are trained as others.

    `k` is a kill from outside, `f` a failure of its own, `e` an epoch.
    """

    def __init__(self, proxy: str, fate: str) -> None:
        super().__init__(1, random.Random(0))
        self.proxy, self.fate = proxy, iter(fate)

    def _on(self, group: Group) -> list[Event]:
        what = next(self.fate, "") if group[0].proxy == self.proxy else ""
        if what in ("k", "f"):
            del self.running[group]
            return [Failed(key, what, final=False, is_kill=what == "k") for key in group]
        self.deaths.add(group)  # of no other
        return super()._on(group)


FATES = {
    "k" * 99: (KILLS, "failed"),
    "f" * 99: (ATTEMPTS, "failed"),
    "k" * (KILLS - 1) + "f" * (ATTEMPTS - 1): (KILLS + ATTEMPTS - 2, "complete"),
    "k" * (KILLS - 1) + "ff" + "e" + "k" * (KILLS - 1) + "ff": (2 * (KILLS + ATTEMPTS - 2), "complete"),
    "ff" + "e" + "f" * 99: (2 * ATTEMPTS - 1, "failed"),
}
"""What a trial meets: how often it fails until it is given up or complete."""


@pytest.mark.parametrize("fate", FATES, ids=["killed", "failing", "both", "progress", "failing behind progress"])
def test_kills_from_outside_are_borne_for_longer_than_failures_counted_apart_and_up_to_progress(
    fate: str, tmp_path: Path
):
    plan, layout = resolve(replace(REQUESTS["grid"], candidates=2, seeds=1))
    (tmp_path / "checkpoints").mkdir()
    events: list[Event] = []
    engine, study = Doomed(ANCHOR, fate), mirrored(in_folder(tmp_path), plan, layout)
    with closing(Journal(tmp_path / NAME)) as journal:
        observer = Heard(events.append)
        assert search(plan, layout, journal, study, engine, tmp_path, observer, images=lambda _: tmp_path)
        [one] = [result for result in journal.results if result.key.proxy == ANCHOR]
    assert study.close(within=300)
    failures = [event for event in events if isinstance(event, Failed) and event.key == one.key]
    assert (len(failures), one.state) == FATES[fate]


def test_a_checkpoint_that_cannot_be_removed_is_told_of_and_costs_nothing(tmp_path: Path):
    plan, layout = resolve(replace(REQUESTS["grid"], candidates=2, seeds=1))
    keys = agenda(plan, layout, []).due
    places = [tmp_path / "checkpoints" / f"{key}.safetensors" for key in keys]
    for place in places:
        (place / "hers").mkdir(parents=True)
    events: list[Event] = []
    study = mirrored(in_folder(tmp_path), plan, layout)
    with closing(Journal(tmp_path / NAME)) as journal:
        told = {"images": lambda _: tmp_path}
        assert search(plan, layout, journal, study, Doomed("", ""), tmp_path, Heard(events.append), **told)
        assert all(result.has_ended for result in journal.results)
    assert study.close(within=300)
    notices = [event.text for event in events if isinstance(event, Noticed)]
    assert sorted(notices) == sorted(
        f"{place} cannot be removed: Is a directory; it is needed no more" for place in places
    )
    assert all((place / "hers").is_dir() for place in places)


def test_the_seeds_of_a_group_end_in_the_journal_together_whenever_their_coordinator_is_gone(tmp_path: Path):
    plan, layout = resolve(replace(REQUESTS["grid"], candidates=2, seeds=2))
    plan = replace(plan, pace=Pace(together=2))
    (tmp_path / "checkpoints").mkdir()

    diverged, finished = set[str](), list[TrialKey]()

    def observe(event: Event) -> None:
        if isinstance(event, Failed):
            diverged.add(event.key.proxy)
        elif isinstance(event, Finished) and event.key.proxy not in diverged:
            finished.append(event.key)
            raise StoppedError

    engine, study = Doomed("", ""), mirrored(in_folder(tmp_path), plan, layout)
    with closing(Journal(tmp_path / NAME)) as journal, pytest.raises(StoppedError):
        search(plan, layout, journal, study, engine, tmp_path, Heard(observe), images=lambda _: tmp_path)
    study.close(0)
    [first] = finished
    ended = [result.key for result in read_journal(tmp_path / NAME).results if result.state == "complete"]
    assert [key.seed for key in ended if key.proxy == first.proxy] == [0, 1]


def result_of(key: TrialKey, epoch: int) -> EpochResult:
    """Networks are up to 10 points apart, seeds and lengths half a point, and every epoch adds one."""
    accuracy = 60 + 10 * chance(key.proxy) + 0.5 * chance(key) + epoch - key.rung
    return EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy, loss=chance(key, epoch))


class StoppedError(Exception):
    """A search is interrupted."""


def carried_out(found: tuple[Plan, Layout], folder: Path, slots: int, order: random.Random, stops: int) -> str:
    """Carry out a search with interruptions; returns `ranking.json` and `trials.csv`, one behind the other."""
    plan, layout = found
    (folder / "checkpoints").mkdir(parents=True)
    lives = [order.randint(1, 60) for _ in range(stops)]
    is_done = False
    while not is_done:
        left = lives.pop() if lives else None
        is_clean, heard = order.random() < 0.5, list[Event]()  # stopped at the end of its time, or in the middle

        def observe(event: Event, left: int | None = left, is_clean: bool = is_clean, heard: list = heard) -> None:
            heard.append(event)
            if len(heard) == left and not is_clean:
                raise StoppedError

        def late(left: int | None = left, heard: list = heard) -> bool:
            return left is not None and len(heard) >= left

        study, engine = mirrored(in_folder(folder), plan, layout), Unruly(slots, order)
        with suppress(StoppedError), closing(Journal(folder / NAME)) as journal:
            told = {"images": lambda _: folder, "late": late}
            is_done = search(plan, layout, journal, study, engine, folder, Heard(observe), **told)
        assert study.close(within=300)
    outcome = conclude(plan, layout, read_journal(folder / NAME).results)
    assert all(result.has_ended for result in outcome.trials)
    assert mirrored_trials(folder) == [(one.key, one.state.name, one.accuracy) for one in outcome.trials]
    return json.dumps(rank_document(outcome), indent=1) + trials_table(outcome.trials)


def mirrored_trials(folder: Path) -> list[tuple[TrialKey, str, float | None]]:
    """What plain Optuna sees of a study, by number."""
    study = optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{folder / 'study.db'}")
    names = {"FAIL": "FAILED"}
    return [
        (
            TrialKey(**{name: trial.user_attrs[name] for name in ("proxy", "seed", "rung", "stage")}),
            names.get(trial.state.name, trial.state.name),
            trial.value,
        )
        for trial in study.trials
    ]


REQUESTS: dict[PolicyName, Request] = {
    "fit": replace(REQUEST, policy="fit", confirm=2, check_phi=2.0),
    "race": replace(REQUEST, policy="race", seeds=2),
    "grid": replace(REQUEST, policy="grid", seeds=2),
}


TOGETHER: dict[PolicyName, int] = {"fit": 2, "race": 1, "grid": 3}
"""Seeds trained as one network."""


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_neither_slots_nor_order_nor_interruptions_change_a_byte(policy: PolicyName, tmp_path: Path):
    plan, layout = resolve(REQUESTS[policy])
    found = replace(plan, pace=Pace(together=TOGETHER[policy])), layout
    expected = carried_out(found, tmp_path / "plain", 1, random.Random(0), stops=0)
    document = json.JSONDecoder().raw_decode(expected)[0]
    assert document["search"]["policy"] == policy
    assert document["search"]["unfinished"] is None
    assert document["failed"]  # some trials diverge
    assert (bool(document["confirmation"]), bool(document["travel"])) == (policy == "fit", policy == "fit")
    assert ("pruned" in expected) == (policy == "race")
    for slots, stops in ((1, 4), (4, 3)):
        order = random.Random(10 * slots + stops)
        assert carried_out(found, tmp_path / f"{slots}-{stops}", slots, order, stops) == expected
