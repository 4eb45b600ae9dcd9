"""What the page says in words: the verdict in a line, what was counted, and why something is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scalesearch.candidates import Candidate
from scalesearch.outcome import Outcome
from scalesearch.plan import Layout
from scalesearch.ranking import Ranking, Verdict
from scalesearch.report.facts import Facts
from scalesearch.spec import Network
from scalesearch.trials import TrialState


def headline(facts: Facts) -> str:
    """The verdict in a line that claims no more than the data show."""
    outcome, failed = facts.outcome, facts.run.count(TrialState.FAILED)
    if outcome is None:
        are_all = failed and failed == facts.run.total
        return f"{_all_trials(failed)} failed: nothing can be ranked." if are_all else "Nothing is ranked yet."
    said = _said(outcome.final, _candidates(outcome))
    return f"{said[:-1]}, so far." if outcome.stage else said


def _all_trials(count: int) -> str:
    return "The only trial" if count == 1 else f"All {count} trials"


def _said(final: Ranking, candidates: str) -> str:
    tied = sum(row.tied_with_best for row in final.on_budget)
    return {
        Verdict.WINNER: f"{final.leader} is the best of {candidates}.",
        Verdict.TIED: f"The first of {candidates} cannot be told apart from {tied - 1} other{'s' * (tied > 2)}.",
        Verdict.NO_PREFERENCE: f"No preference shown: all {candidates} are tied.",
        Verdict.NO_INTERVAL: f"One seed each: which of {candidates} is best is not known.",
        Verdict.SINGLE: "One candidate has results: there is nothing to compare it with.",
        Verdict.NOTHING: "No candidate on budget has results.",
    }[final.verdict_kind]


def _candidates(outcome: Outcome) -> str:
    """How many are compared; of a search that goes on without a surface, also how many are still to come."""
    count, planned = len(outcome.final.on_budget), len(_on_budget(outcome.layout))
    if outcome.stage != "search" or count == planned:
        return f"{count} candidates"
    return f"{count} trained candidates ({planned} planned)"


def standing(facts: Facts) -> str:
    """How far the run was when the page was written; nothing that is false when it is read later."""
    run, then = facts.run, facts.written
    if run.is_live:
        return f"Was running when this was written, {then}: {run.standing.removeprefix('running: ')}"
    return f"{run.standing.capitalize() if run.results else 'Not begun'}, as of {then}"


def lead(facts: Facts) -> str:
    """What stands in the place of findings."""
    if facts.run.count(TrialState.FAILED):
        return "Why each trial failed stands under Learning curves; tracebacks are in logs/."
    return "No trial has ended yet. What is planned stands below."


def counted(outcome: Outcome) -> str:
    """How the numbers of candidates on the page belong together."""
    layout, ranking = outcome.layout, outcome.ranking
    proxies, entered = len({one.proxy_id for one in layout.candidates}), len(layout.trained)
    trained = {row.id for row in ranking.rows if row.seeds}
    own = _on_budget(layout)
    few = f", {entered} of which are searched" if entered < proxies else ""
    so_far = " so far" if outcome.stage == "search" else ""
    rest = len(own - trained)
    estimates = "have the surface's estimates" if ranking.rests_on_surface else "have no estimate"
    others = f"; the other {rest} {estimates}" if rest else ""
    off = f"; {entered - len(own)} off budget, {len(trained - own)} trained" if entered > len(own) else ""
    shared = f"{len(layout.candidates)} networks share {proxies} proxies{few}"
    return f"{shared}: {len(own)} on budget, {len(trained & own)} of them trained{so_far}{others}{off}."


def _on_budget(layout: Layout) -> set[str]:
    """Proxies of the search that may be chosen."""
    return {name for name in layout.trained if not layout.candidate(name).off_budget}


def is_sure(outcome: Outcome) -> bool:
    """Whether the rule is that of a winner."""
    return outcome.final.verdict_kind is Verdict.WINNER


def rule_hint(outcome: Outcome) -> str:
    """Whose rule it is, and how far to trust it."""
    final, of = outcome.final, f"Of {outcome.final.leader}, first on budget"
    if is_sure(outcome):
        return f"{of}."
    tied = sum(row.tied_with_best for row in final.on_budget)
    doubt = {
        Verdict.SINGLE: "the only one with results",
        Verdict.NO_INTERVAL: "by one seed each",
    }.get(final.verdict_kind, f"one of {tied} that cannot be told apart")
    return f"{of}: {doubt}; emitted because some rule has to be."


def words(facts: Facts) -> list[tuple[str, str]]:
    """What the page's words mean."""
    return [
        *map(_decoded, facts.run.layout.candidates[:1]),
        (
            "proxy",
            "A candidate's change made to a smaller base. It is what is trained, and it stands for the candidate.",
        ),
        ("off budget", "It or its trained proxy misses the budget by more than 3 %: listed, never chosen."),
        (
            "share",
            "Of the growth in compute, what depth, width or resolution takes, in logarithms: ln d, 2 ln w, 2 ln r over "
            "their sum.",
        ),
        (
            "response surface",
            "A quadratic over the shares, fitted to all trials at once; it lends a candidate its neighbours' trials.",
        ),
        (
            "P(best)",
            "The probability that a candidate's true accuracy is the highest on budget, given the noise of seeds.",
        ),
        ("conditional on the split", "Intervals hold for these validation images; others would move all candidates."),
        (
            "references",
            "Points that every ranking has: depth, width, resolution (all growth in one); dwr (equal shares) and fast "
            "(most in width) of arXiv:2103.06877; paper of arXiv:1905.11946; effnetx-gpu of arXiv:2102.05610.",
        ),
    ]


def _decoded(one: Candidate) -> tuple[str, str]:
    """The name of a candidate and what it says."""
    network, width = one.scaled.network, one.scaled.effective.width
    deep = f"{network.depth} blocks" if isinstance(network, Network) else f"{network.depth:g} times the base's depth"
    shape = f"{deep}, {width:.3f} times the base's width, an input of {network.resolution} px"
    return one.id, f"A candidate, named by its shape: {shape}."


def slots(rows: Sequence[Mapping[str, Any]]) -> str:
    """What trials ran on; equal slots are counted.

    >>> slots([{"device": "cuda:0", "name": "A"}, {"device": "cpu", "name": "B"}, {"device": "cpu", "name": "B"}])
    'cuda:0 (A), 2 × cpu (B)'
    """
    counts = Counter(f"{row['device']} ({row['name']})" for row in rows)
    return ", ".join(f"{count} × {slot}" if count > 1 else slot for slot, count in counts.items())


def family_note(facts: Facts) -> str:
    """Why there is no family; empty where there is one."""
    run, outcome = facts.run, facts.outcome
    if facts.family is not None:
        return ""
    if (run.folder / "family" / "manifest.json").exists() or (run.state == "finished" and outcome and outcome.leader):
        return "The family’s manifest is damaged or gone: scalesearch emit RUN writes it again."
    if run.state == "finished":
        return "No family: nothing was ranked."
    return "The family is not written yet: it is when the search has ended."
