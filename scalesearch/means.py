"""Claims that rest on each network's own mean alone: intervals, ties by Tukey's HSD, probabilities, seeds needed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from scalesearch.samples import Noise, Sample
from scalesearch.tukey import survival

CONFIDENCE = 0.95
"""Of each interval, and of all comparisons with the leader together."""
POWER = 0.8
"""Probability of telling the first two apart that `seeds_needed` asks for."""
MOST_SEEDS = 10_000
"""Above this many seeds per network `seeds_needed` gives up."""
DRAWS = 20_000
"""Draws behind `chances`: their Monte Carlo error is at most 0.004."""
CHANCE_DIGITS = 4
"""Decimals of a probability."""


def interval(sample: Sample, noise: Noise | None) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean; of zero width where the noise is zero."""
    if noise is None:
        return None, None
    from scipy.special import stdtrit

    reach = float(stdtrit(noise.df, (1 + CONFIDENCE) / 2)) * noise.sd / math.sqrt(sample.seeds)
    return sample.mean - reach, sample.mean + reach


def _studentized(leader: Sample, other: Sample, sd: float, margin: float) -> float:
    """Distance beyond the margin in units of the Tukey-Kramer standard error; inf where the noise is zero."""
    gap = max(0.0, leader.mean - other.mean - margin)
    error = sd * math.sqrt((1 / leader.seeds + 1 / other.seeds) / 2)
    return gap / error if error else math.inf if gap else 0.0


def tied(rivals: Sequence[Sample], noise: Noise | None, margin: float) -> frozenset[str]:
    """Ids that are not shown to be more than `margin` points worse than the first of `rivals`.

    Source: Tukey's HSD, 5 % family-wise, in Kramer's form for unequal seeds: Kramer (1956), Biometrics 12(3),
    doi:10.2307/3001469.
    """
    if noise is None or len(rivals) < 2:
        return frozenset(rival.arm.id for rival in rivals)
    distances = {rival.arm.id: _studentized(rivals[0], rival, noise.sd, margin) for rival in rivals}
    ordered = sorted(distances.values())

    def separated(distance: float) -> bool:
        return survival(distance, len(rivals), noise.df) < 1 - CONFIDENCE

    # the first is the leader's own 0, which never is
    largest = ordered[bisect_left(ordered, True, key=separated) - 1]
    return frozenset(name for name, distance in distances.items() if distance <= largest)


def chances(rivals: Sequence[Sample], noise: Noise | None) -> dict[str, float]:
    """Probability of the highest true mean: draws from the means' posterior under a flat prior, a multivariate t.

    None of a single rival, which has nothing to be better than.
    """
    if noise is None or len(rivals) < 2:
        return {}
    ordered = sorted(rivals, key=lambda rival: rival.arm.id)  # the order of the arms changes nothing
    means = np.array([rival.mean for rival in ordered])
    if noise.sd:
        random = np.random.RandomState(0)
        spread = np.sqrt(random.chisquare(noise.df, size=DRAWS) / noise.df)
        errors = np.diag([noise.sd**2 / rival.seeds for rival in ordered])
        draws = means + random.multivariate_normal(np.zeros(len(means)), errors, size=DRAWS) / spread[:, None]
        wins = np.bincount(draws.argmax(axis=1), minlength=len(ordered))
    else:
        wins = (means == means.max()).astype(int)
    shares = np.round(wins / wins.sum(), CHANCE_DIGITS).tolist()
    return {rival.arm.id: share for rival, share in zip(ordered, shares, strict=True)}


def _separates(seeds: int, effect: float, arms: int) -> bool:
    """Whether `seeds` each separate two means `effect` standard deviations apart with the wanted power.

    The power takes the noise as known: P(difference of means > q · sd / √seeds) ≥ 0.8 bounds the quantile q.
    """
    from scipy.special import ndtri

    bound = math.sqrt(2) * (effect * math.sqrt(seeds / 2) - float(ndtri(POWER)))
    return survival(bound, arms, arms * (seeds - 1)) <= 1 - CONFIDENCE


def seeds_needed(gap: float, noise: Noise | None, arms: int) -> int | None:
    """The fewest seeds each that would separate two of `arms` networks whose true means are `gap` points apart.

    None where no number would: equal means, no noise or an unknown one, more than 10,000.
    """
    if noise is None or not noise.sd or gap <= 0:
        return None
    effect = gap / noise.sd
    options = range(2, MOST_SEEDS + 1)
    first = bisect_left(options, True, key=lambda seeds: _separates(seeds, effect, arms))
    return options[first] if first < len(options) else None
