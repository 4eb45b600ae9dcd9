"""Run folders as others read them: their ranking and their state. Imports no torch and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

from scalesearch.agenda import Agenda, agenda, in_order, player
from scalesearch.errors import JournalError, ScaleSearchError, StudyError
from scalesearch.journal import NAME, Record
from scalesearch.jsonfile import read_object
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import Layout, Plan, lay_out, read_plan
from scalesearch.runfolder import is_live, is_torn, recorded
from scalesearch.trials import TrialResult, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """What a run folder holds."""

    folder: Path
    plan: Plan
    layout: Layout
    results: tuple[TrialResult, ...]
    """Empty before the first trial."""
    is_live: bool
    """Whether a coordinator works on it now."""

    now: Agenda
    """What is still to be trained."""
    damaged: int = 0
    """Lines of the journal that are not believed; where nobody works on the run, a last one that is cut off, too."""

    @property
    def total(self) -> int:
        """Trials of the plan, the anchor's included: those that ended, where nothing is left to do, else the most."""
        return self.ended if self.now.stage is None else self.now.most

    @property
    def ended(self) -> int:
        """Trials of which nothing more is to come."""
        return sum(result.has_ended for result in self.results)

    @property
    def is_ranked(self) -> bool:
        """Whether any trial has an accuracy."""
        return any(result.accuracy is not None for result in self.results)

    def count(self, *states: TrialState) -> int:
        """Trials in any of the states."""
        return sum(result.state in states for result in self.results)

    @property
    def done(self) -> int:
        """Trials that went through all their epochs."""
        return sum(result.is_trained for result in self.results)

    @property
    def running(self) -> int:
        """Trials that are in training now."""
        return self.count(TrialState.RUNNING) if self.is_live else 0

    @property
    def at_most(self) -> str:
        """What stands before numbers that a run may stay below while it goes on."""
        return "" if self.now.stage is None else self.plan.at_most

    @property
    def begun(self) -> list[TrialResult]:
        """Trials that have begun and not ended, whether or not anybody trains them now."""
        return [result for result in self.results if result.state is TrialState.RUNNING]

    @property
    def share(self) -> float:
        """How much of its trials is trained [0, 1]: those that ended, failed ones too, and the epochs of others."""
        parts = (len(result.epochs) / result.key.rung for result in self.begun)
        return (self.ended + sum(parts)) / max(1, self.total)

    @property
    def standing(self) -> str:
        """How far it is, in a line."""
        done = f"{self.done} of {self.at_most}{self.total} trials done"
        return f"{self.state}: {done}{self._underway}, {self.count(TrialState.FAILED)} failed"

    @property
    def _underway(self) -> str:
        epochs = ", ".join(str(len(result.epochs)) for result in self.begun)
        state = "running" if self.is_live else "begun"
        return f", {len(self.begun)} {state} (epochs trained: {epochs})" if epochs else ""

    @property
    def state(self) -> str:
        """`running`, `finished` or `interrupted`."""
        if self.is_live:
            return "running"
        return "finished" if self.now.stage is None else "interrupted"

    @property
    def damage(self) -> str:
        """What is wrong with the journal; empty where nothing is."""
        if not self.damaged:
            return ""
        lines, it = ("line of the journal is", "it") if self.damaged == 1 else ("lines of the journal are", "them")
        return f"{self.damaged} {lines} damaged: what rests on {it} counts as not trained"

    @property
    def left(self) -> int:
        """Trials that have not ended, at most."""
        return self.total - self.ended

    @property
    def eta(self) -> float | None:
        """Time left, at most, at the median pace of the finished trials [s]; None while none has finished.

        As many trials are beside each other as now, or as were when the run was interrupted.
        """
        paces = [result.seconds for result in self.results if result.is_trained and result.seconds]
        at_once = max(1, self.count(TrialState.RUNNING))
        return median(paces) * self.left / at_once if paces else None


def read_run(folder: Path) -> StoredRun:
    """The plan and the trials of a run folder.

    Raises:
        StudyError: no run in that folder, or a damaged one.
    """
    plan = read_plan(folder)
    is_held = is_live(folder)
    record = recorded(folder)
    layout, now = _understood(plan, record, folder / "plan.yaml")
    return StoredRun(
        folder=folder,
        plan=plan,
        layout=layout,
        results=tuple(in_order(now.planned, record.results)),
        now=now,
        is_live=is_held,
        damaged=len(record.damaged) + (not is_held and is_torn(folder, record)),
    )


def _understood(plan: Plan, record: Record, path: Path) -> tuple[Layout, Agenda]:
    """What a plan comes to, with the trials that were trained of it; it was laid out before it was written."""
    try:
        layout = lay_out(plan)
        return layout, agenda(plan, layout, record.results, player(plan, layout, record.decided))
    except JournalError:
        raise
    except ScaleSearchError as error:
        fault = f"{path} is damaged: {error.message}"
        raise StudyError(fault, mend=error.mend or "restore the file, or run into a new folder") from None


def read_outcome(folder: Path) -> Outcome:
    """The ranking of the trials that have finished so far.

    Raises:
        StudyError: no run in that folder, a damaged one, or no finished trial.
    """
    return ranked(read_run(folder))


def ranked(stored: StoredRun) -> Outcome:
    """The ranking of a run that has been read.

    Raises:
        StudyError: no finished trial.
    """
    if not stored.is_ranked:
        mend = "wait for its first trial to end" if stored.is_live else "run the same command to go on"
        raise StudyError(f"{stored.folder / NAME} has no finished trial yet", mend=mend)
    return outcome_of(stored)


def outcome_of(stored: StoredRun) -> Outcome:
    """What the trials of a run that has been read come to."""
    remarks = _remarks(stored.folder / "scan.json")
    return conclude(stored.plan, stored.layout, stored.results, remarks, now=stored.now)


def _remarks(path: Path) -> list[str]:
    """What the look over the images found; nothing where its file is gone or damaged."""
    try:
        remarks = read_object(path)["remarks"]
    except (OSError, ValueError, KeyError):
        return []
    return [str(remark) for remark in cast("list[object]", remarks)] if isinstance(remarks, list) else []
