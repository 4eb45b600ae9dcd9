"""The main job from a plan to a finished run folder: images, trials, ranking, family.

A run folder is the product. Running the same plan again continues it: finished trials stay, started ones go on.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from scalesearch import documents, emit
from scalesearch.agenda import Agenda, agenda, player
from scalesearch.engine.slots import Slot
from scalesearch.engine.work import Cluster, Event, Noticed
from scalesearch.engines import Arranged, engine
from scalesearch.errors import SearchFailedError, StudyError
from scalesearch.files import Told
from scalesearch.journal import NAME, Journal, read_journal
from scalesearch.jsonfile import read_object
from scalesearch.members import members
from scalesearch.mirror import Mirror
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import Layout, Plan
from scalesearch.prepared import prepare_images, prepare_test, refuse_unwritable
from scalesearch.proxy.choice import Step
from scalesearch.proxy.scan import Scan, scan
from scalesearch.runfolder import bind_storage, claimed, placed, write_text
from scalesearch.search import mirrored, search
from scalesearch.stopping import Asked, noting
from scalesearch.storage import Storage
from scalesearch.tables import candidates_table, trials_table
from scalesearch.trials import Stage, TrialResult

FAMILY = "family"
"""Folder of a run's family, in its own."""
LIBRARIES = ("scalesearch", "torch", "torchvision", "fvcore", "optuna", "numpy", "scipy", "pandas", "safetensors")


class Observer(Protocol):
    """What wants to know how a run goes."""

    def prepared(self, step: Step, done: int, total: int) -> None:
        """So many images of those that are to be prepared are."""

    def measuring(self, plan: Plan) -> None:
        """How trials are trained fastest is about to be measured, for seconds to minutes."""

    def started(self, plan: Plan, results: list[TrialResult], slots: int) -> None:
        """Training begins; `results` hold what earlier runs of the plan trained."""

    def scanned(self, found: Scan) -> None:
        """The images are ready and looked over."""

    def planned(self, now: Agenda) -> None:
        """A batch of trials is due."""

    def happened(self, event: Event) -> None:
        """A trial went on, finished or failed, or a person should hear of something."""

    def ranked(self, outcome: Outcome) -> None:
        """All trials have ended, or the time is over."""

    def emitted(self, row: dict[str, Any]) -> None:
        """A member of the family is written and proved."""


def run(
    plan: Plan,
    layout: Layout,
    folder: Path,
    observer: Observer,
    *,
    cache: Path | None = None,
    download: bool = False,
    hours: float | None = None,
    storage: str | None = None,
    cluster: Cluster | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Carry out a plan in its run folder.

    Args:
        plan: what to do.
        layout: its candidates.
        folder: new, or that of an earlier run of the same plan.
        observer: hears of progress.
        cache: folder of prepared images that runs share; None = they lie in the run folder.
        download: whether torchvision may fetch the dataset.
        hours: the time after which training stops at the end of an epoch and what there is is ranked; the only
            argument that makes a result depend on the machine's pace. The same plan goes on from there.
        storage: URL of a PostgreSQL database for the study; None = where it is, at first a file in the folder.
        cluster: Ray cluster to train on; None = this machine.

    Returns:
        The ranking, and the manifest of the family.

    Raises:
        StudyError: the folder holds another plan, or another process works in it; or there is no place for the study.
        PlanError: checkpoints are to be kept where nothing here knows how to reach.
        SearchFailedError: every trial that could be ranked failed.
        DataError: the images cannot be used, or are damaged by now.
        EngineError: workers cannot begin.
        ClusterError: the cluster cannot be reached, or has no room for a trial.
        KeyboardInterrupt, TerminatedError: a signal came; trials that were running have a checkpoint.
    """
    end = math.inf if hours is None else time.monotonic() + 3600 * hours
    asked = Asked()
    _refuse_places(folder, plan, storage, cache, cluster)
    with (
        claimed(folder, plan) as plan,
        closing(Journal(folder / NAME, _heard(observer), asked.check)) as journal,
        ExitStack() as following,
    ):
        now = agenda(plan, layout, journal.results, player(plan, layout, journal.decided))
        with engine(plan, layout, now, _own_place(cluster, journal), observer.happened) as workers:
            images, found = _prepared(plan, layout, folder, journal, observer, cache=cache, download=download)
            ready = workers.arranged(plan, layout, now, folder, _heard(observer), partial(observer.measuring, plan))
            _write_environment(folder, ready.slots, observer)
            _tell_of_start(ready, layout, journal.results, found, observer)
            study = following.enter_context(_followed(storage, journal, plan, layout, folder, observer))
            with noting(asked):
                what = ready.plan, layout, journal, study, ready.executor, folder, observer
                late = partial(_is_over, asked, end)
                search(*what, images=images, sharing=ready.sharing, late=late, grace=lambda: asked.grace)
        outcome = _concluded(ready.plan, layout, journal, folder, found, observer)
        observer.ranked(outcome)
        return outcome, _emit(outcome, folder, observer)


def _refuse_places(folder: Path, plan: Plan, storage: str | None, cache: Path | None, cluster: Cluster | None) -> None:
    """Refuse a place for the study, for images, checkpoints or the family that cannot be used, before any is made."""
    emit.refuse_occupied(folder / FAMILY, plan.base.growths(plan.space.budget))
    if cluster is not None and cluster.checkpoints is not None:
        from scalesearch.engine.afar import refuse_unspoken

        refuse_unspoken(cluster.checkpoints)
    if cache is not None:
        refuse_unwritable(cache)
    place = placed(folder, storage)
    if not _is_bound(place, read_journal(folder / NAME).bound):
        from scalesearch.study import reach

        reach(place)


def _is_bound(place: Storage, bound: Mapping[str, str]) -> bool:
    """Whether a run has used a place before: it may be away for a while, and is waited for."""
    return place.file is not None or (bound.get("study"), bound.get("storage")) == (place.study, place.shown)


@contextmanager
def _followed(
    storage: str | None, journal: Journal, plan: Plan, layout: Layout, folder: Path, observer: Observer
) -> Iterator[Mirror]:
    """The study, which follows the journal; at the end it has some time to come up with it."""
    place = placed(folder, storage)
    if not _is_bound(place, journal.bound):
        from scalesearch.study import try_out

        try_out(place)
        bind_storage(journal, place)
    study = mirrored(place, plan, layout)
    try:
        yield study
    except BaseException:
        study.close(within=1)
        raise
    if not study.close():
        text = f"the study in {place.shown} is behind; `scalesearch repair {folder}` brings it up"
        observer.happened(Noticed(text))


def _own_place(cluster: Cluster | None, journal: Journal) -> Cluster | None:
    """The same cluster, with a folder for the checkpoints of this run alone, which later runs of its folder find."""
    if cluster is None or cluster.checkpoints is None:
        return cluster
    name = journal.bound.get("checkpoints", "")
    if not re.fullmatch("[0-9a-f]{16}", name):  # a file is believed no other place
        name = secrets.token_hex(8)
        journal.bind("checkpoints", name)
    return replace(cluster, checkpoints=f"{cluster.checkpoints.rstrip('/')}/{name}")


def _tell_of_start(
    ready: Arranged, layout: Layout, results: list[TrialResult], found: Scan, observer: Observer
) -> None:
    """That training begins, and what is to be said of the candidates and of the images."""
    observer.started(ready.plan, results, len(ready.slots))
    for remark in layout.remarks:
        observer.happened(Noticed(remark))
    observer.scanned(found)


def _is_over(asked: Asked, end: float) -> bool:
    """Whether a signal asks for an end, or the time is over."""
    return bool(asked) or time.monotonic() >= end


def _heard(observer: Observer) -> Told:
    """Tells an observer what a person should hear."""
    return lambda text: observer.happened(Noticed(text))


def _prepared(
    plan: Plan,
    layout: Layout,
    folder: Path,
    journal: Journal,
    observer: Observer,
    *,
    cache: Path | None,
    download: bool,
) -> tuple[Callable[[Stage], Path], Scan]:
    """The folder of each stage's images, to which the run is tied, and what is to be said of them."""
    told, bound = observer.prepared, journal.bound
    train = prepare_images(plan, layout, folder, told, cache=cache, download=download, bound=bound.get("images"))
    write_text(folder / "candidates.csv", candidates_table(plan, layout), _heard(observer))
    journal.bind("images", train.images.fingerprint)
    test = None
    if plan.confirm:  # before the training, so that a fault shows early
        earlier = bound.get("test_images")
        test = prepare_test(plan, train, folder, told, cache=cache, download=download, bound=earlier)
        journal.bind("test_images", test.images.fingerprint)
    found = scan(plan.data, train.images, test.images if test else None)
    write_text(folder / "scan.json", json.dumps(found.to_dict(), indent=1) + "\n", _heard(observer))
    return lambda stage: test.folder if test and stage == "confirm" else train.folder, found


def _concluded(plan: Plan, layout: Layout, journal: Journal, folder: Path, found: Scan, observer: Observer) -> Outcome:
    """The outcome, with its tables and `ranking.json` written."""
    now = agenda(plan, layout, journal.results, player(plan, layout, journal.decided))
    outcome = conclude(plan, layout, journal.results, found.remarks(), now)
    write_text(folder / "trials.csv", trials_table(outcome.trials), _heard(observer))
    ranking = json.dumps(documents.rank_document(outcome), indent=1) + "\n"
    write_text(folder / "ranking.json", ranking, _heard(observer))
    if outcome.leader is None and outcome.failed:
        reasons = "; ".join(sorted({trial.reason for trial in outcome.failed}))
        raise SearchFailedError(f"no trial of a candidate on budget has finished: {reasons}", mend=f"see {folder}/logs")
    if outcome.leader is None:
        raise StudyError("no trial of a candidate on budget has finished in time", mend="run the same command to go on")
    return outcome


def _emit(outcome: Outcome, folder: Path, observer: Observer) -> dict[str, Any]:
    rule = outcome.rule()
    base = outcome.plan.base
    found = members(rule, base, base.growths(rule.budget), classes=None, limits=outcome.plan.limits)
    return emit.write(found, rule, base.name, folder / FAMILY, observer.emitted, weights=False, full=_heard(observer))


def _write_environment(folder: Path, slots: Sequence[Slot], observer: Observer) -> None:
    """Note the versions and the hardware of this run, those of earlier runs behind them."""
    found = {
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "slots": [asdict(slot) for slot in slots],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path = folder / "environment.json"
    try:
        last = read_object(path)
        before = [last, *last.pop("before", [])]
        then = dict(last["versions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before, then = [], found["versions"]
    changed = [f"{name} {then.get(name)} → {now}" for name, now in found["versions"].items() if then.get(name) != now]
    if changed:
        _heard(observer)(f"other versions than when this folder was last at work: {', '.join(changed)}")
    write_text(path, json.dumps({**found, "before": before}, indent=1) + "\n", _heard(observer))
