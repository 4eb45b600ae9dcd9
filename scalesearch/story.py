"""What the rows of a trial in a journal come to, told one by one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from scalesearch.errors import shown
from scalesearch.recipe import EpochResult
from scalesearch.trials import STAGES, TrialKey, TrialResult, TrialState

ENDS = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED})
Row = dict[str, Any]
"""A line of a journal."""
Name = tuple[Any, Any, Any, Any]
"""A trial's key as its rows have it."""


def name_of(row: Row) -> Name:
    """The trial that a row is of."""
    return row["proxy"], row["seed"], row["rung"], row["stage"]


def key_of(proxy: Any, seed: Any, rung: Any, stage: Any) -> TrialKey:
    """The key that a name stands for.

    Raises:
        ValueError, TypeError: none does.
    """
    if stage not in STAGES:
        raise ValueError(f"stage = {shown(stage)} is none of {', '.join(STAGES)}")
    return TrialKey(proxy=text(proxy), seed=count(seed), rung=count(rung, least=1), stage=stage)


class Story:
    """What the rows of a trial come to, told one by one."""

    __slots__ = ("_result", "ended", "epochs", "key", "reason", "seconds", "started", "state")

    def __init__(self, key: TrialKey) -> None:
        self.key, self.state, self.reason = key, TrialState.RUNNING, ""
        self.epochs: list[EpochResult] = []
        self.seconds: float | None = None
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self._result: TrialResult | None = None

    def tell(self, row: Row) -> bool:
        """One more row; returns whether it says something new that rests on what is there."""
        kind = row["kind"]
        if kind == "epoch":
            is_new = self._tell_epoch(_epoch(row), _real(row["seconds"]))
        elif kind == "started":
            is_new = self._tell_start(_moment(row["time"]))
        elif kind == "ended":
            epochs, seconds, ended = count(row["epochs"]), _real(row["seconds"]), _moment(row["time"])
            is_new = self._tell_end(_state(row["state"]), text(row["reason"]), epochs, seconds, ended)
        else:
            raise ValueError(f"kind = {shown(kind)} is none of bound, decided, started, epoch, ended")
        if is_new:
            self._result = None
        return is_new

    def _tell_start(self, started: datetime) -> bool:
        if self.started is not None:
            return False
        self.started = started
        return True

    def _tell_epoch(self, epoch: EpochResult, seconds: float) -> bool:
        if self.ended is not None or epoch.epoch != len(self.epochs) + 1:
            return False
        self.epochs.append(epoch)
        self.seconds = seconds
        return True

    def _tell_end(self, state: TrialState, reason: str, epochs: int, seconds: float, ended: datetime) -> bool:
        if self.ended is not None or epochs != len(self.epochs):
            return False
        self.state, self.reason, self.seconds, self.ended = state, reason, seconds, ended
        return True

    @property
    def result(self) -> TrialResult:
        """What has been told, as a record."""
        self._result = self._result or TrialResult(
            key=self.key,
            state=self.state,
            epochs=tuple(self.epochs),
            reason=self.reason,
            seconds=self.seconds,
            started=self.started,
            ended=self.ended,
        )
        return self._result


def _epoch(row: Row) -> EpochResult:
    return EpochResult(
        epoch=count(row["epoch"], least=1),
        train_loss=_real(row["train_loss"]),
        accuracy=_real(row["accuracy"]),
        loss=_real(row["loss"]),
    )


def text(value: Any) -> str:
    """A value that must be a text.

    Raises:
        TypeError: it is none.
    """
    if type(value) is not str:
        raise TypeError(f"{shown(value)} is no text")
    return value


def count(value: Any, least: int = 0) -> int:
    """A value that must be a whole number.

    Raises:
        TypeError: it is none, or out of bounds.
    """
    if type(value) is not int or not least <= value < 2**31:
        raise TypeError(f"{shown(value)} is no whole number from {least} on")
    return value


def _real(value: Any) -> float:
    if type(value) is not float:
        raise TypeError(f"{shown(value)} is no number with a point")
    return value


def _state(value: Any) -> TrialState:
    if value not in ENDS:
        raise ValueError(f"state = {shown(value)} is none of {', '.join(sorted(ENDS))}")
    return TrialState(value)


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(text(value))
