"""A ranking in plain sentences that claim no more than the data show."""

from __future__ import annotations

from scalesearch.ranking import CONFIDENCE, Ranking, Row, Verdict


def _label(row: Row) -> str:
    """`id (mean, interval)`, with units."""
    interval = "" if row.low is None else f", {100 * CONFIDENCE:.0f} % interval {row.low:.2f} to {row.high:.2f} %"
    return f"{row.id} ({row.mean:.2f} %{interval})"


def _finding(ranking: Ranking) -> str:
    """The first sentence of the verdict."""
    rivals, kind = ranking.on_budget, ranking.verdict_kind
    if kind is Verdict.NOTHING:
        return "No results: no candidate on budget has a finished trial."
    first, count = _label(rivals[0]), len(rivals)
    tied = sum(row.tied_with_best for row in rivals) - 1
    every = "both" if count == 2 else f"all {count}"
    others = "the other candidate is" if count == 2 else f"each of the other {count - 1} candidates is"
    return {
        Verdict.WINNER: f"Best: {first}; {others} separated from it (Tukey's HSD at 5 % family-wise).",
        Verdict.TIED: f"{first} has the highest mean on budget, but {tied} of the other {count - 1} "
        "candidates cannot be told apart from it (Tukey's HSD at 5 % family-wise).",
        Verdict.NO_PREFERENCE: f"No preference shown: {every} candidates are tied (Tukey's HSD at 5 % family-wise); "
        f"the highest mean on budget is that of {first}.",
        Verdict.NO_INTERVAL: f"One seed per candidate: no interval and no winner; of {count} candidates on budget the "
        f"highest mean is that of {first}, which noise between seeds may explain.",
        Verdict.SINGLE: f"Only one candidate on budget has results: {first}; there is no other to compare it with.",
    }[kind]


def _outlook(ranking: Ranking) -> str:
    """How many seeds would separate the first two, where that is known."""
    if ranking.seeds_needed is None:
        return ""
    first, second = ranking.on_budget[:2]
    return (
        f"About {ranking.seeds_needed:,} seeds each would separate the first two, if their true difference is the "
        f"observed {first.mean - second.mean:.2g} points."
    )


def _absent(ranking: Ranking) -> str:
    """How many candidates are missing."""
    count = len(ranking.failed)
    if not count:
        return ""
    return f"{count} candidate{' has' if count == 1 else 's have'} no finished trial and cannot be ranked."


def verdict(ranking: Ranking) -> str:
    """The result in plain sentences that claim no more than the data show.

    >>> from scalesearch.ranking import Arm, rank
    >>> print(verdict(rank([Arm(id="a"), Arm(id="b")], {"a": [80.0], "b": [80.2]})).split(";")[0])
    One seed per candidate: no interval and no winner
    """
    caveat = "" if ranking.noise_sd is None else "Intervals are conditional on this validation split."
    return " ".join(filter(None, (_finding(ranking), _outlook(ranking), _absent(ranking), caveat)))
