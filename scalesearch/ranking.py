"""Statistics of a study: means, intervals and ties of the ranked networks, and what may be said of them.

The model is one-way: each network has its own mean, all share one noise, estimated from the spread between
seeds. Knows nothing of training, files or terminals.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.stats import multivariate_t, norm, studentized_range, t

from scalesearch.errors import StudyError

CONFIDENCE = 0.95
"""Of each interval, and of all comparisons with the leader together."""
POWER = 0.8
"""Probability of telling the first two apart that `seeds_needed` asks for."""
MOST_SEEDS = 10_000
"""Above this many seeds per network `seeds_needed` gives up."""
DRAWS = 20_000
"""Draws behind `p_best`: its Monte Carlo error is at most 0.004."""
DIGITS = 10
"""Decimals of an accuracy; what lies below is float rounding and must break no tie."""
FILE_DIGITS = 4
"""Decimals in `to_dict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One ranked network."""

    id: str
    references: tuple[str, ...] = ()
    """Names of the reference points it stands for."""
    off_budget: bool = False
    """Listed with its interval, but never the leader and never tied with it."""


class Verdict(StrEnum):
    """What the data allow to be said."""

    WINNER = "winner"
    """Every other network on budget is separated from the leader."""
    TIED = "tied"
    """Some networks on budget are tied with the leader, some are not."""
    NO_PREFERENCE = "no_preference"
    """All networks on budget are tied."""
    NO_INTERVAL = "no_interval"
    """One seed each: the noise is unknown."""
    SINGLE = "single"
    """Only one network on budget has results."""
    NOTHING = "nothing"
    """No network on budget has results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network in the ranking."""

    id: str
    rank: int
    """1 is the highest mean, networks off budget included."""
    mean: float
    """Mean validation accuracy over the seeds [%]."""
    low: float | None
    """Lower end of the 95 % interval of the mean [%]; None where the noise is unknown."""
    high: float | None
    """Upper end of the 95 % interval of the mean [%]; None where the noise is unknown."""
    seeds: int
    """Finished trials."""
    p_best: float | None
    """Probability of the highest true mean on budget; None off budget or where the noise is unknown."""
    tied_with_best: bool
    """On budget and not told apart from the leader; so is the leader itself, and all where the noise is unknown."""
    references: tuple[str, ...]
    off_budget: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The ranked networks and what is known of the noise."""

    rows: tuple[Row, ...]
    """Highest mean first; equal means in the order of the arms."""
    noise_sd: float | None
    """Standard deviation between seeds, pooled over the arms [points]; None where every arm has one seed."""
    df: int
    """Degrees of freedom of `noise_sd`."""
    seeds_needed: int | None
    """Seeds per network that would separate the first two on budget, at the observed difference and noise, with
    probability 0.8. None where there is nothing to separate (fewer than two, equal means, separated already),
    where the noise is unknown, and above 10,000."""
    failed: tuple[str, ...]
    """Arms without a finished trial."""

    @property
    def on_budget(self) -> tuple[Row, ...]:
        """The rows that compete."""
        return tuple(row for row in self.rows if not row.off_budget)

    @property
    def leader(self) -> str | None:
        """Id of the network on budget with the highest mean; None if there is none."""
        return self.on_budget[0].id if self.on_budget else None

    @property
    def verdict_kind(self) -> Verdict:
        """What the data allow to be said of the networks on budget."""
        rivals = self.on_budget
        tied = sum(row.tied_with_best for row in rivals)
        if len(rivals) < 2:
            return Verdict.SINGLE if rivals else Verdict.NOTHING
        if self.noise_sd is None:
            return Verdict.NO_INTERVAL
        if tied == len(rivals):
            return Verdict.NO_PREFERENCE
        return Verdict.WINNER if tied == 1 else Verdict.TIED

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file, floats rounded to 4 decimals."""
        return {
            "noise_sd": _plain(self.noise_sd),
            "df": self.df,
            "seeds_needed": self.seeds_needed,
            "failed": list(self.failed),
            "candidates": [{name: _plain(value) for name, value in asdict(row).items()} for row in self.rows],
        }


def _plain(value: Any) -> Any:
    """A value as JSON would read it back: rounded float, list for tuple."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return round(value, FILE_DIGITS) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """The accuracies of one arm, summed up."""

    arm: Arm
    mean: float
    seeds: int
    squares: float
    """Sum of squared deviations from the mean [points²]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noise:
    """The spread between seeds."""

    sd: float
    df: int


def _sample(arm: Arm, accuracies: Sequence[float]) -> _Sample:
    """Sum up one arm; `statistics` is exact, so identical accuracies have no spread and the seed order no effect."""
    if not all(math.isfinite(value) for value in accuracies):
        raise StudyError(
            f"arm {arm.id}: accuracies {list(accuracies)} are not all finite", mend="record such a trial as failed"
        )
    values = [round(float(value), DIGITS) for value in accuracies]
    spread = statistics.variance(values) if len(values) > 1 else 0.0
    mean = round(statistics.mean(values), DIGITS)
    return _Sample(arm=arm, mean=mean, seeds=len(values), squares=spread * (len(values) - 1))


def _pool(samples: Sequence[_Sample]) -> _Noise | None:
    """The noise common to all arms; None where every arm has one seed."""
    df = sum(sample.seeds - 1 for sample in samples)
    # fsum: the order of the arms changes nothing
    return _Noise(sd=math.sqrt(math.fsum(sample.squares for sample in samples) / df), df=df) if df else None


def _interval(sample: _Sample, noise: _Noise | None) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean; of zero width where the noise is zero."""
    if noise is None:
        return None, None
    low, high = t.interval(CONFIDENCE, noise.df)
    error = noise.sd / math.sqrt(sample.seeds)
    return sample.mean + float(low) * error, sample.mean + float(high) * error


def _studentized(leader: _Sample, other: _Sample, sd: float) -> float:
    """Distance to the leader in units of the Tukey-Kramer standard error; inf where the noise is zero."""
    gap = leader.mean - other.mean
    error = sd * math.sqrt((1 / leader.seeds + 1 / other.seeds) / 2)
    return gap / error if error else math.inf if gap else 0.0


def _tied(rivals: Sequence[_Sample], noise: _Noise | None) -> frozenset[str]:
    """Ids that Tukey's HSD, Kramer's form for unequal seeds, does not separate from the first of `rivals`."""
    if noise is None or len(rivals) < 2:
        return frozenset(rival.arm.id for rival in rivals)
    distances = {rival.arm.id: _studentized(rivals[0], rival, noise.sd) for rival in rivals}
    ordered = sorted(distances.values())

    def separated(distance: float) -> bool:
        # the limit of many degrees of freedom is fast, and what it does not separate, fewer do not either
        return all(studentized_range.sf(distance, len(rivals), df) < 1 - CONFIDENCE for df in (math.inf, noise.df))

    # bisection asks the slow distribution about few distances; the first is the leader's own 0, which never is
    largest = ordered[bisect_left(ordered, True, key=separated) - 1]
    return frozenset(name for name, distance in distances.items() if distance <= largest)


def _chances(rivals: Sequence[_Sample], noise: _Noise | None) -> dict[str, float]:
    """Probability of the highest true mean: draws from the means' posterior under a flat prior, a multivariate t."""
    if noise is None or not rivals:
        return {}
    ordered = sorted(rivals, key=lambda rival: rival.arm.id)  # the order of the arms changes nothing
    means = np.array([rival.mean for rival in ordered])
    if noise.sd:
        shape = np.diag([noise.sd**2 / rival.seeds for rival in ordered])
        # pyright takes the type of `shape` from its default, the number 1
        posterior = multivariate_t(means, shape, df=noise.df)  # pyright: ignore[reportArgumentType]
        draws = posterior.rvs(size=DRAWS, random_state=0)
        wins = np.bincount(np.reshape(draws, (DRAWS, -1)).argmax(axis=1), minlength=len(ordered))
    else:
        wins = (means == means.max()).astype(int)
    shares = np.round(wins / wins.sum(), FILE_DIGITS).tolist()
    return {rival.arm.id: share for rival, share in zip(ordered, shares, strict=True)}


def _separates(seeds: int, effect: float, arms: int, df: float) -> bool:
    """Whether `seeds` each separate two means `effect` standard deviations apart with the wanted power.

    The power takes the noise as known: P(difference of means > q · sd / √seeds) ≥ 0.8 bounds the quantile q.
    """
    bound = math.sqrt(2) * (effect * math.sqrt(seeds / 2) + float(norm.isf(POWER)))
    return bool(studentized_range.sf(bound, arms, df) <= 1 - CONFIDENCE)


def _seeds_needed(rivals: Sequence[_Sample], tied: frozenset[str], noise: _Noise | None) -> int | None:
    """The smallest number of seeds each that would separate the first two; see `Ranking.seeds_needed`."""
    if noise is None or len(rivals) < 2 or rivals[1].arm.id not in tied or rivals[0].mean == rivals[1].mean:
        return None
    effect, arms = (rivals[0].mean - rivals[1].mean) / noise.sd, len(rivals)
    choices = range(2, MOST_SEEDS + 1)
    # the limit of many degrees of freedom is fast, and a seed or so too low
    start = bisect_left(choices, True, key=lambda seeds: _separates(seeds, effect, arms, math.inf))
    return next((seeds for seeds in choices[start:] if _separates(seeds, effect, arms, arms * (seeds - 1))), None)


def rank(arms: Sequence[Arm], accuracies: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank networks by mean accuracy and say which of them cannot be told apart from the first.

    Args:
        arms: the networks; their order breaks ties in the mean and nothing else.
        accuracies: arm id -> validation accuracies of its finished trials [%]; ids that are no arm are ignored.

    Returns:
        The ranking; arms without accuracies are in `failed`.

    Raises:
        StudyError: two arms with one id, or an accuracy that is not finite.

    Source:
        Intervals from the pooled variance and Student's t. Ties by Tukey's HSD, 5 % family-wise over the arms on
        budget, in Kramer's form: Kramer (1956), Biometrics 12(3), doi:10.2307/3001469.

    >>> ranking = rank([Arm(id="a"), Arm(id="b")], {"a": [80.0, 80.2], "b": [84.9, 85.1]})
    >>> ranking.leader, ranking.verdict_kind.value, round(ranking.noise_sd or 0, 4), ranking.df
    ('b', 'winner', 0.1414, 2)
    """
    if len({arm.id for arm in arms}) < len(arms):
        raise StudyError(f"arms {[arm.id for arm in arms]} share an id", mend="give each network one arm")
    finished = [arm for arm in arms if len(accuracies.get(arm.id, ()))]
    samples = [_sample(arm, accuracies[arm.id]) for arm in finished]
    samples.sort(key=lambda sample: -sample.mean)
    rivals = [sample for sample in samples if not sample.arm.off_budget]
    noise = _pool(samples)
    tied, chances = _tied(rivals, noise), _chances(rivals, noise)
    return Ranking(
        rows=tuple(_row(place, sample, noise, tied, chances) for place, sample in enumerate(samples, start=1)),
        noise_sd=noise.sd if noise else None,
        df=noise.df if noise else 0,
        seeds_needed=_seeds_needed(rivals, tied, noise),
        failed=tuple(arm.id for arm in arms if arm not in finished),
    )


def _row(place: int, sample: _Sample, noise: _Noise | None, tied: frozenset[str], chances: Mapping[str, float]) -> Row:
    low, high = _interval(sample, noise)
    return Row(
        id=sample.arm.id,
        rank=place,
        mean=sample.mean,
        low=low,
        high=high,
        seeds=sample.seeds,
        p_best=chances.get(sample.arm.id),
        tied_with_best=sample.arm.id in tied,
        references=sample.arm.references,
        off_budget=sample.arm.off_budget,
    )
