"""What the trials of a plan come to: the ranking of its proxies and the rule of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesearch.candidates import Candidate
from scalesearch.errors import StudyError
from scalesearch.members import Rule
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.ranking import Arm, Ranking, rank
from scalesearch.trials import TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A ranking with the plan and the candidates it is about."""

    plan: Plan
    layout: Layout
    ranking: Ranking
    anchor: tuple[float, ...]
    """Accuracies of the unscaled proxy base, by seed [%]."""
    failed: tuple[TrialResult, ...]
    """Trials that were given up."""

    @property
    def leader(self) -> Candidate | None:
        """The on-budget candidate with the highest mean; None if no trial of one finished."""
        return self.layout.candidate(self.ranking.leader) if self.ranking.leader else None

    def rule(self, candidate: str | None = None) -> Rule:
        """The rule of a candidate's trained proxy, by default the leader's.

        Raises:
            StudyError: no such candidate, or nothing is ranked.
        """
        chosen = self.leader if candidate is None else _by_id(self.layout, candidate)
        if chosen is None:
            raise StudyError("no trial of a candidate on budget has finished", mend="run the same command to go on")
        return Rule.of(chosen.shares, self.plan.space.budget, self.plan.evidence)


def _by_id(layout: Layout, candidate: str) -> Candidate:
    for one in layout.candidates:
        if one.id == candidate:
            return one
    names = ", ".join(one.id for one in layout.candidates[:3])
    raise StudyError(f"no candidate {candidate!r}", mend=f"ids look like {names}: see `rank` or candidates.csv")


def conclude(plan: Plan, layout: Layout, results: Sequence[TrialResult]) -> Outcome:
    """Rank the trained proxies of a plan by the results so far. The anchor takes no part."""
    accuracies: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda result: result.key):
        if result.accuracy is not None:
            accuracies.setdefault(result.key.proxy, []).append(result.accuracy)
    arms = [_arm(layout, name) for name in layout.trained]
    failed = tuple(result for result in sorted(results, key=lambda result: result.key) if result.state == "failed")
    return Outcome(
        plan=plan,
        layout=layout,
        ranking=rank(arms, accuracies),
        anchor=tuple(accuracies.get(ANCHOR, ())),
        failed=failed,
    )


def _arm(layout: Layout, proxy_id: str) -> Arm:
    shared = layout.twins(proxy_id)
    return Arm(
        id=proxy_id,
        references=tuple(name for one in shared for name in one.references),
        off_budget=layout.candidate(proxy_id).off_budget,
    )
