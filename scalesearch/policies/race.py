"""Trainings of growing length, in blocks of one seed; arms leave when they are shown to be worse than the leader.

Short training favours width over depth (ResNet-RS, arXiv 2103.07579), so no short rung alone decides between regions:
an arm leaves a short rung when it is worse than the best arm of its own region, or worse than the leader of all at
this rung and at the one before. At full length the comparison with the leader decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scalesearch.basis import Array
from scalesearch.decision import Decision, Ending, Leave
from scalesearch.policies.rules import (
    Batch,
    Policy,
    Results,
    Rules,
    affordable,
    block,
    draws_at,
    is_good_enough,
    stands_out,
)
from scalesearch.ranking import competitors
from scalesearch.samples import Arm, region
from scalesearch.scaling import DIMENSIONS
from scalesearch.surface import excluded
from scalesearch.trials import TrialKey

RUNGS = 3
"""Training lengths, each the next one's quarter, rounded down, at least one epoch."""
REPEATS = 4
"""Arms of a short rung that get a second seed, which tells noise from roughness."""
ERROR = 0.025
"""Probability that any arm leaves wrongly, over all decisions; each has half of what is left. The final ranking has
as much again."""


def rungs(epochs: int) -> tuple[int, ...]:
    """The training lengths of a race [epochs].

    >>> rungs(64), rungs(16), rungs(2), rungs(1)
    ((4, 16, 64), (1, 4, 16), (1, 2), (1,))
    """
    return tuple(sorted({max(1, epochs // 4**step) for step in range(RUNGS)}))


def race(arms: Sequence[Arm], rules: Rules) -> Policy:
    """Short rungs of one block, then blocks at full length until the rest is settled."""
    rivals = competitors(arms)
    named = [arm.id for arm in arms if arm.references or arm.off_budget or arm.shares is None]
    said = Decision(arms=tuple(arm.id for arm in rivals))
    lengths = rungs(rules.epochs)
    spent = look = 0
    while True:
        rung, seed = lengths[min(look, len(lengths) - 1)], max(0, look - len(lengths) + 1)
        keys = _block(said.arms, rung, seed, rules)
        if rung < rules.epochs and spent + rung * len(keys) > rules.most_epochs / 2:
            lengths = lengths[:look] + lengths[-1:]  # what is left is for full length, which alone is ranked
            continue
        if seed == 0:  # the references are seen at every length, whoever has left
            keys = (*keys, *block([name for name in named if name not in said.arms], 0, rung))
        kept = affordable(keys, rules.most_epochs - spent)
        spent += sum(key.rung for key in kept)
        if kept != keys:
            yield Batch(keys=kept, leaves=said.leaves)
            return Ending.SPENT, ()
        look += 1
        judge = partial(_judged, rivals, said, rung=rung, rules=rules, error=ERROR / 2**look)
        said = yield Batch(keys=kept, leaves=said.leaves, judge=judge)
        if said.ending:
            return said.ending, said.leaves


def _block(alive: Sequence[str], rung: int, seed: int, rules: Rules) -> tuple[TrialKey, ...]:
    """One seed of every arm; at a short rung, which has no other block, some get a second one."""
    if rung == rules.epochs:
        return block(alive, seed, rung)
    repeated = alive[:: max(1, len(alive) // REPEATS)][:REPEATS]
    return (*block(alive, 0, rung), *block(repeated, 1, rung))


def _judged(
    rivals: Sequence[Arm], before: Decision, results: Results, rung: int, rules: Rules, error: float
) -> Decision:
    """Who stays after a block, by the trials of its length."""
    alive = [name for name in before.arms if name not in results.failed]
    found = draws_at(rivals, results, rung, seed=len(results))
    if found is None or not alive:
        return Decision(arms=tuple(alive), ending=_ending(alive))
    names, draws = found
    homes = {arm.id: region(arm) for arm in rivals}
    columns = [names.index(name) for name in alive]
    error = error if rung == rules.epochs else error / 2  # a short rung compares twice: with all, and at home
    behind = {names[index] for index in _worse(draws.accuracies, columns, rules.margin, error)}
    gone = behind if rung == rules.epochs else behind.intersection(before.behind)
    for home in DIMENSIONS if rung < rules.epochs else ():
        local = [index for index in columns if homes[names[index]] == home]
        worse = _worse(draws.accuracies, local, rules.margin, error / len(DIMENSIONS)) if local else ()
        gone = gone | {names[index] for index in worse}
    estimates = dict(zip(names, draws.accuracies.mean(axis=0), strict=True))
    stay = sorted((name for name in alive if name not in gone), key=lambda name: -estimates[name])
    rest = draws.accuracies[:, columns]
    leader = int(rest.mean(axis=0).argmax())
    is_settled = is_good_enough(rest, leader, rules.margin) and not stands_out(rest, leader, rules.margin)
    return Decision(
        arms=tuple(stay),
        leaves=_leaves(alive, stay, results, rung),
        behind=tuple(sorted(behind)),
        ending=_ending(stay, rung == rules.epochs and is_settled),
    )


def _ending(alive: Sequence[str], is_settled: bool = False) -> Ending | None:
    if not alive:
        return Ending.COMPLETE
    return Ending.SETTLED if len(alive) < 2 or is_settled else None


def _worse(accuracies: Array, columns: Sequence[int], margin: float, error: float) -> list[int]:
    """Those of the columns that are worse than the best of them by more than the margin."""
    chosen = accuracies[:, columns]
    gone = excluded(chosen, int(chosen.mean(axis=0).argmax()), margin, error)
    return [column for column, is_out in zip(columns, gone, strict=True) if is_out]


def _leaves(before: Sequence[str], after: Sequence[str], results: Results, rung: int) -> tuple[Leave, ...]:
    gone = sorted(set(before) - set(after))
    return tuple(Leave(arm=name, rung=rung, seeds=results.seeds(name, rung)) for name in gone)
