"""What a plan still has to train, by the results so far: its search, then the confirmation, then the check of the rule.

Everything is derived from the plan and the results of ended trials, so that a resumed run goes the way of one that was
never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from scalesearch.decision import Decision, Leave
from scalesearch.errors import StudyError
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.policies import Player, Rules, Standing, most_trials
from scalesearch.policies.fit import BATCH
from scalesearch.ranking import Ranking, rank
from scalesearch.samples import Arm
from scalesearch.scaling import PAPER
from scalesearch.travel import traveller
from scalesearch.trials import Stage, TrialKey, TrialResult

NEW_SEEDS = 100_000
"""First seed of the confirmation: the search never gets there."""
TRAVELLERS = 5
"""Leading proxies whose shares are tried at another budget, beside the references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agenda:
    """How far a plan is."""

    stage: Stage | None
    """The stage at hand; None when all is done."""
    due: tuple[TrialKey, ...]
    """Trials up to the next decision, ended ones included, in canonical order."""
    planned: tuple[TrialKey, ...]
    """Every trial asked for so far, those of `due` included, in canonical order."""
    search: Standing
    most: int
    """Trials of all stages, at most."""


def arms(layout: Layout) -> list[Arm]:
    """The proxies of a search, in canonical order; without shares where their compute differs."""
    return [
        Arm(
            id=name,
            references=tuple(reference for one in layout.twins(name) for reference in one.references),
            off_budget=layout.candidate(name).off_budget,
            shares=layout.candidate(name).shares if layout.is_level else None,
        )
        for name in layout.trained
    ]


def accuracies(
    results: Sequence[TrialResult], stage: Stage, rung: int, without: str = ANCHOR
) -> dict[str, list[float]]:
    """Accuracies of a stage's trained trials of one length, by proxy [%]."""
    found: dict[str, list[float]] = {}
    chosen = [one for one in results if (one.key.stage, one.key.rung) == (stage, rung) and one.key.proxy != without]
    for result in sorted(chosen, key=lambda result: (result.key.proxy, result.key.seed)):
        if result.accuracy is not None:
            found.setdefault(result.key.proxy, []).append(result.accuracy)
    return found


def search_ranking(plan: Plan, layout: Layout, results: Sequence[TrialResult], leaves: Sequence[Leave]) -> Ranking:
    """Rank the proxies of a search by its full-length trials. The anchor takes no part."""
    found = arms(layout)
    lengths = sorted({result.key.rung for result in results if result.key.stage == "search"})
    tried = {result.key.proxy for result in results if result.key.stage == "search" and result.has_ended}
    lost = {result.key.proxy for result in results if result.state == "failed"}
    return rank(
        found,
        accuracies(results, "search", plan.epochs),
        margin=plan.margin,
        named={"paper": PAPER.shares} if plan.space.budget > 1 else {},
        untrained=frozenset(arm.id for arm in found) - (tried & lost),
        shorter=[accuracies(results, "search", rung) for rung in lengths if rung < plan.epochs],
        left=frozenset(leave.arm for leave in leaves),
    )


def player(plan: Plan, layout: Layout, written: Mapping[str, Decision] = MappingProxyType({})) -> Player:
    """The policy of a plan at its beginning, with what its journal says was decided."""
    found = arms(layout)
    return Player(found, _rules(plan, len(found)), written)


def agenda(plan: Plan, layout: Layout, results: Sequence[TrialResult], playing: Player | None = None) -> Agenda:
    """What comes next.

    Args:
        plan: what to do.
        layout: its candidates.
        results: all trials so far; those that have not ended decide nothing.
        playing: a `player` of the plan that has heard of earlier results, which are not decided on again.

    Raises:
        StudyError: results of another plan.
    """
    strangers = {result.key.proxy for result in results} - {ANCHOR, *layout.trained}
    if strangers:
        raise StudyError(f"trials of {min(strangers)}, which the plan does not have", mend="restore the run folder")
    ended = {result.key: result.accuracy for result in results if result.has_ended}
    count = len(layout.trained)
    rules = _rules(plan, count)
    anchors = _keys([ANCHOR], range(plan.anchor_seeds), plan.epochs, "search")
    own = {key: value for key, value in ended.items() if key.stage == "search" and key.proxy != ANCHOR}
    searched = (playing or player(plan, layout)).standing(own)
    most = plan.anchor_seeds + most_trials(count, rules) + _most_after(plan, layout)

    planned = [*anchors, *searched.ended, *searched.due]

    def at(stage: Stage | None, due: Sequence[TrialKey] = ()) -> Agenda:
        return Agenda(stage=stage, due=tuple(due), planned=tuple(planned), search=searched, most=most)

    if searched.due or not ended.keys() >= set(anchors):
        return at("search", (*anchors, *searched.due))
    if plan.confirm or plan.check_phi is not None:
        ranking = search_ranking(plan, layout, results, searched.leaves)
        later: dict[Stage, list[TrialKey]] = {
            "confirm": _confirmed(plan, layout, ranking),
            "travel": _travelling(plan, layout, ranking),
        }
        for stage, due in later.items():
            planned += due
            if not ended.keys() >= set(due):
                return at(stage, due)
    return at(None)


def in_order(planned: Sequence[TrialKey], results: Sequence[TrialResult]) -> list[TrialResult]:
    """Results in the order in which their trials were asked for, whatever the order of their ends."""
    places = {key: place for place, key in enumerate(planned)}
    return sorted(results, key=lambda result: places.get(result.key, len(places)))


def due_at_once(plan: Plan, layout: Layout) -> int:
    """Trials that a search asks for at a time, but for its first batch."""
    return BATCH if plan.policy == "fit" else len(layout.trained)


def seeds_at_once(plan: Plan) -> int:
    """Most seeds of one network among trials that are due together."""
    return plan.seeds if plan.policy == "grid" or plan.confirm or plan.check_phi is not None else 1


def _rules(plan: Plan, count: int) -> Rules:
    return Rules(
        policy=plan.policy,
        epochs=plan.epochs,
        seeds=plan.seeds,
        margin=plan.margin,
        most_epochs=plan.search_epochs(count),
    )


def _keys(names: Sequence[str], seeds: range, rung: int, stage: Stage) -> list[TrialKey]:
    return [TrialKey(proxy=name, seed=seed, rung=rung, stage=stage) for seed in seeds for name in names]


def _most_after(plan: Plan, layout: Layout) -> int:
    """Trials of the stages after the search, at most."""
    named = sum(bool(arm.references) for arm in arms(layout))
    confirmed = plan.confirm + named + 1 if plan.confirm else 0
    travelling = TRAVELLERS + named if plan.check_phi is not None else 0
    return plan.seeds * (confirmed + travelling)


def leading(layout: Layout, ranking: Ranking, count: int) -> list[str]:
    """The first trained proxies on budget, then the references that are not among them."""
    first = [row.id for row in ranking.on_budget if row.seeds][:count]
    return [*first, *(arm.id for arm in arms(layout) if arm.references and arm.id not in first)]


def _confirmed(plan: Plan, layout: Layout, ranking: Ranking) -> list[TrialKey]:
    if not plan.confirm or ranking.leader is None:
        return []
    names = [ANCHOR, *leading(layout, ranking, plan.confirm)]
    return _keys(names, range(NEW_SEEDS, NEW_SEEDS + plan.seeds), plan.epochs, "confirm")


def _travelling(plan: Plan, layout: Layout, ranking: Ranking) -> list[TrialKey]:
    if plan.check_phi is None or ranking.leader is None:
        return []
    names = [
        name for name in leading(layout, ranking, TRAVELLERS) if traveller(layout.candidate(name), plan) is not None
    ]
    return _keys(names, range(plan.seeds), plan.epochs, "travel")
