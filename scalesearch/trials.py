"""The record of a trial: one training of a proxy with one seed. Independent of where it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from scalesearch.recipe import EpochResult


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    """Not started."""
    RUNNING = "running"
    """Started, not finished: here or in a coordinator that died."""
    COMPLETE = "complete"
    """Trained to the end at full length; it has an accuracy."""
    PRUNED = "pruned"
    """Trained to the end of a shorter rung; its accuracy is not to be compared with those of full length."""
    FAILED = "failed"
    """Given up; it has a reason."""


Stage = Literal["search", "confirm", "travel"]
"""What a trial is for: the search, its confirmation on the test part, the check of the rule at another size."""
STAGES: Mapping[Stage, str] = {"search": "search", "confirm": "confirmation", "travel": "at another budget"}
"""What people call the stages, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrialKey:
    """What is trained: a proxy, a seed, a training length."""

    proxy: str
    """Id of the trained proxy: that of the first candidate that stands on it."""
    seed: int
    rung: int
    """Training length [epochs]."""
    stage: Stage = "search"
    """In stage `travel` the proxy's shares are trained at another budget."""

    def __str__(self) -> str:
        stage = "" if self.stage == "search" else f"-{self.stage}"
        return f"{self.proxy}-s{self.seed}-e{self.rung}{stage}"


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
    """Time that it was in training, up to its last epoch while it has not ended, by a clock that nobody sets [s]."""
    started: datetime | None = None
    """When it was started first (UTC)."""
    ended: datetime | None = None
    """When it ended (UTC)."""

    @property
    def accuracy(self) -> float | None:
        """Accuracy after the last epoch [%]; None unless trained to the end."""
        return self.epochs[-1].accuracy if self.is_trained and self.epochs else None

    @property
    def is_trained(self) -> bool:
        """Whether it went through all its epochs."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.is_trained or self.state is TrialState.FAILED
