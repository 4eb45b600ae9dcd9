"""The stored study: an Optuna study in the run folder with one trial per (proxy, seed). The only door to optuna.

Trials are enqueued in canonical order and claimed in it. One coordinator writes; readers may look at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from scalesearch.errors import StudyError
from scalesearch.levelling import TOLERANCE
from scalesearch.policies import Leave
from scalesearch.recipe import EpochResult
from scalesearch.scaling import Coefficients
from scalesearch.space import LARGEST_BUDGET
from scalesearch.trials import TrialKey, TrialResult, TrialState

STUDY_NAME = "scalesearch"
DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = {
    **{
        name: optuna.distributions.FloatDistribution(1 / LARGEST_BUDGET, LARGEST_BUDGET)
        for name in ("alpha", "beta", "gamma")
    },
    "seed": optuna.distributions.IntDistribution(0, 2**31 - 1),
}
"""What the parameters of any study may be: trials come batch by batch, and Optuna wants one answer for all."""
STATES = {
    optuna.trial.TrialState.WAITING: TrialState.WAITING,
    optuna.trial.TrialState.RUNNING: TrialState.RUNNING,
    optuna.trial.TrialState.COMPLETE: TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED: TrialState.PRUNED,
    optuna.trial.TrialState.FAIL: TrialState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A trial to be enqueued, with what the study keeps of its proxy."""

    key: TrialKey
    rule: Coefficients
    """The rule of the proxy's shares."""
    digest: str
    """Of the trained network."""
    macs: int
    growth: float
    """Realised growth of the trained network."""
    target: float
    """Growth that it ought to have."""


class Study:
    """Trials by key, stored by Optuna in SQLite."""

    def __init__(self, path: Path) -> None:
        """Open the study in a file, making it if there is none.

        Raises:
            StudyError: the file is there and cannot be read as a study.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
            self._study = optuna.create_study(
                storage=storage, study_name=STUDY_NAME, direction="maximize", load_if_exists=True
            )
            self.results()  # every trial can be read
        except (SQLAlchemyError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise StudyError(f"{path} cannot be read as a study: {reason}", mend="run into a new folder") from None
        self._trials: dict[TrialKey, optuna.Trial] = {}
        self._waiting = 0  # trials that wait at least: this is the only writer

    def bind(self, fingerprint: str, part: str = "images") -> None:
        """Tie the study to the images of its first trial, or to those of its confirmation.

        Raises:
            StudyError: it is tied to others.
        """
        known = self._study.user_attrs.get(part)
        if known is None:
            self._study.set_user_attr(part, fingerprint)
        elif known != fingerprint:
            raise StudyError("the images are not those that the study began with", mend="restore them, or use --out")

    def enqueue(self, entries: Sequence[Entry]) -> None:
        """Add the trials that are not there yet, in order."""
        known = {result.key for result in self.results()}
        for entry in entries:
            if entry.key not in known:
                self._study.enqueue_trial(_parameters(entry), user_attrs=_attributes(entry))

    def claim(self) -> TrialKey | None:
        """The next waiting trial, now running; None when none waits."""
        if not self._waiting:
            self._waiting = len(self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)))
        if not self._waiting:
            return None
        self._waiting -= 1
        return self._take_up(self._study.ask(fixed_distributions=DISTRIBUTIONS))

    def unfinished(self) -> list[TrialKey]:
        """Trials that a coordinator left running when it ended, taken up again, in order."""
        running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        for frozen in running:
            # Optuna has no public way back to a running trial; its own storage takes the same one
            self._take_up(optuna.Trial(self._study, frozen._trial_id))
        return [_key(frozen) for frozen in running]

    def _take_up(self, trial: optuna.Trial) -> TrialKey:
        key = _key(trial)
        if "compute" not in trial.constraints:
            stored = trial.user_attrs
            trial.set_constraint("compute", abs(stored["growth"] / stored["target"] - 1) - TOLERANCE)
        self._trials[key] = trial
        return key

    def report(self, key: TrialKey, result: EpochResult) -> bool:
        """Store an epoch of a running trial; returns False for one that is stored already."""
        trial = self._trials[key]
        stored = trial.user_attrs.get("epochs", [])
        if result.epoch <= len(stored):
            return False
        trial.set_user_attr("epochs", [*stored, asdict(result)])
        trial.report(result.accuracy, step=result.epoch)
        return True

    def complete(self, key: TrialKey, *, is_short: bool) -> None:
        """Close a running trial with the accuracy of its last epoch; a short rung's counts as pruned at its end."""
        trial = self._trials.pop(key)
        if is_short:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # keeps the last reported accuracy
        else:
            self._study.tell(trial, trial.user_attrs["epochs"][-1]["accuracy"])

    def leave(self, leaves: Sequence[Leave]) -> None:
        """Record the arms that are trained no longer, with the training length that put them out."""
        found = [asdict(leave) for leave in leaves]
        if found != self._study.user_attrs.get("left", []):
            self._study.set_user_attr("left", found)

    def fail(self, key: TrialKey, reason: str) -> None:
        """Close a running trial without an accuracy."""
        trial = self._trials.pop(key)
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def results(self) -> list[TrialResult]:
        """Every trial as a record, in canonical order."""
        return [_result(trial) for trial in self._study.get_trials(deepcopy=False)]


def _key(trial: optuna.Trial | optuna.trial.FrozenTrial) -> TrialKey:
    stored = trial.user_attrs
    return TrialKey(proxy=stored["proxy"], seed=stored["seed"], rung=stored["rung"], stage=stored["stage"])


def _result(trial: optuna.trial.FrozenTrial) -> TrialResult:
    return TrialResult(
        key=_key(trial),
        state=STATES[trial.state],
        epochs=tuple(EpochResult(**row) for row in trial.user_attrs.get("epochs", [])),
        reason=trial.user_attrs.get("reason", ""),
        seconds=trial.duration.total_seconds() if trial.duration else None,
    )


def _parameters(entry: Entry) -> dict[str, float | int]:
    return {**asdict(entry.rule), "seed": entry.key.seed}


def _attributes(entry: Entry) -> dict[str, object]:
    costs = {"macs": entry.macs, "growth": entry.growth, "target": entry.target}
    return {**asdict(entry.key), "digest": entry.digest, **costs}
