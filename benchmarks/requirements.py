"""What must hold of the figures, and the figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from figures import Figures
from searchers import PEER

SMOOTH = ("smooth", "smooth-biased")
ROUGH = ("rough", "rough-biased", "rough-flat")
OURS = ("fit", "race")
COMPARED = ("smooth", "smooth-biased", "rough", "rough-biased", "recorded")
"""Settings in which every searcher plays; elsewhere our policies and the grid that they are measured against."""
WHOLE = ("smooth", "rough", "recorded")
"""Settings of which README.md shows all searchers."""
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
    if one["wrong_of_claims"]:
        text = f"wrong ones among the winners of {name}, {setting}, {MOST_WRONG:.0%} not excluded"
        found = one["wrong_of_claims"]
        yield Check(row=2, what=text, found=_share(found), is_met=found["low"] <= MOST_WRONG)
    for key, which in (("interval_coverage", "survivors"), ("share_coverage", "optimum's shares")):
        told = one[key]
        if told and setting in SMOOTH:
            low, high = COVERAGE
            text = f"coverage of {name}, {which}, {setting}, {low:.0%}–{high:.0%}"
            yield Check(row=2, what=text, found=_share(told), is_met=low <= told["share"] <= high)
        elif told and setting in ROUGH:
            text = f"coverage of {name}, {which}, {setting}, {COVERAGE_ROUGH:.0%} or more"
            yield Check(row=2, what=text, found=_share(told), is_met=told["share"] >= COVERAGE_ROUGH)


def _planted(setting: str, name: str, one: Figures) -> Iterator[Check]:
    """Rows 3 to 5."""
    if setting == "all-equal":
        text = f"winners of {name}, all-equal, in at least {LEAST_EQUAL} replays, {MOST_WRONG:.0%} not excluded"
        is_met = one["replays"] >= LEAST_EQUAL and one["claims"]["low"] <= MOST_WRONG
        yield Check(row=3, what=text, found=_share(one["claims"]), is_met=is_met)
    if setting == "clear-winner" and name == "fit":
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
    """Every searcher in every setting, and every check."""
    rows = [
        f"| {one.row} | {one.what} | {one.found} | {'yes' if one.is_met else '**no**'} |"
        for one in sorted(checks(found), key=lambda one: one.row)
    ]
    return "\n".join([*_settings(found, ()), "| row | must hold | found | met |", "|---" * 4 + "|", *rows])


def _settings(found: Mapping[str, Mapping[str, Figures]], shortened: Sequence[str]) -> Iterator[str]:
    """One table per setting; of the shortened ones only our policies and what they are compared with."""
    for setting, by_searcher in found.items():
        shown = {name: one for name, one in by_searcher.items() if setting not in shortened or name in (PEER, *OURS)}
        yield from (f"**{setting}**, {next(iter(shown.values()))['replays']:,} replays", "")
        yield from (f"| searcher | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|")
        yield from (f"| {name} | {' | '.join(cells(one))} |" for name, one in shown.items())
        yield ""


def digest(document: Mapping[str, Any]) -> str:
    """What README.md shows of a recorded run: all searchers in `WHOLE`, ours elsewhere, and every check missed."""
    found = document["settings"]
    lines = [*_settings(found, [name for name in found if name not in WHOLE])]
    lines += ["| row | checks met | missed |", "|---" * 3 + "|"]
    made = list(checks(found))
    for row in sorted({one.row for one in made}):
        of_row = [one for one in made if one.row == row]
        missed = "; ".join(f"{one.what}: {one.found}" for one in of_row if not one.is_met)
        lines.append(f"| {row} | {sum(one.is_met for one in of_row)} of {len(of_row)} | {missed or '–'} |")
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    took = f"{document['seconds'] / 60:,.0f} minutes with {document['jobs']} processes"
    lines += ["", f"{document['date']}; {document['processor']}, {document['cores']} cores, {took}; {versions}"]
    return "\n".join(lines)
