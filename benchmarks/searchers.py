"""Who searches: grids, Optuna's pruners, and scalesearch's own policies, all set on a landscape in the same way.

Compute is counted in trained epochs, all arms costing the same. `race`, `fit` and the grids train every rung from
scratch; a trial of Optuna goes on from rung to rung, so that only the last epoch it reached counts: in its favour.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import optuna
from landscapes import MARGIN, Landscape

from scalesearch.fidelity import fidelity
from scalesearch.plan import LEAST_TRIALS
from scalesearch.policies import Player
from scalesearch.policies.race import region
from scalesearch.policies.rules import Rules
from scalesearch.presets import PolicyName
from scalesearch.ranking import Ranking, rank
from scalesearch.trials import TrialKey

SEEDS = 3
"""Of the grid that all are compared with."""
WILCOXON_SEEDS = 5
"""Full trainings of an arm that the Wilcoxon pruner may stop short of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An interval that a searcher gives."""

    low: float
    high: float
    truth: float

    def covers(self) -> bool:
        """Whether the truth lies inside."""
        return self.low <= self.truth <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a searcher made of a landscape."""

    leader: int
    """Place of the arm that it ends with."""
    epochs: int
    """Trained, all arms and seeds together."""
    tied: tuple[int, ...] = ()
    """Places of the arms that may be the best; the leader alone where a winner is claimed."""
    intervals: tuple[Claim, ...] = ()
    """Accuracies of the tied arms [%]."""
    shares: tuple[Claim, ...] = ()
    """Shares of the optimum."""
    ending: str = ""
    """Why a policy stopped."""
    is_poor: bool = False
    """Whether the ranking rests on means because the surface fits badly."""
    again: int = 0
    """Trainings beyond the seeds that a table has: recorded ones, shown once more."""
    flips: bool | None = None
    """Whether width is reported to lead depth after short training and to trail after long; None: nothing short."""

    @property
    def winner(self) -> int | None:
        """Place of the arm that is claimed to be the one best; None where others may be."""
        return self.leader if self.tied == (self.leader,) else None


Searcher = Callable[[Landscape, np.random.Generator], Played]


def _places(landscape: Landscape) -> dict[str, int]:
    return {arm.id: place for place, arm in enumerate(landscape.arms)}


def best_mean(landscape: Landscape, random: np.random.Generator, *, seeds: int) -> Played:
    """The paper's way: every arm, `seeds` times at full length, and the highest mean wins."""
    full = landscape.rungs[-1]
    means = [
        np.mean([landscape.accuracy(place, full, seed, random) for seed in range(seeds)])
        for place in range(len(landscape.arms))
    ]
    leader = int(np.argmax(means))
    return Played(leader=leader, epochs=seeds * full * len(means), tied=(leader,))


# scalesearch ----------------------------------------------------------------------------------------------------------


def policy(landscape: Landscape, random: np.random.Generator, *, name: PolicyName, seeds: int = SEEDS) -> Played:
    """A policy of scalesearch, driven as a search drives it, and its ranking."""
    full, places = landscape.rungs[-1], _places(landscape)
    most = max(seeds * len(places), LEAST_TRIALS if name == "fit" else 0)
    rules = Rules(policy=name, epochs=full, seeds=seeds, margin=MARGIN, most_epochs=full * most)
    results: dict[TrialKey, float | None] = {}
    playing = Player(landscape.arms, rules)
    while (now := playing.standing(results)).due:
        for key in now.due:
            assert key not in results, f"{key} is asked for twice"
            results[key] = landscape.accuracy(places[key.proxy], key.rung, key.seed, random)
    leaves = frozenset(leave.arm for leave in now.leaves)
    return _concluded(landscape, results, ending=str(now.ending), left=leaves)


def _concluded(
    landscape: Landscape, results: Mapping[TrialKey, float | None], ending: str, left: frozenset[str] = frozenset()
) -> Played:
    by_rung = {rung: _accuracies(results, rung) for rung in landscape.rungs}
    names = _places(landscape)
    ranking = rank(
        landscape.arms,
        by_rung[landscape.rungs[-1]],
        margin=MARGIN,
        untrained=frozenset(names),
        shorter=[by_rung[rung] for rung in landscape.rungs[:-1] if by_rung[rung]],
        left=left,
    )
    tied = [row for row in ranking.on_budget if row.tied_with_best]
    assert ranking.leader is not None
    return Played(
        leader=names[ranking.leader],
        epochs=sum(key.rung for key in results),
        tied=tuple(names[row.id] for row in tied),
        intervals=tuple(
            Claim(low=row.low, high=row.high, truth=float(landscape.truth[names[row.id]]))
            for row in tied
            if row.low is not None and row.high is not None
        ),
        shares=_shares(landscape, ranking),
        ending=ending,
        is_poor=ranking.surface is not None and ranking.surface.misfit.is_poor,
        again=sum(key.seed >= (landscape.seeds or np.inf) for key in results),
        flips=_flips(landscape, by_rung),
    )


def _accuracies(results: Mapping[TrialKey, float | None], rung: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for key, value in results.items():
        if key.rung == rung and value is not None:
            found.setdefault(key.proxy, []).append(value)
    return found


def _shares(landscape: Landscape, ranking: Ranking) -> tuple[Claim, ...]:
    """What a ranking that rests on its surface says of the optimum, where the truth is known."""
    if landscape.optimum is None or ranking.surface is None or not ranking.rests_on_surface:
        return ()
    told = ranking.surface.optimum
    return tuple(
        Claim(low=low, high=high, truth=truth)
        for low, high, truth in zip(told.low, told.high, landscape.optimum, strict=True)
    )


def _flips(landscape: Landscape, by_rung: Mapping[int, Mapping[str, Sequence[float]]]) -> bool | None:
    if sum(bool(found) for found in by_rung.values()) < 2:
        return None
    told = fidelity(by_rung, {arm.id: region(arm) for arm in landscape.arms})
    flips = [flip for agreement in told.agreements for flip in agreement.flips]
    return any((flip.better_short, flip.better_long) == ("width", "depth") for flip in flips)


# Optuna ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Optuna:
    """A study of Optuna in which every arm is one trial, in random order."""

    landscape: Landscape
    random: np.random.Generator
    pruner: optuna.pruners.BasePruner
    epochs: list[int] = field(default_factory=list)

    def play(self, train: Callable[[_Optuna, optuna.Trial, int], float | None]) -> Played:
        """Run every trial; `train` gives its value, or None where it was pruned."""
        # the pruners draw on the study's name, which would otherwise be a new one every time
        study = optuna.create_study(
            study_name=str(self.random.integers(2**31)),
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=self.pruner,
        )
        order = [int(place) for place in self.random.permutation(len(self.landscape.arms))]
        for place in order:
            trial = study.ask()
            value = train(self, trial, place)
            state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
            study.tell(trial, value, state=state)
        leader = order[study.best_trial.number]
        return Played(leader=leader, epochs=sum(self.epochs), tied=(leader,))


def _by_rungs(studied: _Optuna, trial: optuna.Trial, place: int) -> float | None:
    """One training that is looked at after every rung."""
    value = 0.0
    for rung in studied.landscape.rungs:
        value = studied.landscape.accuracy(place, rung, 0, studied.random)
        trial.report(value, step=rung)
        if rung < studied.landscape.rungs[-1] and trial.should_prune():
            studied.epochs.append(rung)
            return None
    studied.epochs.append(studied.landscape.rungs[-1])
    return value


def _by_seeds(studied: _Optuna, trial: optuna.Trial, place: int) -> float:
    """Full trainings one after the other; an arm that is stopped keeps the mean so far, as Optuna documents it."""
    values: list[float] = []
    full = studied.landscape.rungs[-1]
    for seed in range(min(WILCOXON_SEEDS, studied.landscape.seeds or WILCOXON_SEEDS)):
        values.append(studied.landscape.accuracy(place, full, seed, studied.random))
        studied.epochs.append(full)
        trial.report(values[-1], step=seed)
        if trial.should_prune():
            break
    return float(np.mean(values))


def halving(landscape: Landscape, random: np.random.Generator) -> Played:
    """Optuna's SuccessiveHalvingPruner as it comes."""
    return _Optuna(landscape, random, optuna.pruners.SuccessiveHalvingPruner()).play(_by_rungs)


def halving_tuned(landscape: Landscape, random: np.random.Generator) -> Played:
    """The same, first looking at the last rung but one: the least regret of 2, 3 or 4 from rung 1, 4 or 16 on."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=landscape.rungs[-2], reduction_factor=3)
    return _Optuna(landscape, random, pruner).play(_by_rungs)


def hyperband(landscape: Landscape, random: np.random.Generator, *, factor: int) -> Played:
    """Optuna's HyperbandPruner on the rungs of the landscape."""
    rungs = landscape.rungs
    pruner = optuna.pruners.HyperbandPruner(min_resource=rungs[0], max_resource=rungs[-1], reduction_factor=factor)
    return _Optuna(landscape, random, pruner).play(_by_rungs)


def wilcoxon(landscape: Landscape, random: np.random.Generator, *, threshold: float) -> Played:
    """Optuna's WilcoxonPruner, seeds being its steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is experimental, and few steps make its test a rough one
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=threshold, n_startup_steps=2)
        return _Optuna(landscape, random, pruner).play(_by_seeds)


SEARCHERS: Mapping[str, Searcher] = {
    "grid-1": partial(best_mean, seeds=1),
    "grid-3": partial(best_mean, seeds=3),
    "grid-5": partial(best_mean, seeds=5),
    "optuna-halving": halving,
    "optuna-halving-tuned": halving_tuned,
    "optuna-hyperband": partial(hyperband, factor=4),
    "optuna-hyperband-tuned": partial(hyperband, factor=2),
    "optuna-wilcoxon-tuned": partial(wilcoxon, threshold=0.3),
    "race": partial(policy, name="race"),
    "fit": partial(policy, name="fit"),
}
"""Tuned: of the settings that their documentation offers, those of least regret at about the compute of `fit`, found on
other landscapes of `smooth` and `rough`; for Wilcoxon, the least compute that costs hardly any regret."""
PEER = "grid-3"
"""What all are compared with: the highest mean of three seeds."""
