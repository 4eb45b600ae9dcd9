"""What is known of each ranked network: its accuracies summed up, and the noise between seeds that all share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from scalesearch.errors import StudyError
from scalesearch.scaling import DIMENSIONS

DIGITS = 10
"""Decimals of an accuracy; what lies below is float rounding and must break no tie."""

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


def summed_up(arms: Sequence[Arm], accuracies: Mapping[str, Sequence[float]]) -> list[Sample]:
    """The arms that have accuracies, in their order.

    Raises:
        StudyError: two arms with one id, or an accuracy that is not finite.
    """
    if len({arm.id for arm in arms}) < len(arms):
        raise StudyError(f"arms {[arm.id for arm in arms]} share an id", mend="give each network one arm")
    return [_sample(arm, accuracies[arm.id]) for arm in arms if len(accuracies.get(arm.id, ()))]


def _sample(arm: Arm, accuracies: Sequence[float]) -> Sample:
    """Sum up one arm; `statistics` is exact, so identical accuracies have no spread and the seed order no effect."""
    if not all(math.isfinite(value) for value in accuracies):
        raise StudyError(
            f"arm {arm.id}: accuracies {list(accuracies)} are not all finite", mend="record such a trial as failed"
        )
    mean, squares = _moments(tuple(round(float(value), DIGITS) for value in accuracies))
    return Sample(arm=arm, mean=mean, seeds=len(accuracies), squares=squares)


@lru_cache(maxsize=10_000)  # most arms have the values that they had at the decision before
def _moments(values: tuple[float, ...]) -> tuple[float, float]:
    """Mean, and sum of squared deviations from it."""
    spread = statistics.variance(values) if len(values) > 1 else 0.0
    return round(statistics.mean(values), DIGITS), spread * (len(values) - 1)


def pooled(samples: Sequence[Sample]) -> Noise | None:
    """The noise common to all arms; None where every arm has one seed."""
    df = sum(sample.seeds - 1 for sample in samples)
    # fsum: the order of the arms changes nothing
    return Noise(sd=math.sqrt(math.fsum(sample.squares for sample in samples) / df), df=df) if df else None
