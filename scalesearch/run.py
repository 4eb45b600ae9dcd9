"""The main job from a plan to a finished run folder: images, trials, ranking, family.

A run folder is the product. Running the same plan again continues it: finished trials stay, started ones go on.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from scalesearch import documents, emit
from scalesearch.engine.local import LocalExecutor, Slot, local_slots
from scalesearch.engine.work import Event
from scalesearch.errors import DataError, ScaleSearchError, SearchFailedError
from scalesearch.members import members
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import Layout, Plan
from scalesearch.presets import gpu_listed
from scalesearch.proxy.data import load
from scalesearch.proxy.images import Images, open_images, save
from scalesearch.runfolder import claimed, write_text
from scalesearch.search import entries, search
from scalesearch.study import Study
from scalesearch.tables import candidates_table, trials_table
from scalesearch.trials import TrialResult

LIBRARIES = ("scalesearch", "torch", "torchvision", "fvcore", "optuna", "numpy", "scipy", "pandas", "safetensors")


class Observer(Protocol):
    """What wants to know how a run goes."""

    def started(self, plan: Plan, results: list[TrialResult], total: int, slots: int) -> None:
        """Images are ready; `results` hold what earlier runs of the plan trained."""

    def happened(self, event: Event) -> None:
        """A trial went on, finished or failed."""

    def ranked(self, outcome: Outcome) -> None:
        """All trials have ended."""

    def emitted(self, row: dict[str, Any]) -> None:
        """A member of the family is written and proved."""


def run(
    plan: Plan, layout: Layout, folder: Path, observer: Observer, *, download: bool = False
) -> tuple[Outcome, dict[str, Any]]:
    """Carry out a plan in its run folder.

    Args:
        plan: what to do.
        layout: its candidates.
        folder: new, or that of an earlier run of the same plan.
        observer: hears of progress.
        download: whether torchvision may fetch the dataset.

    Returns:
        The ranking, and the manifest of the family.

    Raises:
        StudyError: the folder holds another plan, or another process works in it.
        SearchFailedError: every trial that could be ranked failed.
        DataError: the images cannot be used.
    """
    todo = entries(plan, layout)
    slots = local_slots(plan.threads, need_gpu=plan.preset == "standard" and gpu_listed())[: len(todo)]
    with claimed(folder, plan):
        _write_environment(folder, slots)
        images = _prepare_images(plan, layout, folder, download=download)
        write_text(folder / "candidates.csv", candidates_table(plan, layout))
        study = Study(folder / "study.db", plan.space.budget)
        study.bind(images.fingerprint)
        observer.started(plan, study.results(), len(todo), len(slots))
        _train(plan, layout, study, slots, folder, observer)
        results = study.results()
        outcome = conclude(plan, layout, results)
        write_text(folder / "trials.csv", trials_table(results))
        write_text(folder / "ranking.json", json.dumps(documents.rank_document(outcome), indent=1) + "\n")
        if outcome.leader is None:
            reasons = "; ".join(sorted({trial.reason for trial in outcome.failed}))
            raise SearchFailedError(
                f"no trial of a candidate on budget has finished: {reasons}", mend=f"see {folder}/logs"
            )
        observer.ranked(outcome)
        return outcome, _emit(outcome, folder, observer)


def _train(plan: Plan, layout: Layout, study: Study, slots: list[Slot], folder: Path, observer: Observer) -> None:
    executor = LocalExecutor(slots)
    try:
        search(plan, layout, study, executor, folder, observer.happened)
    finally:
        executor.close()


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
    place = folder / "data"
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
