"""What many replays say of a searcher: figures with their uncertainty, and whether the requirements are met."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from landscapes import MARGIN, Array, Landscape
from scipy import stats
from searchers import PEER, SEEDS, Played

from scalesearch.optimum import STEPS
from scalesearch.policies.race import region

Figures = dict[str, Any]
"""Plain values of one searcher in one setting."""

CONFIDENCE = 0.95
DIGITS = 4
SLACK = 0.5 / STEPS
"""Half a step of the lattice on which optima are looked for."""
ALWAYS_CLAIM = ("grid-1", "grid-3", "grid-5", "optuna")
"""Beginnings of searchers whose claim is always their best arm."""


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
        shares=(sum(one.covers(SLACK) for one in played.shares), len(played.shares)),
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
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
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
    return _rounded({"share": share, "low": share - half, "high": share + half, "of": int(given.sum())})


def figures(plays: Sequence[Judged], peers: Sequence[Judged] | None) -> Figures:
    """All figures of a searcher in a setting; `peers` are the plays of the 3-seed grid on the same landscapes."""
    regret = np.array([one.regret for one in plays])
    claims = [one for one in plays if one.is_claim]
    wrong = sum(one.is_wrong for one in plays)
    flips = [one.flips for one in plays if one.flips is not None]
    found: Figures = {
        "replays": len(plays),
        "regret": average(regret),
        "extra_regret": _extra(regret, peers),
        "within_margin": _count(plays, "regret_small"),
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
    return found


def _count(plays: Sequence[Judged], what: str) -> Figures | None:
    hits = [one.regret <= MARGIN if what == "regret_small" else getattr(one, what) for one in plays]
    return proportion(sum(hits), len(hits))


def _extra(regret: Array, peers: Sequence[Judged] | None) -> Figures | None:
    """Mean regret beyond the 3-seed grid's on the same landscapes, and its one-sided 95 % bound."""
    if peers is None or len(regret) < 2:
        return None
    more = regret - np.array([one.regret for one in peers])
    error = float(np.std(more, ddof=1)) / math.sqrt(len(more))
    return _rounded({"mean": float(np.mean(more)), "bound": float(np.mean(more)) + stats.norm.ppf(CONFIDENCE) * error})


def _rounded(values: Figures) -> Figures:
    return {name: value if name == "of" else round(float(value), DIGITS) for name, value in values.items()}


# requirements ---------------------------------------------------------------------------------------------------------

SMOOTH = ("smooth", "smooth-biased")
ROUGH = ("rough", "rough-biased", "rough-flat", "rough-flat-biased")
OURS = ("fit", "race")
MOST_EXTRA = 0.02
"""Largest bound of the extra mean regret [points]."""
MOST_WRONG = 0.05
COVERAGE = (0.93, 0.97)
COVERAGE_ROUGH = 0.90
LEAST_TOLD = 0.8
LEAST_HOME = 0.9
LEAST_EQUAL = 500
"""Replays in which all arms are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold."""

    row: int
    """Of the requirements in README.md."""
    what: str
    found: str
    is_met: bool


def checks(found: Mapping[str, Mapping[str, Figures]]) -> Iterator[Check]:
    """Every requirement on the settings and searchers that were replayed."""
    for setting, by_searcher in found.items():
        for name, one in by_searcher.items():
            if name == "fit":
                yield from _training(setting, one)
            if name in OURS and setting != "recorded":
                yield from _claims(setting, name, one)
                yield from _planted(setting, name, one)


def _training(setting: str, one: Figures) -> Iterator[Check]:
    """Row 1."""
    smooth = setting in ("smooth", "smooth-0")
    if (smooth or setting in (*SMOOTH, *ROUGH)) and one["extra_regret"]:
        bound, part = one["extra_regret"]["bound"], one["compute"]["mean"]
        text = f"bound of the extra regret of fit, {setting}, at most {MOST_EXTRA}"
        yield Check(row=1, what=text, found=f"{bound:.3f}", is_met=bound <= MOST_EXTRA)
        most = 5 if smooth else 3
        text = f"compute of fit, {setting}, at most 1/{most} of {PEER}"
        yield Check(row=1, what=text, found=f"1/{1 / part:.1f}", is_met=part <= 1 / most)


def _claims(setting: str, name: str, one: Figures) -> Iterator[Check]:
    """Row 2."""
    text = f"wrong winners of {name}, {setting}, {MOST_WRONG:.0%} not excluded"
    yield Check(row=2, what=text, found=_share(one["wrong"]), is_met=one["wrong"]["low"] <= MOST_WRONG)
    for key, which in (("interval_coverage", "survivors"), ("share_coverage", "optimum's shares")):
        told = one[key]
        if told and setting in SMOOTH:
            low, high = COVERAGE
            text = f"coverage of {name}, {which}, {setting}, {low:.0%}–{high:.0%} not excluded"
            yield Check(row=2, what=text, found=_share(told), is_met=told["high"] >= low and told["low"] <= high)
        elif told and setting in ROUGH:
            text = f"coverage of {name}, {which}, {setting}, {COVERAGE_ROUGH:.0%} or more not excluded"
            yield Check(row=2, what=text, found=_share(told), is_met=told["high"] >= COVERAGE_ROUGH)


def _planted(setting: str, name: str, one: Figures) -> Iterator[Check]:
    """Rows 3 to 5."""
    if setting == "all-equal":
        text = f"winners of {name}, all-equal, in at least {LEAST_EQUAL} replays, {MOST_WRONG:.0%} not excluded"
        is_met = one["replays"] >= LEAST_EQUAL and one["claims"]["low"] <= MOST_WRONG
        yield Check(row=3, what=text, found=_share(one["claims"]), is_met=is_met)
    if setting == "clear-winner":
        text = f"{name}, clear-winner, told within the compute of {PEER}, at least {LEAST_TOLD:.0%}"
        yield Check(row=4, what=text, found=_share(one["told"]), is_met=one["told"]["share"] >= LEAST_TOLD)
    if setting == "flip":
        text = f"{name}, flip, in the true region, at least {LEAST_HOME:.0%}"
        yield Check(row=5, what=text, found=_share(one["home"]), is_met=one["home"]["share"] >= LEAST_HOME)
        if one["flips"]:
            text = f"{name}, flip, reported, at least {LEAST_HOME:.0%}"
            yield Check(row=5, what=text, found=_share(one["flips"]), is_met=one["flips"]["share"] >= LEAST_HOME)


def _share(one: Figures) -> str:
    return f"{one['share']:.1%} ({one['low']:.1%}–{one['high']:.1%})"


# tables ---------------------------------------------------------------------------------------------------------------

COLUMNS = (
    "mean regret",
    "extra over grid-3 (bound)",
    "regret ≤ 0.1",
    "compute",
    "winners claimed",
    "wrong",
    "survivors covered",
    "optimum covered",
)


def cells(one: Figures) -> list[str]:
    """The figures of a searcher for people, in the order of `COLUMNS`."""
    regret, extra = one["regret"], one["extra_regret"]
    half = regret["high"] - regret["mean"]
    return [
        f"{regret['mean']:.3f} ± {half:.3f}",
        f"{extra['mean']:+.3f} ({extra['bound']:+.3f})" if extra else "–",
        f"{one['within_margin']['share']:.0%}",
        _part(one["compute"]["mean"]),
        f"{one['claims']['share']:.1%}",
        _share(one["wrong"]),
        _share(one["interval_coverage"]) if one["interval_coverage"] else "–",
        _share(one["share_coverage"]) if one["share_coverage"] else "–",
    ]


def _part(compute: float) -> str:
    return f"1/{1 / compute:.1f}" if compute < 0.95 else f"{compute:.2f}"


def tables(found: Mapping[str, Mapping[str, Figures]]) -> str:
    """Every searcher in every setting, as one table of markdown per setting."""
    lines: list[str] = []
    for setting, by_searcher in found.items():
        replays = next(iter(by_searcher.values()))["replays"]
        lines += [f"**{setting}**, {replays:,} replays", ""]
        lines += [f"| searcher | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(cells(one))} |" for name, one in by_searcher.items()]
        lines.append("")
    lines += ["| row | must hold | found | met |", "|---|---|---|---|"]
    lines += [
        f"| {one.row} | {one.what} | {one.found} | {'yes' if one.is_met else '**no**'} |"
        for one in sorted(checks(found), key=lambda one: one.row)
    ]
    return "\n".join(lines)
