"""What many replays say of a searcher, each figure with its uncertainty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from landscapes import MARGIN, Array, Landscape
from scipy import stats
from searchers import SEEDS, Played

from scalesearch.policies.race import region

Figures = dict[str, Any]
"""Plain values of one searcher in one setting."""

CONFIDENCE = 0.95
DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A play, held against the truth."""

    regret: float
    """How much worse than the best arm its leader is [points]."""
    compute: float
    """Trained epochs, in units of the 3-seed grid's."""
    is_claim: bool
    is_wrong: bool
    """A winner was claimed that is worse than the best by more than the margin."""
    intervals: tuple[int, int]
    """Intervals of arms tied with the best that hold the truth, of how many."""
    shares: tuple[int, int]
    """Intervals of the optimum's shares that hold the truth, of how many."""
    is_named: bool
    """The best arm is the claimed winner."""
    is_told: bool
    """It is, or whatever is not within the margin of the best is excluded."""
    is_home: bool
    """The leader lies in the region of the best arm."""
    flips: bool | None
    ending: str
    is_poor: bool
    again: int


def judge(played: Played, landscape: Landscape) -> Judged:
    """Hold a play against the truth."""
    truth, full = landscape.truth, landscape.rungs[-1]
    best = int(np.argmax(truth))
    behind = truth[best] - truth
    is_named = played.winner == best
    is_near = bool(played.tied) and all(behind[place] <= MARGIN for place in played.tied)
    return Judged(
        regret=float(behind[played.leader]),
        compute=played.epochs / (SEEDS * full * len(landscape.arms)),
        is_claim=played.winner is not None,
        is_wrong=played.winner is not None and bool(behind[played.winner] > MARGIN),
        intervals=(sum(one.covers() for one in played.intervals), len(played.intervals)),
        shares=(sum(one.covers() for one in played.shares), len(played.shares)),
        is_named=is_named,
        is_told=is_named or is_near,
        is_home=region(landscape.arms[played.leader]) == region(landscape.arms[best]),
        flips=played.flips,
        ending=played.ending,
        is_poor=played.is_poor,
        again=played.again,
    )


def proportion(hits: int, trials: int) -> Figures | None:
    """A share with its Clopper–Pearson interval; None without trials.

    >>> proportion(0, 100)
    {'share': 0.0, 'low': 0.0, 'high': 0.0362, 'of': 100}
    """
    if not trials:
        return None
    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return _rounded({"share": hits / trials, "low": low, "high": high, "of": trials})


def average(values: Array) -> Figures:
    """A mean with its 95 % interval."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    mean = float(np.mean(values))
    return _rounded({"mean": mean, "low": mean - half, "high": mean + half})


def coverage(counts: Sequence[tuple[int, int]]) -> Figures | None:
    """Share of intervals that hold the truth, with a 95 % interval: those of one replay are alike, replays are not."""
    hits, given = np.array(counts, float).T
    if not given.sum():
        return None
    share = hits.sum() / given.sum()
    error = np.sqrt(((hits - share * given) ** 2).sum()) / given.sum()
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    ends = {"low": max(0.0, share - half), "high": min(1.0, share + half)}
    return _rounded({"share": share, **ends, "of": int(given.sum())})


def figures(plays: Sequence[Judged], peers: Sequence[Judged] | None) -> Figures:
    """All figures of a searcher in a setting; `peers` are the plays of the 3-seed grid on the same landscapes."""
    regret = np.array([one.regret for one in plays])
    claims = [one for one in plays if one.is_claim]
    wrong = sum(one.is_wrong for one in plays)
    flips = [one.flips for one in plays if one.flips is not None]
    return {
        "replays": len(plays),
        "regret": average(regret),
        "extra_regret": _extra(regret, peers),
        "within_margin": proportion(int((regret <= MARGIN).sum()), len(plays)),
        "compute": average(np.array([one.compute for one in plays])),
        "claims": _count(plays, "is_claim"),
        "wrong": proportion(wrong, len(plays)),
        "wrong_of_claims": proportion(wrong, len(claims)),
        "interval_coverage": coverage([one.intervals for one in plays]),
        "share_coverage": coverage([one.shares for one in plays]),
        "named": _count(plays, "is_named"),
        "told": proportion(sum(one.is_told and one.compute <= 1 for one in plays), len(plays)),
        "home": _count(plays, "is_home"),
        "flips": proportion(sum(flips), len(flips)),
        "endings": dict(sorted(Counter(one.ending for one in plays if one.ending).items())),
        "poor": round(float(np.mean([one.is_poor for one in plays])), DIGITS),
        "again": round(float(np.mean([one.again for one in plays])), DIGITS),
    }


def _count(plays: Sequence[Judged], what: str) -> Figures | None:
    return proportion(sum(getattr(one, what) for one in plays), len(plays))


def _extra(regret: Array, peers: Sequence[Judged] | None) -> Figures | None:
    """Mean regret beyond the 3-seed grid's on the same landscapes, and its one-sided 95 % bound."""
    if peers is None:
        return None
    more = regret - np.array([one.regret for one in peers])
    error = float(np.std(more, ddof=1)) / math.sqrt(len(more))
    return _rounded({"mean": float(np.mean(more)), "bound": float(np.mean(more)) + stats.norm.ppf(CONFIDENCE) * error})


def _rounded(values: Figures) -> Figures:
    return {name: value if name == "of" else round(float(value), DIGITS) for name, value in values.items()}
