"""The record of a trial: one training of a proxy with one seed. Independent of where it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scalesearch.recipe import EpochResult


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    """Not started."""
    RUNNING = "running"
    """Started, not finished: here or in a coordinator that died."""
    COMPLETE = "complete"
    """Trained to the end; it has an accuracy."""
    FAILED = "failed"
    """Given up; it has a reason."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrialKey:
    """What is trained: a proxy, a seed, a training length."""

    proxy: str
    """Id of the trained proxy: that of the first candidate that stands on it."""
    seed: int
    rung: int
    """Training length [epochs]."""

    def __str__(self) -> str:
        return f"{self.proxy}-s{self.seed}-e{self.rung}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What is known of a trial."""

    key: TrialKey
    state: TrialState
    epochs: tuple[EpochResult, ...] = ()
    """One entry per finished epoch."""
    reason: str = ""
    """Why a failed trial failed."""
    seconds: float | None = None
    """Wall time from its start to its end, pauses included [s]; None while it has not ended."""

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy after the last epoch [%]; None unless complete."""
        return self.epochs[-1].accuracy if self.state is TrialState.COMPLETE and self.epochs else None
