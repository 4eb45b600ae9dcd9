"""A ranking in plain sentences that claim no more than the data show."""

from __future__ import annotations

from itertools import dropwhile

from scalesearch.means import CONFIDENCE
from scalesearch.ranking import Ranking, Row, Verdict
from scalesearch.scaling import DIMENSIONS, Coefficients

OPEN = 0.5
"""A region of more than this part of all shares, or more tied candidates than this part of all, point nowhere."""
POINTS = {"paper": "The paper's 1.2/1.1/1.15"}
"""What named points are called."""


def _label(row: Row) -> str:
    """`id (estimate, interval)`, with units."""
    interval = "" if row.low is None else f", {100 * CONFIDENCE:.0f} % interval {row.low:.2f} to {row.high:.2f} %"
    return f"{row.id} ({row.estimate:.2f} %{interval})"


def chance(probability: float) -> str:
    """A probability that was sampled, which shows no event to be impossible or certain.

    >>> chance(0.0), chance(0.25), chance(1.0)
    ('< 1 %', '25 %', '> 99 %')
    """
    return "< 1 %" if probability < 0.01 else "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _method(ranking: Ranking) -> str:
    """By what candidates are told apart."""
    surface, means = "response surface, 5 % error over all comparisons", "Tukey's HSD at 5 % family-wise"
    beyond = f", differences beyond {ranking.margin:g} points" if ranking.margin else ""
    return f"{surface if ranking.rests_on_surface else means}{beyond}"


def finding(ranking: Ranking) -> str:
    """What can be said of the first and of the others."""
    rivals, kind, by = ranking.on_budget, ranking.verdict_kind, _method(ranking)
    if kind is Verdict.NOTHING:
        return "No results: no candidate on budget has a finished trial."
    first, count = _label(next(row for row in rivals if row.id == ranking.leader)), len(rivals)
    tied = sum(row.tied_with_best for row in rivals) - 1
    every = "both" if count == 2 else f"all {count}"
    others = "the other candidate is" if count == 2 else f"each of the other {count - 1} candidates is"
    highest = "highest estimate" if ranking.rests_on_surface else "highest mean"
    return {
        Verdict.WINNER: f"Best: {first}; {others} separated from it ({by}).",
        Verdict.TIED: f"{first} has the {highest} on budget, but {tied} of the other {count - 1} "
        f"candidates cannot be told apart from it ({by}).",
        Verdict.NO_PREFERENCE: f"No preference shown: {every} candidates are tied ({by}); "
        f"the {highest} on budget is that of {first}.",
        Verdict.NO_INTERVAL: f"One seed per candidate: no interval and no winner; of {count} candidates on budget the "
        f"highest mean is that of {first}, which noise between seeds may explain.",
        Verdict.SINGLE: f"Only one candidate on budget has results: {first}; there is no other to compare it with.",
    }[kind]


def out_of_order(ranking: Ranking) -> str:
    """Why a trained candidate is tied with the first below one that is not; empty where that is not so."""
    after = list(dropwhile(lambda row: row.tied_with_best, (row for row in ranking.on_budget if row.seeds)))
    tied = next((row.id for row in after if row.tied_with_best), None)
    if tied is None:
        return ""
    return (
        f"{tied} cannot be told apart from the first although {after[0].id}, above it, can: its distance from the "
        "first is less certain, for want of seeds, of trained neighbours or of full-length trainings."
    )


def _outlook(ranking: Ranking) -> str:
    """How many seeds would separate the first two, where that is known."""
    if ranking.seeds_needed is None:
        return ""
    first, second = [row for row in ranking.on_budget if row.seeds][:2]
    by, said = (" by their own means", "estimated") if ranking.rests_on_surface else ("", "observed")
    return (
        f"About {ranking.seeds_needed:,} seeds each would separate the first two{by}, if their true difference is the "
        f"{said} {first.estimate - second.estimate:.2g} points."
    )


def _absent(ranking: Ranking) -> str:
    """How many candidates are missing."""
    count, silent = len(ranking.failed), ranking.silent
    failed = f"{count} candidate{' has' if count == 1 else 's have'} no finished trial and cannot be ranked."
    others = f"Of {silent} candidate{' that was' if silent == 1 else 's that were'} not trained nothing can be said."
    return " ".join([failed] * bool(count) + [others] * bool(silent))


def _misfit(ranking: Ranking) -> str:
    """That a surface was tried and is not relied on."""
    if ranking.surface is None or ranking.rests_on_surface:
        return ""
    return "The response surface does not fit these trials, so every candidate stands on its own mean."


def shares_line(ranking: Ranking, budget: float) -> str:
    """The best shares with their 95 % intervals, and which named points are as good; empty without a surface."""
    if ranking.surface is None or not ranking.rests_on_surface:
        return ""
    found = ranking.surface.optimum
    spent = [
        f"{name} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        for name, share, low, high in zip(DIMENSIONS, found.shares, found.low, found.high, strict=True)
    ]
    tied = sum(row.tied_with_best for row in ranking.on_budget)
    is_open = found.region > OPEN or tied > OPEN * len(ranking.on_budget)
    said = "Which shares are best is open; the surface is highest at" if is_open else "Best shares of log compute:"
    rule = Coefficients.from_shares(found.shares, budget)
    tested = "".join(
        f" {POINTS[name]} lies {'within' if inside else 'outside'} the region that may be as good."
        for name, inside in found.named.items()
    )
    return f"{said} {', '.join(spent)}: α {rule.alpha:.2f}, β {rule.beta:.2f}, γ {rule.gamma:.2f}.{tested}"


def verdict(ranking: Ranking) -> str:
    """The result in plain sentences that claim no more than the data show.

    >>> from scalesearch.ranking import Arm, rank
    >>> print(verdict(rank([Arm(id="a"), Arm(id="b")], {"a": [80.0], "b": [80.2]})).split(";")[0])
    One seed per candidate: no interval and no winner
    """
    caveat = "" if ranking.noise_sd is None else "Intervals are conditional on this validation split."
    return " ".join(filter(None, (finding(ranking), _outlook(ranking), _absent(ranking), _misfit(ranking), caveat)))
