"""What is known of each ranked network: its accuracies summed up, and the noise between seeds that all share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalesearch.errors import StudyError
from scalesearch.scaling import DIMENSIONS

DIGITS = 10
"""Decimals of an accuracy; what lies below is float rounding and must break no tie."""
UNIT = 2**86
"""So many whole parts of a point hold any float exactly that is rounded to these decimals."""

Shares = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One ranked network."""

    id: str
    references: tuple[str, ...] = ()
    """Names of the reference points it stands for."""
    off_budget: bool = False
    """Listed with its interval, but never the leader and never tied with it."""
    shares: Shares | None = None
    """Log-compute shares of depth, width, resolution; None keeps it out of the response surface."""


def region(arm: Arm) -> str:
    """The dimension with the largest share of an arm's compute; the earlier one of equals."""
    assert arm.shares is not None
    return DIMENSIONS[arm.shares.index(max(arm.shares))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The accuracies of one arm, summed up."""

    arm: Arm
    mean: float
    seeds: int
    squares: float
    """Sum of squared deviations from the mean [points²]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread between seeds."""

    sd: float
    """Standard deviation [points]."""
    df: int
    """Degrees of freedom."""


class Tally:
    """Accuracies of one arm, summed up one by one: exactly, so equal ones have no spread and no order has an effect."""

    __slots__ = ("_odd", "_squares", "_total", "seeds")

    def __init__(self, accuracies: Iterable[float] = ()) -> None:
        self.seeds = self._total = self._squares = 0
        self._odd: float | None = None
        for value in accuracies:
            self.add(value)

    def add(self, accuracy: float) -> None:
        """One more trial [%]."""
        self.seeds += 1
        if not math.isfinite(accuracy):
            self._odd = accuracy
            return
        over, under = round(float(accuracy), DIGITS).as_integer_ratio()
        units = over * (UNIT // under)
        self._total += units
        self._squares += units * units

    def sample(self, arm: Arm) -> Sample:
        """What they come to, rounded once.

        Raises:
            StudyError: an accuracy is not finite.
        """
        if self._odd is not None:
            raise StudyError(f"arm {arm.id}: accuracy {self._odd} is not finite", mend="record such a trial as failed")
        left = self.seeds - 1
        spread = (self.seeds * self._squares - self._total**2) / (self.seeds * left * UNIT**2) if left else 0.0
        mean = round(self._total / (self.seeds * UNIT), DIGITS)
        return Sample(arm=arm, mean=mean, seeds=self.seeds, squares=spread * left)


def summed_up(arms: Sequence[Arm], accuracies: Mapping[str, Sequence[float]]) -> list[Sample]:
    """The arms that have accuracies, in their order.

    Raises:
        StudyError: two arms with one id, or an accuracy that is not finite.
    """
    if len({arm.id for arm in arms}) < len(arms):
        raise StudyError(f"arms {[arm.id for arm in arms]} share an id", mend="give each network one arm")
    return [Tally(accuracies[arm.id]).sample(arm) for arm in arms if len(accuracies.get(arm.id, ()))]


def pooled(samples: Sequence[Sample]) -> Noise | None:
    """The noise common to all arms; None where every arm has one seed."""
    df = sum(sample.seeds - 1 for sample in samples)
    # fsum: the order of the arms changes nothing
    return Noise(sd=math.sqrt(math.fsum(sample.squares for sample in samples) / df), df=df) if df else None
