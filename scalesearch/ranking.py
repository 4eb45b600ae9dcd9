"""The ranking of a study: an estimate and an interval of every network, and which cannot be told from the first.

Where a response surface fits, every network borrows from its neighbours; else each stands on its own mean, with one
noise for all. Knows nothing of training, files or terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from scalesearch import means
from scalesearch.basis import Array
from scalesearch.optimum import Optimum, optimum
from scalesearch.samples import Arm, Noise, Sample, Shares, pooled, summed_up
from scalesearch.surface import CONFIDENCE, Draws, Misfit, Surface, excluded, fit_rungs, misfit

DRAWS = 4_000
"""Draws behind everything that is said of a surface: the Monte Carlo error of a probability is at most 0.008."""
FILE_DIGITS = 4
"""Decimals in `to_dict`."""


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
    """1 is the highest estimate, networks off budget included."""
    estimate: float
    """What it is ranked by [%]: the surface's, or its mean."""
    low: float | None
    """Lower end of the 95 % interval of the true accuracy [%]; None where the noise is unknown."""
    high: float | None
    """Upper end of the 95 % interval of the true accuracy [%]; None where the noise is unknown."""
    mean: float | None
    """Mean validation accuracy over the seeds [%]; None without a finished trial."""
    seeds: int
    """Finished trials."""
    p_best: float | None
    """Probability of the highest true accuracy on budget; None off it, alone on it, or where the noise is unknown."""
    tied_with_best: bool
    """On budget and not told apart from the leader; so is the leader itself, and all where the noise is unknown."""
    references: tuple[str, ...]
    off_budget: bool

    @property
    def is_shown_tied(self) -> bool:
        """Whether it was compared with others and not told apart from the leader; nothing is without a `p_best`."""
        return self.tied_with_best and self.p_best is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a response surface says beyond the rows."""

    optimum: Optimum
    roughness: float
    """Posterior median of what single networks add to the surface: their standard deviation [points]."""
    misfit: Misfit

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        tests = {name: _plain(value) for name, value in asdict(self.misfit).items()}
        found = {name: _plain(value) for name, value in asdict(self.optimum).items()}
        return {"optimum": found, "roughness": _plain(self.roughness), **tests, "is_poor": self.misfit.is_poor}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The ranked networks and what is known of the noise."""

    rows: tuple[Row, ...]
    """Highest estimate first; equal ones in the order of the arms."""
    margin: float
    """Differences up to this count as none [points]."""
    noise_sd: float | None
    """Standard deviation between seeds, pooled over the arms [points]; None where every arm has one seed."""
    df: int
    """Degrees of freedom of `noise_sd`."""
    seeds_needed: int | None
    """Seeds per network that would separate the first two trained ones on budget by their own means, at the estimated
    difference and noise, with probability 0.8. None where there is nothing to separate (fewer than two, a difference
    within the margin, separated already), where there is no noise or it is unknown, and above 10,000."""
    surface: Fitted | None
    """The response surface; None where there are too few trials for one. A poor one is told of but not used."""
    failed: tuple[str, ...]
    """Arms that ought to have a finished trial and have none."""
    silent: int
    """Arms that nobody meant to train and that no surface speaks of."""

    @property
    def rests_on_surface(self) -> bool:
        """Whether the estimates are the surface's, not the means."""
        return self.surface is not None and not self.surface.misfit.is_poor

    @property
    def on_budget(self) -> tuple[Row, ...]:
        """The rows that compete."""
        return tuple(row for row in self.rows if not row.off_budget)

    @property
    def leader(self) -> str | None:
        """Id of the trained network on budget with the highest estimate; None if there is none."""
        return next((row.id for row in self.on_budget if row.seeds), None)

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
            "rests_on": "surface" if self.rests_on_surface else "means",
            "margin": self.margin,
            "noise_sd": _plain(self.noise_sd),
            "df": self.df,
            "seeds_needed": self.seeds_needed,
            "surface": self.surface.to_dict() if self.surface else None,
            "failed": list(self.failed),
            "silent": self.silent,
            "candidates": [{name: _plain(value) for name, value in asdict(row).items()} for row in self.rows],
        }


def _plain(value: Any) -> Any:
    """A value as JSON would read it back: rounded float, list for tuple."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return round(value, FILE_DIGITS) if isinstance(value, float) else value


def rank(
    arms: Sequence[Arm],
    accuracies: Mapping[str, Sequence[float]],
    *,
    margin: float = 0.0,
    named: Mapping[str, Shares] | None = None,
    untrained: frozenset[str] = frozenset(),
    shorter: Sequence[Mapping[str, Sequence[float]]] = (),
    left: frozenset[str] = frozenset(),
) -> Ranking:
    """Rank networks by their accuracy and say which of them cannot be told apart from the first.

    Args:
        arms: the networks; their order breaks ties and nothing else.
        accuracies: arm id -> validation accuracies of its finished trials [%]; ids that are no arm are ignored.
        margin: differences up to this count as none [points].
        named: points whose place inside or outside the best region is asked for.
        untrained: arms that nobody meant to train; a surface ranks them all the same.
        shorter: accuracies after shorter trainings, from short to long: what they say of single arms beyond their
            own surface is weighed by how well the full-length trials bear it out.
        left: arms that a race has put out: they are told apart from the best already, at half of the error.

    Returns:
        The ranking; arms without accuracies that are not `untrained` are in `failed`.

    Raises:
        StudyError: two arms with one id, or an accuracy that is not finite.

    >>> ranking = rank([Arm(id="a"), Arm(id="b")], {"a": [80.0, 80.2], "b": [84.9, 85.1]})
    >>> ranking.leader, ranking.verdict_kind.value, round(ranking.noise_sd or 0, 4), ranking.df
    ('b', 'winner', 0.1414, 2)
    """
    samples = summed_up(arms, accuracies)
    noise = pooled(samples)
    found = fitted_surface(arms, [*(summed_up(arms, earlier) for earlier in shorter), samples])
    fitted = None
    if found is not None:
        surface, draws = found
        best = optimum(surface, draws, margin, dict(named or {}))
        fitted = Fitted(optimum=best, roughness=float(np.median(draws.roughness)), misfit=misfit(surface))
    if found is not None and fitted is not None and not fitted.misfit.is_poor:
        rows = _by_surface(arms, samples, noise, found[1], margin, left)
    else:
        rows = _by_means(samples, noise, margin, left)
    finished = {sample.arm.id for sample in samples}
    return Ranking(
        rows=rows,
        margin=margin,
        noise_sd=noise.sd if noise else None,
        df=noise.df if noise else 0,
        seeds_needed=_seeds_needed(rows, noise, margin),
        surface=fitted,
        failed=tuple(arm.id for arm in arms if arm.id not in finished | untrained),
        silent=len(untrained.intersection(arm.id for arm in arms).difference(row.id for row in rows)),
    )


def competitors(arms: Sequence[Arm]) -> list[Arm]:
    """The arms that a surface is about, in the order of their ids: those on budget whose shares are known."""
    return sorted((arm for arm in arms if arm.shares is not None and not arm.off_budget), key=lambda arm: arm.id)


def fitted_surface(arms: Sequence[Arm], rungs: Sequence[Sequence[Sample]]) -> tuple[Surface, Draws] | None:
    """The surface that a ranking rests on, with its draws; the order of the arms changes nothing.

    Args:
        arms: the networks.
        rungs: those with trials at each training length, from short to long.
    """
    rivals = competitors(arms)
    places = {arm.id: index for index, arm in enumerate(rivals)}
    known = [sorted((one for one in samples if one.arm.id in places), key=lambda one: one.arm.id) for samples in rungs]
    if not rivals:
        return None
    surface = fit_rungs(known, np.array([arm.shares for arm in rivals]), places)
    return (surface, surface.draws(DRAWS)) if surface else None


def _seeds_needed(rows: Sequence[Row], noise: Noise | None, margin: float) -> int | None:
    rivals = [row for row in rows if row.seeds and not row.off_budget]
    if len(rivals) < 2 or not rivals[1].tied_with_best:
        return None
    return means.seeds_needed(rivals[0].estimate - rivals[1].estimate - margin, noise, len(rivals))


def _by_means(samples: Sequence[Sample], noise: Noise | None, margin: float, left: frozenset[str]) -> tuple[Row, ...]:
    ordered = sorted(samples, key=lambda sample: -sample.mean)
    rivals = [sample for sample in ordered if not sample.arm.off_budget]
    tied = means.tied(rivals, noise, margin) - (left - {rival.arm.id for rival in rivals[:1]})
    chances = means.chances(rivals, noise)
    return tuple(
        _row(sample.arm, place, sample.mean, means.interval(sample, noise), sample, chances, sample.arm.id in tied)
        for place, sample in enumerate(ordered, start=1)
    )


def _by_surface(
    arms: Sequence[Arm],
    samples: Sequence[Sample],
    noise: Noise | None,
    draws: Draws,
    margin: float,
    left: frozenset[str],
) -> tuple[Row, ...]:
    rivals = competitors(arms)
    by_id = {sample.arm.id: sample for sample in samples}
    estimates: dict[str, float] = dict(zip((arm.id for arm in rivals), draws.accuracies.mean(axis=0), strict=True))
    ends = np.percentile(draws.accuracies, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)
    intervals = {arm.id: (float(low), float(high)) for arm, (low, high) in zip(rivals, ends.T, strict=True)}
    leader = max((arm.id for arm in rivals if arm.id in by_id), key=lambda name: estimates[name])
    place, error = [arm.id for arm in rivals].index(leader), (1 - CONFIDENCE) / (2 if left else 1)
    gone = excluded(draws.accuracies, place, margin, error)
    tied = {arm.id for arm, is_out in zip(rivals, gone, strict=True) if not is_out} - (left - {leader})
    chances = dict(zip((arm.id for arm in rivals), _wins(draws.accuracies), strict=True))
    shown = [arm for arm in arms if arm.id in estimates or arm.id in by_id]
    values = {arm.id: estimates[arm.id] if arm.id in estimates else by_id[arm.id].mean for arm in shown}
    return tuple(
        _row(
            arm,
            place,
            float(values[arm.id]),
            intervals.get(arm.id) or means.interval(by_id[arm.id], noise),
            by_id.get(arm.id),
            chances,
            arm.id in tied,
        )
        for place, arm in enumerate(sorted(shown, key=lambda arm: -values[arm.id]), start=1)
    )


def _wins(accuracies: Array) -> list[float]:
    counts = np.bincount(accuracies.argmax(axis=1), minlength=accuracies.shape[1])
    return [round(float(share), FILE_DIGITS) for share in counts / len(accuracies)]


def _row(
    arm: Arm,
    place: int,
    estimate: float,
    interval: tuple[float | None, float | None],
    sample: Sample | None,
    chances: Mapping[str, float],
    is_tied: bool,
) -> Row:
    return Row(
        id=arm.id,
        rank=place,
        estimate=estimate,
        low=None if interval[0] is None else max(0.0, interval[0]),
        high=None if interval[1] is None else min(100.0, interval[1]),
        mean=sample.mean if sample else None,
        seeds=sample.seeds if sample else 0,
        p_best=chances.get(arm.id),
        tied_with_best=is_tied,
        references=arm.references,
        off_budget=arm.off_budget,
    )
