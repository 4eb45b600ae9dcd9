"""The main job from a plan to a finished run folder: images, trials, ranking, family.

A run folder is the product. Running the same plan again continues it: finished trials stay, started ones go on.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from scalesearch import documents, emit
from scalesearch.agenda import Agenda, agenda
from scalesearch.engine.local import LocalExecutor, Slot, local_slots
from scalesearch.engine.work import Event
from scalesearch.errors import DataError, ScaleSearchError, SearchFailedError, StudyError
from scalesearch.members import members
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import Layout, Plan
from scalesearch.presets import gpu_listed
from scalesearch.proxy.data import load, load_test
from scalesearch.proxy.images import Images, open_images, save
from scalesearch.proxy.scan import Scan, scan
from scalesearch.runfolder import claimed, write_text
from scalesearch.search import search
from scalesearch.study import Study
from scalesearch.tables import candidates_table, trials_table
from scalesearch.trials import Stage, TrialResult

DATA = "data"
TEST_DATA = "data-test"
LIBRARIES = ("scalesearch", "torch", "torchvision", "fvcore", "optuna", "numpy", "scipy", "pandas", "safetensors")


class Observer(Protocol):
    """What wants to know how a run goes."""

    def started(self, plan: Plan, results: list[TrialResult], slots: int) -> None:
        """Training begins; `results` hold what earlier runs of the plan trained."""

    def scanned(self, found: Scan) -> None:
        """The images are ready and looked over."""

    def planned(self, now: Agenda) -> None:
        """A batch of trials is due."""

    def happened(self, event: Event) -> None:
        """A trial went on, finished or failed."""

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
    download: bool = False,
    hours: float | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Carry out a plan in its run folder.

    Args:
        plan: what to do.
        layout: its candidates.
        folder: new, or that of an earlier run of the same plan.
        observer: hears of progress.
        download: whether torchvision may fetch the dataset.
        hours: the time after which training stops at the end of an epoch and what there is is ranked; the only
            argument that makes a result depend on the machine's pace. The same plan goes on from there.

    Returns:
        The ranking, and the manifest of the family.

    Raises:
        StudyError: the folder holds another plan, or another process works in it.
        SearchFailedError: every trial that could be ranked failed.
        DataError: the images cannot be used.
    """
    end = math.inf if hours is None else time.monotonic() + 3600 * hours
    slots = local_slots(plan.threads, need_gpu=plan.preset == "standard" and gpu_listed())
    with claimed(folder, plan):
        _write_environment(folder, slots)
        images = _prepare_images(plan, layout, folder, download=download)
        write_text(folder / "candidates.csv", candidates_table(plan, layout))
        study = Study(folder / "study.db")
        study.bind(images.fingerprint)
        test = _prepare_test(plan, images, folder, download=download) if plan.confirm else None  # faults show early
        if test is not None:
            study.bind(test.fingerprint, "test_images")
        found = scan(plan.data, images, test)
        write_text(folder / "scan.json", json.dumps(found.to_dict(), indent=1) + "\n")
        slots = slots[: agenda(plan, layout, study.results()).most]
        observer.started(plan, study.results(), len(slots))
        observer.scanned(found)
        executor = LocalExecutor(slots)
        try:
            search(plan, layout, study, executor, folder, observer, images=_place, late=lambda: time.monotonic() >= end)
        finally:
            executor.close()
        outcome = _concluded(plan, layout, study, folder, found)
        observer.ranked(outcome)
        return outcome, _emit(outcome, folder, observer)


def _concluded(plan: Plan, layout: Layout, study: Study, folder: Path, found: Scan) -> Outcome:
    """The outcome, with its tables and `ranking.json` written."""
    results = study.results()
    outcome = conclude(plan, layout, results, found.remarks())
    write_text(folder / "trials.csv", trials_table(results))
    write_text(folder / "ranking.json", json.dumps(documents.rank_document(outcome), indent=1) + "\n")
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
    return emit.write(found, rule, base.name, folder / "family", observer.emitted, weights=False)


def _write_environment(folder: Path, slots: list[Slot]) -> None:
    found = {
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "slots": [asdict(slot) for slot in slots],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(folder / "environment.json", json.dumps(found, indent=1) + "\n")


def _refuse_what_does_not_fit(plan: Plan, side: int) -> None:
    """The images are held in memory while they are decoded, and once by each worker."""
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = plan.images + plan.validation_images
    if 3 * side**2 * count > memory / 4:
        fault = (
            f"{count:,} images of {side} px take {3 * side**2 * count / 1e9:.1f} GB of {memory / 1e9:.1f} GB of memory"
        )
        raise DataError(fault, mend="take fewer with --images")


def _prepare_images(plan: Plan, layout: Layout, folder: Path, *, download: bool) -> Images:
    place = folder / DATA
    try:
        return open_images(place, verify=True)
    except ScaleSearchError:  # not there yet, or damaged: chosen again from the source
        side = min(plan.data.side, max(one.proxy.network.resolution for one in layout.candidates))
        _refuse_what_does_not_fit(plan, side)
        found = load(
            plan.data,
            images=plan.images,
            validation=plan.validation_images,
            side=side,
            download=download,
        )
        save(found, place)
        return found


def _place(stage: Stage) -> str:
    """The folder of a stage's images, in the run folder."""
    return TEST_DATA if stage == "confirm" else DATA


def _prepare_test(plan: Plan, images: Images, folder: Path, *, download: bool) -> Images:
    """The training images with the test part in place of the validation part; no trial but a confirmation opens it."""
    place = folder / TEST_DATA
    try:
        return open_images(place, verify=True)
    except ScaleSearchError:  # not there yet, or damaged
        side = int(images.train_images.shape[-1])
        found = load_test(plan.data, images, side=side, download=download)
        save(found, place)
        return found
