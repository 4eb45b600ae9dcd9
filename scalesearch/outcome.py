"""What the trials of a plan come to: the ranking of its proxies, how far to trust it, and the rule of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesearch.agenda import TRAVELLERS, Agenda, accuracies, agenda, arms, in_order, leading, search_ranking
from scalesearch.candidates import Candidate
from scalesearch.errors import StudyError
from scalesearch.fidelity import Fidelity, fidelity
from scalesearch.levelling import TOLERANCE
from scalesearch.members import Rule
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.policies import Standing
from scalesearch.ranking import Ranking, rank
from scalesearch.samples import Arm, region
from scalesearch.travel import growth_checked, traveller
from scalesearch.trials import Stage, TrialResult, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """The same shares at another budget."""

    phi: float
    growth: float
    ranking: Ranking
    """At that growth, each proxy on its own mean."""
    unreached: int
    """Leading proxies and references without a network at that growth."""
    fidelity: Fidelity
    """Of the order there to that of the search: rung 1 is the search, rung 2 the other budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A ranking with the plan and the candidates it is about."""

    plan: Plan
    layout: Layout
    ranking: Ranking
    """Of the search, on the validation images."""
    search: Standing
    """How the search went."""
    stage: Stage | None
    """The stage that is not finished; None when all is done."""
    epochs: int
    """Trained so far in all stages."""
    fidelity: Fidelity
    """Of its shorter trainings to the full-length ones."""
    confirmation: Ranking | None
    """Of the leading proxies and the references, with new seeds on the test part, each on its own mean; None unless
    asked for and finished."""
    travel: Travel | None
    """At another budget; None unless asked for and finished."""
    anchor: tuple[float, ...]
    """Accuracies of the unscaled proxy base, by seed [%]."""
    trials: tuple[TrialResult, ...]
    """What all of it rests on, in the order in which it was asked for."""
    failed: tuple[TrialResult, ...]
    """Trials that were given up."""
    remarks: tuple[str, ...] = ()
    """What a look over the images found."""

    @property
    def final(self) -> Ranking:
        """The confirmation's ranking, where it has a leader, else the search's."""
        return self.confirmation if self.confirmation and self.confirmation.leader else self.ranking

    @property
    def leader(self) -> Candidate | None:
        """The leader of the final ranking; None if no trial of a candidate on budget finished."""
        return self.layout.candidate(self.final.leader) if self.final.leader else None

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


def conclude(
    plan: Plan,
    layout: Layout,
    results: Sequence[TrialResult],
    remarks: Sequence[str] = (),
    now: Agenda | None = None,
) -> Outcome:
    """Rank the trained proxies of a plan by the results so far. The anchor takes no part.

    Args:
        plan: what was to be done.
        layout: its candidates.
        results: all trials so far.
        remarks: what a look over the images found.
        now: how far the plan is by these results, where that is known already.
    """
    now = now or agenda(plan, layout, results)
    ranking = search_ranking(plan, layout, results, now.search.leaves)
    anchors = [result for result in results if result.key.proxy == ANCHOR]
    return Outcome(
        plan=plan,
        layout=layout,
        ranking=ranking,
        search=now.search,
        stage=now.stage,
        epochs=sum(len(result.epochs) for result in results),
        fidelity=_fidelity(plan, layout, results),
        confirmation=_confirmation(plan, layout, results) if now.stage not in ("search", "confirm") else None,
        travel=_travel(plan, layout, results, ranking) if now.stage is None else None,
        anchor=tuple(accuracies(anchors, "search", plan.epochs, without="").get(ANCHOR, ())),
        remarks=tuple(remarks),
        trials=tuple(in_order(now.planned, results)),
        failed=tuple(sorted((one for one in results if one.state is TrialState.FAILED), key=lambda one: one.key)),
    )


def _regions(layout: Layout) -> dict[str, str]:
    return {arm.id: region(arm) for arm in arms(layout) if arm.shares is not None and not arm.off_budget}


def _on_budget(layout: Layout, found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in found.items() if not layout.candidate(name).off_budget}


def _fidelity(plan: Plan, layout: Layout, results: Sequence[TrialResult]) -> Fidelity:
    lengths = sorted({result.key.rung for result in results if result.key.stage == "search"})
    by_rung = {rung: _on_budget(layout, accuracies(results, "search", rung)) for rung in lengths}
    return fidelity(by_rung, _regions(layout))


def _confirmation(plan: Plan, layout: Layout, results: Sequence[TrialResult]) -> Ranking | None:
    """Every proxy on its own mean: so few are no ground for a surface. The unscaled base is listed off budget."""
    found = accuracies(results, "confirm", plan.epochs, without="")
    names = {result.key.proxy for result in results if result.key.stage == "confirm"}
    if not names:
        return None
    entered = [_alone(arm) for arm in arms(layout) if arm.id in names]
    base = [Arm(id=ANCHOR, references=("unscaled",), off_budget=True)]
    return rank([*entered, *base], found, margin=plan.margin)


def _alone(arm: Arm, *, off_budget: bool | None = None) -> Arm:
    """An arm that borrows nothing from its neighbours."""
    off = arm.off_budget if off_budget is None else off_budget
    return Arm(id=arm.id, references=arm.references, off_budget=off)


def _travel(plan: Plan, layout: Layout, results: Sequence[TrialResult], ranking: Ranking) -> Travel | None:
    if plan.check_phi is None or ranking.leader is None:
        return None
    found = accuracies(results, "travel", plan.epochs)
    names = {result.key.proxy for result in results if result.key.stage == "travel"}
    growth = growth_checked(plan)
    entered: list[Arm] = []
    for arm in arms(layout):
        scaled = traveller(layout.candidate(arm.id), plan) if arm.id in names else None
        if scaled is not None:
            entered.append(_alone(arm, off_budget=abs(scaled.growth / growth - 1) > TOLERANCE))
    on_budget = {arm.id for arm in entered if not arm.off_budget}
    there = {name: values for name, values in found.items() if name in on_budget}
    here = _on_budget(layout, accuracies(results, "search", plan.epochs))
    return Travel(
        phi=plan.check_phi,
        growth=growth,
        ranking=rank(entered, found, margin=plan.margin),
        unreached=len(set(leading(layout, ranking, TRAVELLERS)) - names),
        fidelity=fidelity({1: {name: here[name] for name in there if name in here}, 2: there}, _regions(layout)),
    )
