"""Whether short and long trainings order the candidates alike, as far as the data show.

Compared are the order of the candidates (Kendall's tau-b) and which region of the search space is ahead, the dimension
that dominates a candidate. In a race only survivors reach the long rung; they are more alike than all candidates, so
tau over them is usually lower. `Agreement.restricted` says where this is so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import StudyError

Rung: TypeAlias = dict[str, tuple[float, ...]]
"""Arm id -> accuracies of its finished trainings [%], ascending; ids in order, none without accuracies."""

CONFIDENCE = 0.95
"""Of the interval of tau."""
USEFUL_TAU = 0.4
"""Below it one order says little of the other: at 0.4, 7 pairs of candidates in 10 stand alike in both."""
SEPARATED = 2.0
"""Standard errors above which a difference is taken as more than noise."""
MIN_ARMS = 5
"""With fewer arms at both rungs there is no interval and nothing is claimed."""
DRAWS = 2_000
"""Bootstrap draws behind an interval."""
DIGITS = 10
"""Decimals of an accuracy; what lies below is float rounding and must break no tie."""
FILE_DIGITS = 4
"""Decimals in `to_dict`."""


class Trust(StrEnum):
    """Whether the order after short training may be taken for the order after long training."""

    TRUSTWORTHY = "trustworthy"
    """The whole interval of tau is at or above `USEFUL_TAU`, and no two regions change places."""
    DOUBTFUL = "doubtful"
    """The data allow both."""
    NOT = "not"
    """The whole interval of tau is below `USEFUL_TAU`, or two regions change places beyond noise."""
    UNKNOWN = "unknown"
    """One training length, fewer than `MIN_ARMS` arms at both, or no order at one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Two regions whose order reverses beyond noise."""

    better_short: str
    """The region ahead at the short rung."""
    better_long: str
    """The region ahead at the long rung."""
    short_points: float
    """Lead of `better_short` at the short rung [points]."""
    long_points: float
    """Lead of `better_long` at the long rung [points]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A shorter rung against the longest, over the arms with results at both."""

    short: int
    """[epochs]."""
    long: int
    """[epochs]."""
    tau: float | None
    """Kendall's tau-b of the mean accuracies; None where the arms have no order at one of the rungs."""
    low: float | None
    """Lower end of the 95 % interval of `tau`; None without tau or with fewer than `MIN_ARMS` arms."""
    high: float | None
    """Upper end of the 95 % interval of `tau`; None without tau or with fewer than `MIN_ARMS` arms."""
    arms: int
    flips: tuple[Flip, ...]
    moved: tuple[str, ...]
    """Arms ahead of the final leader at the short rung and behind it at the long one, both beyond noise between seeds
    (empty where a rung has no arm with two seeds). A hint: nothing corrects for the number of arms."""
    restricted: bool
    """Some arms of the short rung never reached the long one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What is known of short against long training."""

    rungs: tuple[int, ...]
    """Training lengths with results, ascending [epochs]."""
    agreements: tuple[Agreement, ...]
    """Each shorter rung against the longest, ascending."""
    verdict: Trust
    """Of the last agreement, the longest of the shorter rungs against the longest."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file, floats rounded to 4 decimals."""
        return _plain(asdict(self) | {"verdict": self.verdict.value})


def _plain(value: Any) -> Any:
    """A value as JSON would read it back: rounded float, list for tuple."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[Any, ...]", value)]
    return round(value, FILE_DIGITS) if isinstance(value, float) else value


def _tau(x: NDArray[np.float64], y: NDArray[np.float64], arms: NDArray[np.intp]) -> NDArray[np.float64]:
    """Kendall's tau-b of each draw, from the values at two rungs and whose they are (each arms, draws).

    A pair of one arm with itself is no information and counts nowhere. Nan: no pair is left, or all are tied at a rung.
    """
    sums = np.zeros((3, x.shape[1]))  # concordant less discordant pairs, pairs apart in x, pairs apart in y
    for step in range(1, len(x)):  # all pairs that stand `step` rows apart
        different = arms[step:] != arms[:-step]
        dx, dy = np.sign(x[step:] - x[:-step]) * different, np.sign(y[step:] - y[:-step]) * different
        sums += [np.einsum("ad,ad->d", one, other) for one, other in ((dx, dy), (dx, dx), (dy, dy))]
    apart = sums[1] * sums[2]
    return np.divide(sums[0], np.sqrt(apart), out=np.full(len(apart), np.nan), where=apart > 0)


def _redrawn(rung: Rung, arms: NDArray[np.intp], noise: np.random.Generator) -> NDArray[np.float64]:
    """The mean of each drawn arm over seeds drawn from its own with replacement (arms, draws)."""
    most = max(len(values) for values in rung.values())
    table = np.array([[*values, *[0.0] * (most - len(values))] for values in rung.values()])
    seeds, firsts = np.array([len(values) for values in rung.values()])[arms], arms * most
    total = np.zeros(arms.shape)
    for place in range(most):
        chosen = firsts + (noise.random(arms.shape) * seeds).astype(np.intp)
        total += np.where(place < seeds, table.take(chosen), 0.0)
    return np.round(total / seeds, DIGITS)


def _means(rung: Rung) -> dict[str, float]:
    return {name: round(statistics.fmean(values), DIGITS) for name, values in rung.items()}


def _order(short: Rung, long: Rung) -> tuple[float | None, float | None, float | None]:
    """Tau and the ends of its interval, each None where it is not defined; see `fidelity` for what they are."""
    x, y = (np.array([*_means(rung).values()]).reshape(-1, 1) for rung in (short, long))
    tau = float(_tau(x, y, np.arange(len(x)).reshape(-1, 1))[0])
    if math.isnan(tau) or len(short) < MIN_ARMS:
        return None if math.isnan(tau) else tau, None, None
    noise = np.random.default_rng(0)
    arms = noise.integers(0, len(short), size=(len(short), DRAWS))
    draws = _tau(_redrawn(short, arms, noise), _redrawn(long, arms, noise), arms)
    ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.nanquantile(draws, ends, method="linear")  # nan: a draw of one arm alone has no pairs
    return tau, float(low), float(high)


def _lead(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Difference of two means and its standard error by Welch [points]."""
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in (first, second)))
    return statistics.fmean(first) - statistics.fmean(second), error


def _side(lead: float, error: float) -> int:
    """The sign of a lead; 0 where it may be noise."""
    return int(math.copysign(1, lead)) if abs(lead) > SEPARATED * error else 0


def _flips(short: Rung, long: Rung, regions: Mapping[str, str]) -> tuple[Flip, ...]:
    """Pairs of regions, each of two arms or more, that are apart at both rungs and in opposite order."""
    before, after = _means(short), _means(long)
    members: dict[str, list[tuple[float, float]]] = {}
    for name in (name for name in short if name in regions):
        members.setdefault(regions[name], []).append((before[name], after[name]))
    flips: list[Flip] = []
    for a, b in combinations(sorted(region for region, means in members.items() if len(means) > 1), 2):
        early, late = map(_lead, zip(*members[a], strict=True), zip(*members[b], strict=True))
        if _side(*early) * _side(*late) < 0:
            first, last = (a, b) if early[0] > 0 else (b, a)
            points = abs(early[0]), abs(late[0])
            flips.append(Flip(better_short=first, better_long=last, short_points=points[0], long_points=points[1]))
    return tuple(flips)


def _noise(rung: Rung) -> float | None:
    """Standard deviation between seeds, pooled over the arms [points]; None where every arm has one seed."""
    squares = math.fsum(statistics.variance(each) * (len(each) - 1) for each in rung.values() if len(each) > 1)
    df = sum(len(each) - 1 for each in rung.values())
    return math.sqrt(squares / df) if df else None


def _moved(short: Rung, long: Rung) -> tuple[str, ...]:
    """Arms that pass from ahead of the final leader to behind it; see `Agreement.moved`."""
    before, after = _noise(short), _noise(long)
    if before is None or after is None:
        return ()
    early, late = _means(short), _means(long)
    leader = max(late, key=lambda name: late[name])

    def side(name: str, rung: Rung, means: dict[str, float], sd: float) -> int:
        error = sd * math.sqrt(1 / len(rung[name]) + 1 / len(rung[leader]))
        return _side(means[name] - means[leader], error)

    return tuple(name for name in short if side(name, short, early, before) > 0 > side(name, long, late, after))


def _agreement(rungs: Mapping[int, Rung], short: int, long: int, regions: Mapping[str, str]) -> Agreement:
    """Compare two rungs over the arms that both have."""
    both = [name for name in rungs[short] if name in rungs[long]]
    before, after = ({name: rungs[rung][name] for name in both} for rung in (short, long))
    tau, low, high = _order(before, after)
    flips, moved = _flips(before, after, regions), _moved(before, after)
    arms, fewer = len(both), len(both) < len(rungs[short])
    return Agreement(
        short=short, long=long, tau=tau, low=low, high=high, arms=arms, flips=flips, moved=moved, restricted=fewer
    )


def _trust(agreements: Sequence[Agreement]) -> Trust:
    """The verdict on the last agreement; see `Trust`."""
    last = agreements[-1] if agreements else None
    if last is None or last.low is None or last.high is None:
        return Trust.UNKNOWN
    if last.flips or last.high < USEFUL_TAU:
        return Trust.NOT
    return Trust.TRUSTWORTHY if last.low >= USEFUL_TAU else Trust.DOUBTFUL


def _sorted(accuracies: Mapping[str, Sequence[float]]) -> Rung:
    """A rung in canonical order, so that the order of what came in changes nothing."""
    for name, values in accuracies.items():
        if not all(math.isfinite(value) for value in values):
            fault = f"arm {name}: accuracies {list(values)} are not all finite"
            raise StudyError(fault, mend="record such a trial as failed")
    finished = sorted(name for name in accuracies if len(accuracies[name]))
    return {name: tuple(sorted(round(float(value), DIGITS) for value in accuracies[name])) for name in finished}


def fidelity(accuracies_by_rung: Mapping[int, Mapping[str, Sequence[float]]], regions: Mapping[str, str]) -> Fidelity:
    """Compare each shorter training length with the longest.

    The interval of tau is the percentile bootstrap: the 2.5 and 97.5 % points (linear between draws) of 2,000 draws
    of arms with replacement and, for each arm drawn and each rung apart, of its seeds with replacement; an arm drawn
    twice is not compared with itself. Tau is that of the *measured* means. Noise between seeds lowers it, and drawing
    seeds again lowers the interval once more: it errs towards distrust. A training that is continued carries its luck
    to the longer rung, which lifts tau.

    Args:
        accuracies_by_rung: rung [epochs] -> arm id -> accuracies of its finished trainings, one per seed [%]; arms and
            rungs without any are left out.
        regions: arm id -> the dimension that dominates it; an arm without one counts for tau, but for no flip.

    Returns:
        The agreements and the verdict, whatever the order of entries and seeds.

    Raises:
        StudyError: an accuracy that is not finite.

    Source:
        Tau-b: Kendall (1945), Biometrika 33(3), doi:10.1093/biomet/33.3.239.

    >>> short, long = ({name: [60.0 + i] for i, name in enumerate(order)} for order in ("abcde", "abdce"))
    >>> fidelity({4: short, 16: long}, {}).agreements[0].tau
    0.8
    """
    ordered = {rung: _sorted(accuracies_by_rung[rung]) for rung in sorted(accuracies_by_rung)}
    rungs = {rung: arms for rung, arms in ordered.items() if arms}
    agreements = tuple(_agreement(rungs, short, max(rungs), regions) for short in list(rungs)[:-1])
    return Fidelity(rungs=tuple(rungs), agreements=agreements, verdict=_trust(agreements))


def _places(agreement: Agreement) -> str:
    """Which region is ahead when."""
    early, late = (f"{rung} epoch{'s' if rung > 1 else ''}" for rung in (agreement.short, agreement.long))
    return "; ".join(
        f"at {early} {flip.better_short} is ahead of {flip.better_long} by {flip.short_points:.2f} points, "
        f"at {late} {flip.better_long} is ahead of {flip.better_short} by {flip.long_points:.2f}"
        for flip in agreement.flips
    )


def _unknown(fidelity: Fidelity) -> str:
    """Why nothing can be said."""
    if not fidelity.agreements:
        return "Only one training length" if fidelity.rungs else "No finished training"
    last = fidelity.agreements[-1]
    if last.arms >= MIN_ARMS:
        return f"All candidates are equal at {last.short} or at {last.long} epochs"
    return f"Fewer than {MIN_ARMS} candidates ({last.arms}) have results at both {last.short} and {last.long} epochs"


def _finding(fidelity: Fidelity) -> str:
    """The first sentence."""
    if fidelity.verdict is Trust.UNKNOWN:
        return f"{_unknown(fidelity)}: whether longer training keeps this order is not known."
    last = fidelity.agreements[-1]
    if last.flips:
        return f"Short and long training disagree: {_places(last)}."
    which = f"the {last.arms} candidates that went on" if last.restricted else f"{last.arms} candidates"
    tau = f"τ {last.tau:.2f}, {last.low:.2f} to {last.high:.2f}"
    order = f"({tau} over {which}, {last.short} against {last.long} epochs)"
    return {
        Trust.TRUSTWORTHY: f"Short and long training agree {order}.",
        Trust.DOUBTFUL: f"Whether short and long training agree is open {order}.",
        Trust.NOT: f"Short training, noise included, says little of the order after long training {order}.",
    }[fidelity.verdict]


def text(fidelity: Fidelity) -> str:
    """The finding in one or two plain sentences; one more for each shorter rung at which regions change places.

    >>> text(fidelity({4: {"a": [80.0]}}, {}))
    'Only one training length: whether longer training keeps this order is not known.'
    """
    told = fidelity.agreements if fidelity.verdict is Trust.UNKNOWN else fidelity.agreements[:-1]
    flips = [f"Regions change places: {_places(agreement)}." for agreement in told if agreement.flips]
    return " ".join([_finding(fidelity), *flips])
