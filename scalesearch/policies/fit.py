"""Full-length trials where the response surface says that they tell most. No short training: immune to its bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scalesearch.basis import Array
from scalesearch.candidates import spread
from scalesearch.decision import Decision, Ending
from scalesearch.plan import LEAST_TRIALS
from scalesearch.policies.allocation import most_telling
from scalesearch.policies.rules import (
    Batch,
    Policy,
    Results,
    Rules,
    affordable,
    draws_at,
    is_good_enough,
    stands_out,
)
from scalesearch.ranking import competitors
from scalesearch.samples import Arm
from scalesearch.surface import Draws, excluded
from scalesearch.trials import TrialKey

DESIGN = 10
"""Arms of the first batch: the references, then the farthest from those chosen."""
REPEATS = 4
"""Arms of the first batch that get a second seed, which tells noise from roughness."""
BATCH = 4
"""Trials between two decisions, whatever the number of slots."""
UNSEEN = 0.12
"""Largest probability, at the end, that the best is among the arms that were never trained."""
HOPEFUL = 0.3
"""A leader that is the best with this probability, and ahead by half the margin, is looked at again before the end."""
FAMILIAR = 6
"""Trials of a leader after which it is not looked at again for that."""


def fit(arms: Sequence[Arm], rules: Rules) -> Policy:
    """A spread of arms first, then the most telling trials until the leader is as good as the best, or proven."""
    keys = _design(arms, rules)
    seeds: Counter[str] = Counter()
    number = 0
    while True:
        kept = affordable(keys, rules.most_epochs - rules.epochs * seeds.total())
        seeds.update(key.proxy for key in kept)
        if len(kept) < len(keys):
            yield Batch(keys=kept)
            return Ending.SPENT, ()
        number += 1
        said = yield Batch(keys=kept, judge=partial(_judged, arms, rules, number))
        if said.ending:
            return said.ending, ()
        keys = _numbered(said.arms, seeds, rules)


def _design(arms: Sequence[Arm], rules: Rules) -> tuple[TrialKey, ...]:
    """The first batch; references off budget, which no surface holds, are trained in it once."""
    rivals = competitors(arms)
    shares = [arm.shares for arm in rivals if arm.shares is not None]
    named = [index for index, arm in enumerate(rivals) if arm.references]
    chosen = [rivals[index].id for index in spread(shares, named, DESIGN)]
    outside = [arm.id for arm in arms if arm.off_budget or arm.shares is None]
    return _numbered([*chosen, *outside, *chosen[:REPEATS]], Counter(), rules)


def _numbered(names: Sequence[str], seeds: Counter[str], rules: Rules) -> tuple[TrialKey, ...]:
    """Trials of the arms, each with its next seed."""
    used = Counter(seeds)
    keys: list[TrialKey] = []
    for name in names:
        keys.append(TrialKey(proxy=name, seed=used[name], rung=rules.epochs))
        used[name] += 1
    return tuple(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What the trials so far say."""

    draws: Draws
    """Of the true accuracies."""
    leader: int
    """The trained arm with the highest estimate."""
    trials: Array
    """(arms,): finished trials."""
    open_arms: Array
    """(arms,) of booleans: those that may be trained."""


def _look(names: Sequence[str], draws: Draws, results: Results, rung: int) -> _Look:
    counts = np.array([results.seeds(name, rung) for name in names])
    estimates = draws.accuracies.mean(axis=0)
    leader = int(np.where(counts > 0, estimates, -np.inf).argmax())
    return _Look(
        draws=draws,
        leader=leader,
        trials=counts,
        open_arms=np.array([name not in results.failed for name in names]),
    )


def _judged(arms: Sequence[Arm], rules: Rules, number: int, results: Results) -> Decision:
    """Whether the search has ended, and else the arms of the next batch."""
    found = draws_at(arms, results, rules.epochs, seed=number)
    if found is None:
        return _going_on(_more(arms, results), Ending.COMPLETE)
    names, look = found[0], _look(*found, results, rules.epochs)
    rest = ~excluded(look.draws.accuracies, look.leader, rules.margin)
    if rest.sum() < 2:
        return Decision(ending=Ending.SETTLED)
    if not look.open_arms.any():
        return Decision(ending=Ending.COMPLETE)
    if stands_out(look.draws.accuracies, look.leader, rules.margin):
        picks = _proof(look, look.open_arms & rest, rules.margin)
    elif is_good_enough(look.draws.accuracies, look.leader, rules.margin):
        picks = _last_doubts(look, rules.margin)
    elif len(results) >= max(LEAST_TRIALS, len(arms)):
        return Decision(ending=Ending.LIMIT)
    else:
        picks = most_telling(look.draws, BATCH, look.open_arms)
    return _going_on([names[index] for index in picks], Ending.SETTLED)


def _going_on(picks: Sequence[str], ending: Ending) -> Decision:
    """With these arms; where there are none the search has come to that end."""
    return Decision(arms=tuple(picks), ending=None if picks else ending)


def _more(arms: Sequence[Arm], results: Results) -> list[str]:
    """Arms to train where failures left too little for a decision: those with the fewest trials."""
    if len(results) >= max(LEAST_TRIALS, len(arms)):
        return []
    able = [arm.id for arm in competitors(arms) if arm.id not in results.failed]
    return sorted(able, key=lambda name: results.trials[name])[:BATCH]


def _proof(look: _Look, rivals: Array, margin: float) -> list[int]:
    """The leader and the rivals that most likely come within the margin of it; of those that do not fail."""
    near = (look.draws.accuracies >= look.draws.accuracies[:, [look.leader]] - margin).mean(axis=0)
    order = [int(index) for index in np.argsort(-near, kind="stable") if rivals[index] and index != look.leader]
    return [*_unless_closed(look), *order[: BATCH - 1]]


def _unless_closed(look: _Look) -> list[int]:
    return [look.leader] if look.open_arms[look.leader] else []


def _last_doubts(look: _Look, margin: float) -> list[int]:
    """Arms to be trained before a good leader is settled for: unseen ones, or the leader itself if it may stand out."""
    accuracies = look.draws.accuracies
    chances = np.bincount(accuracies.argmax(axis=1), minlength=len(look.trials)) / len(accuracies)
    unseen = np.where(look.open_arms & (look.trials == 0), chances, 0.0)
    if unseen.sum() > UNSEEN:
        return [int(index) for index in np.argsort(-unseen, kind="stable")[:BATCH] if unseen[index]]
    may_stand_out = stands_out(accuracies, look.leader, margin / 2, HOPEFUL)
    return _unless_closed(look) * 2 if may_stand_out and look.trials[look.leader] < FAMILIAR else []
