"""What a policy is told, what it answers, and how it reads results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from scalesearch.basis import Array
from scalesearch.decision import Decision, Ending, Leave
from scalesearch.presets import PolicyName
from scalesearch.ranking import competitors
from scalesearch.samples import Arm, Sample, Tally
from scalesearch.surface import Draws, fit_rungs, misfit
from scalesearch.trials import TrialKey

DRAWS = 2_000
"""Draws from the posterior behind a decision."""
SETTLED = 0.5
"""A search is settled when the leader is expected to miss the best by at most this part of the margin."""
LIKELY = 0.5
"""A leader that is the best with this probability, and ahead by the margin, is proven: trials go on until the others
are excluded."""


class Results:
    """Ended trials as decisions read them. Only grows: what a decision costs does not rise with the trials before."""

    def __init__(self) -> None:
        self.trials: Counter[str] = Counter()
        """By arm; failed ones count."""
        self.failed: set[str] = set()
        """Arms with a failed trial."""
        self._tallies: dict[int, dict[str, Tally]] = {}
        """By training length and arm."""

    def __len__(self) -> int:
        return self.trials.total()

    def add(self, key: TrialKey, accuracy: float | None) -> None:
        """One more; its accuracy is None where it failed [%]."""
        self.trials[key.proxy] += 1
        tallies = self._tallies.setdefault(key.rung, {})
        if accuracy is None:
            self.failed.add(key.proxy)
        else:
            tallies.setdefault(key.proxy, Tally()).add(accuracy)

    def lengths(self, most: int) -> list[int]:
        """The training lengths up to `most`, from short to long [epochs]."""
        return sorted(rung for rung in self._tallies if rung <= most)

    def seeds(self, arm: str, rung: int) -> int:
        """Finished trials of an arm at one length."""
        tally = self._tallies.get(rung, {}).get(arm)
        return tally.seeds if tally else 0

    def samples(self, arms: Sequence[Arm], rung: int) -> list[Sample]:
        """The accuracies of the arms at one length, summed up; failed trials are left out."""
        tallies = self._tallies[rung]
        return [tallies[arm.id].sample(arm) for arm in arms if arm.id in tallies]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a search decides."""

    policy: PolicyName
    epochs: int
    """Full training length."""
    seeds: int
    """Trainings of every proxy under `grid`."""
    margin: float
    """Differences in accuracy up to this count as none [points]."""
    most_epochs: int
    """Most epochs of all trials together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Trials up to the next barrier."""

    keys: tuple[TrialKey, ...]
    """In canonical order."""
    leaves: tuple[Leave, ...] = ()
    """Arms that the results before this batch put out."""
    judge: Callable[[Results], Decision] | None = None
    """What is to be decided when it has ended, by all results so far; None = nothing."""


Policy = Generator[Batch, Decision, tuple[Ending, tuple[Leave, ...]]]
"""Yields batches, is sent what was decided on each, and ends with its reason and the last arms to leave."""


def block(arms: Sequence[str], seed: int, rung: int) -> tuple[TrialKey, ...]:
    """One seed of several arms."""
    return tuple(TrialKey(proxy=name, seed=seed, rung=rung) for name in arms)


def affordable(keys: Sequence[TrialKey], epochs: int) -> tuple[TrialKey, ...]:
    """The first trials that take no more than `epochs` together."""
    ends = np.cumsum([key.rung for key in keys])
    return tuple(keys[: int(np.searchsorted(ends, epochs, side="right"))])


def draws_at(arms: Sequence[Arm], results: Results, rung: int, seed: int) -> tuple[list[str], Draws] | None:
    """Draws of the true accuracies at one training length, with the ids of their columns.

    A poor fit is not relied on: arms then count as alike but for their roughness. None while too little is known.
    """
    rivals = competitors(arms)
    places = {arm.id: index for index, arm in enumerate(rivals)}
    known = [results.samples(rivals, length) for length in results.lengths(rung)]
    shares = np.array([arm.shares for arm in rivals])
    surface = fit_rungs(known, shares, places)
    if surface is None or misfit(surface).is_poor:
        surface = fit_rungs(known, shares, places, degree=0)
    return ([arm.id for arm in rivals], surface.draws(DRAWS, seed)) if surface else None


def is_good_enough(accuracies: Array, leader: int, margin: float) -> bool:
    """Whether the best of the arms is expected to be better than the leader by no more than what settles a search.

    Args:
        accuracies: (draws, arms), draws of the true accuracies [%].
        leader: column of the arm in question.
        margin: differences up to this count as none [points].
    """
    return bool((accuracies.max(axis=1) - accuracies[:, leader]).mean() <= SETTLED * margin)


def stands_out(accuracies: Array, leader: int, lead: float, chance: float = LIKELY) -> bool:
    """Whether the leader is the best with this probability, and estimated to be ahead of all others by `lead` points.

    Args:
        accuracies: (draws, arms), draws of the true accuracies [%].
        leader: column of the arm in question.
        lead: over the next estimate [points].
        chance: of being the best.
    """
    estimates = accuracies.mean(axis=0)
    ahead = estimates[leader] - np.delete(estimates, leader).max(initial=-np.inf)
    return bool(ahead >= lead and (accuracies.argmax(axis=1) == leader).mean() >= chance)
