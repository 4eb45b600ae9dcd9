"""What a policy is told, what it answers, and how it reads results."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from scalesearch.presets import PolicyName
from scalesearch.ranking import competitors
from scalesearch.samples import Arm, Sample, summed_up
from scalesearch.surface import Array, Draws, fit_rungs, misfit
from scalesearch.trials import TrialKey

DRAWS = 2_000
"""Draws from the posterior behind a decision."""
SETTLED = 0.5
"""A search is settled when the leader is expected to miss the best by at most this part of the margin."""
LIKELY = 0.5
"""A leader that is the best with this probability, and ahead by the margin, is proven: trials go on until the others
are excluded."""

Results = Mapping[TrialKey, float | None]
"""Accuracies of ended trials [%]; None for one that failed."""


class Ending(StrEnum):
    """Why a policy asks for no more trials."""

    COMPLETE = "complete"
    """It trained all that it meant to."""
    SETTLED = "settled"
    """More trials are expected to gain less than the margin is worth."""
    LIMIT = "limit"
    """It took as many trials as finding the best may take, and is not settled."""
    SPENT = "spent"
    """The next batch would not fit into the compute that it was given."""


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
class Leave:
    """An arm that is trained no longer because it was found to be worse."""

    arm: str
    rung: int
    """Training length at which it was found to be worse [epochs]."""
    seeds: int
    """Trials of it at that length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Trials up to the next barrier."""

    keys: tuple[TrialKey, ...]
    """In canonical order."""
    leaves: tuple[Leave, ...] = ()
    """Arms that the results before this batch put out."""


Policy = Generator[Batch, Results, tuple[Ending, tuple[Leave, ...]]]
"""Yields batches, is sent all results so far, and ends with its reason and the last arms to leave."""


def block(arms: Sequence[str], seed: int, rung: int) -> tuple[TrialKey, ...]:
    """One seed of several arms."""
    return tuple(TrialKey(proxy=name, seed=seed, rung=rung) for name in arms)


def affordable(keys: Sequence[TrialKey], epochs: int) -> tuple[TrialKey, ...]:
    """The first trials that take no more than `epochs` together."""
    ends = np.cumsum([key.rung for key in keys])
    return tuple(keys[: int(np.searchsorted(ends, epochs, side="right"))])


def samples_at(arms: Sequence[Arm], results: Results, rung: int) -> list[Sample]:
    """The accuracies of the arms at one training length, summed up; failed trials are left out."""
    accuracies: dict[str, list[float]] = {}
    for key, value in results.items():  # in any order, which a sum does not show
        if key.rung == rung and value is not None:
            accuracies.setdefault(key.proxy, []).append(value)
    return summed_up(arms, accuracies)


def draws_at(arms: Sequence[Arm], results: Results, rung: int, seed: int) -> tuple[list[str], Draws] | None:
    """Draws of the true accuracies at one training length, with the ids of their columns.

    A poor fit is not relied on: arms then count as alike but for their roughness. None while too little is known.
    """
    rivals = competitors(arms)
    places = {arm.id: index for index, arm in enumerate(rivals)}
    lengths = sorted({key.rung for key in results if key.rung <= rung})
    known = [samples_at(rivals, results, length) for length in lengths]
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
