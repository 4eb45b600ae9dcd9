"""Full-length trials where the response surface says that they tell most. No short training: immune to its bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scalesearch.candidates import spread
from scalesearch.policies.allocation import most_telling
from scalesearch.policies.rules import (
    SETTLED,
    Batch,
    Ending,
    Policy,
    Results,
    Rules,
    affordable,
    draws_at,
    expected_loss,
)
from scalesearch.ranking import competitors
from scalesearch.samples import Arm
from scalesearch.surface import excluded
from scalesearch.trials import TrialKey

DESIGN = 10
"""Arms of the first batch: the references, then the farthest from those chosen."""
REPEATS = 4
"""Arms of the first batch that get a second seed, which tells noise from roughness."""
BATCH = 4
"""Trials between two decisions, whatever the number of slots."""


def fit(arms: Sequence[Arm], rules: Rules) -> Policy:
    """A spread of arms first, then the most telling trials until the leader is as good as the best."""
    keys = _design(arms, rules)
    seeds: Counter[str] = Counter()
    spent = look = 0
    while True:
        kept = affordable(keys, rules.most_epochs - spent)
        seeds.update(key.proxy for key in kept)
        spent += rules.epochs * len(kept)
        results = yield Batch(keys=kept)
        if len(kept) < len(keys):
            return Ending.SPENT, ()
        look += 1
        ending, picks = _decision(arms, rules, results, look)
        if ending:
            return ending, ()
        keys = _numbered(picks, seeds, rules)


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


def _decision(arms: Sequence[Arm], rules: Rules, results: Results, look: int) -> tuple[Ending | None, list[str]]:
    """Whether the search is settled, and else the arms of the next batch."""
    found = draws_at(arms, results, rules.epochs, seed=look)
    if found is None:
        return Ending.COMPLETE, []
    names, draws = found
    trained = {key.proxy for key, value in results.items() if value is not None}
    failed = {key.proxy for key, value in results.items() if value is None}
    estimates = np.where([name in trained for name in names], draws.accuracies.mean(axis=0), -np.inf)
    leader = int(estimates.argmax())
    is_alone = int(excluded(draws.accuracies, leader, rules.margin).sum()) == len(names) - 1
    if is_alone or expected_loss(draws, leader) <= SETTLED * rules.margin:
        return Ending.SETTLED, []
    open_arms = np.array([name not in failed for name in names])
    if not open_arms.any():
        return Ending.COMPLETE, []
    return None, [names[index] for index in most_telling(draws, BATCH, open_arms)]
