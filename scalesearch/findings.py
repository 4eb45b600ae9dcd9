"""All that a study says, in plain sentences: what is best, what cannot be told apart, and how far to trust it."""

from __future__ import annotations

from scalesearch.decision import Ending
from scalesearch.fidelity import Agreement, Trust
from scalesearch.fidelity import text as fidelity_text
from scalesearch.outcome import Outcome, Travel
from scalesearch.plan import ANCHOR
from scalesearch.ranking import Ranking
from scalesearch.trials import Stage
from scalesearch.verdict import finding, shares_line, verdict

UNFINISHED: dict[Stage, str] = {
    "search": "The search has not ended: this is what its trials say so far.",
    "confirm": "The confirmation has not ended: this is the ranking of the search.",
    "travel": "The check of the rule at another budget has not ended.",
}
ENDINGS = {
    Ending.COMPLETE: "",
    Ending.SETTLED: "The search stopped when more trials were expected to gain less than the margin is worth.",
    Ending.LIMIT: "The search stopped unsettled: it trained as often as there are candidates, the most that finding "
    "the best may take.",
    Ending.SPENT: "The search stopped because its compute was spent.",
}


def findings(outcome: Outcome) -> list[str]:
    """The sentences, the most important first; each claims no more than the data show."""
    ranking = outcome.ranking
    found = [
        UNFINISHED[outcome.stage] if outcome.stage else "",
        _confirmed(outcome),
        shares_line(ranking, outcome.plan.space.budget),
        f"{'In the search: ' if outcome.confirmation else ''}{verdict(ranking)}",
        fidelity_text(outcome.fidelity),
        _travelled(outcome.travel) if outcome.travel else "",
        _saturated(ranking),
        _not_above_the_base(outcome),
        *(f"About the images: {remark}." for remark in outcome.remarks),
        ENDINGS[outcome.search.ending] if outcome.search.ending else "",
        _spent(outcome),
    ]
    return [line for line in found if line]


def _confirmed(outcome: Outcome) -> str:
    """The final table's verdict."""
    final = outcome.confirmation
    if final is None:
        return ""
    if final.leader is None:
        return "The confirmation has no finished trial of a candidate on budget: the ranking of the search stands."
    said = verdict(final).replace("this validation split", "this test part")
    seeds = sorted({row.seeds for row in final.rows})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    place = next((row.rank for row in outcome.ranking.rows if row.id == final.leader), None)
    before = "" if place in (None, 1) else f" In the search it has place {place} of {len(outcome.ranking.rows)}."
    each = f"{count} new seed{'s' if seeds[-1] > 1 else ''} each"
    return (
        f"On the test part, with {each}: {said} The rule is that of {final.leader}, chosen by this part, so that its "
        f"own figure is high on average.{before}"
    )


def _travelled(travel: Travel) -> str:
    """Whether the order of the search holds at another budget."""
    where = f"At φ {travel.phi:g} ({travel.growth:.3g}x)"
    order: Agreement | None = travel.fidelity.agreements[0] if travel.fidelity.agreements else None
    missing = f" {travel.unreached} of them cannot be built there." if travel.unreached else ""
    if order is None or order.tau is None or order.low is None:
        return f"{where} too few candidates have different results to tell whether the order holds.{missing}"
    says = {
        Trust.TRUSTWORTHY: "the order of the leading shares and the references holds",
        Trust.DOUBTFUL: "it is open whether the order of the leading shares and the references holds",
        Trust.NOT: "the order of the leading shares and the references does not hold, or noise hides it",
        Trust.UNKNOWN: "nothing can be said of the order",
    }[travel.fidelity.verdict]
    return (
        f"{where} {says} (τ {order.tau:.2f}, {order.low:.2f} to {order.high:.2f}). {finding(travel.ranking)}{missing}"
    )


def _saturated(ranking: Ranking) -> str:
    """That there is nothing to rank."""
    means = {row.mean for row in ranking.rows if row.mean is not None}
    if len(means) != 1 or len(ranking.rows) < 2:
        return ""
    return f"Every candidate reaches {means.pop():.2f} %: these images cannot tell them apart."


def _not_above_the_base(outcome: Outcome) -> str:
    """That scaling is not shown to help these proxies."""
    leader = next((row for row in outcome.ranking.rows if row.id == outcome.ranking.leader), None)
    if leader is None or leader.low is None or not outcome.anchor or outcome.plan.space.budget < 1:
        return ""
    base = sum(outcome.anchor) / len(outcome.anchor)
    if leader.low > base:
        return ""
    return f"The unscaled base reaches {base:.2f} %: no candidate is shown to be better than it."


def _spent(outcome: Outcome) -> str:
    """What the search trained, and what the paper's exhaustive way would have."""
    plan, count = outcome.plan, len(outcome.layout.trained)
    ended = [key for key in outcome.search.ended if key.proxy != ANCHOR]
    epochs, whole = sum(key.rung for key in ended), count * plan.epochs
    if not ended or plan.policy == "grid":
        return ""
    return (
        f"The search trained {epochs:,} epochs of {len({key.proxy for key in ended})} of {count} candidates; the "
        f"exhaustive grid trains {whole:,} for every seed."
    )
